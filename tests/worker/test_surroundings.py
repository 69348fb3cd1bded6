"""What a task changes for its whole process: the working directory, limits, its user, paths."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, open_project, until

CHANGES = """
import io
import os
import resource
import shutil
import signal
import sys
import tempfile
import time

from mrq_core import task
from tasks import note


@task
def leaves_in(kind: str):
    folder = tempfile.mkdtemp()
    os.chdir(folder)
    if kind == "deleted":
        shutil.rmtree(folder)
    time.sleep(0.01)


@task
def where():
    import fresh
    return [os.getcwd(), fresh.NAME]


@task
def limits():
    sys.setrecursionlimit(80)
    return sys.getrecursionlimit()


@task
def lowers_limits():
    for number, soft in ((resource.RLIMIT_NOFILE, 64), (resource.RLIMIT_AS, 2**32)):
        resource.setrlimit(number, (soft, resource.getrlimit(number)[1]))
    signal.setitimer(signal.ITIMER_REAL, 1000)
    time.sleep(0.01)


@task
def limits_now():
    limits = [list(resource.getrlimit(number)) for number in (resource.RLIMIT_NOFILE, resource.RLIMIT_AS)]
    return [*limits, signal.getitimer(signal.ITIMER_REAL)[0]]


@task
def lowers_hard_limits():
    soft, hard = 300 * 2**20, resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    resource.setrlimit = refuse  # as for a user who may not raise the hard limit
    time.sleep(0.01)


@task
def uses_more_processor_time():
    limits = resource.getrlimit(resource.RLIMIT_CPU)
    latest = time.process_time() + 1.1
    while time.process_time() < latest:
        resource.setrlimit(resource.RLIMIT_CPU, (1, limits[1]))


@task
def changes_user(function: str, argument: object, seconds: float = 0.01):
    getattr(os, function)(argument)
    time.sleep(seconds)


@task
def user_now():
    return [os.getuid(), os.geteuid(), os.getgid(), os.getegid(), os.getgroups()]


def refuse(*arguments):
    raise ValueError("not allowed to raise maximum limit")


@task
def redirects():
    sys.stdout = io.StringIO()
    time.sleep(0.01)


@task
def prints():
    print("printed", flush=True)


@task
def naps():
    note("nap")
    while "go" not in os.listdir(os.environ["HERE"]):
        time.sleep(0.01)


@task
def ignores_sigterm():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def changes(project: Project) -> None:
    project.write("changes.py", CHANGES)
    project.write("fresh.py", "NAME = 'fresh'\n")
    project.env["HERE"] = str(project.path)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")


def test_later_jobs_have_the_limits_of_the_worker_and_no_alarm(project: Project) -> None:
    before = project.queue("changes.limits_now")
    project.queue("changes.lowers_limits")
    after = project.queue("changes.limits_now")
    project.work_off("--greenlets", "1")
    assert project.ended(before).result == project.ended(after).result


@pytest.mark.parametrize(
    ("way", "greenlets"),
    [
        ("call", 1),
        pytest.param("call", 2, marks=pytest.mark.campaign),
        ("in_a_thread", 1),
        pytest.param("in_a_greenlet", 1, marks=pytest.mark.campaign),
        pytest.param("in_the_pool", 1, marks=pytest.mark.campaign),
        pytest.param("when_it_has_ended", 1, marks=pytest.mark.campaign),
    ],
)
@pytest.mark.parametrize(
    "left",
    [
        "faulthandler.dump_traceback_later(1, exit=True)",
        "signal.setitimer(signal.ITIMER_PROF, 0.2)",
        pytest.param("signal.setitimer(signal.ITIMER_VIRTUAL, 0.2)", marks=pytest.mark.campaign),
    ],
)
def test_a_timer_that_a_job_has_left_ends_neither_the_worker_nor_another_job(
    project: Project, left: str, way: str, greenlets: int
) -> None:
    project.write(
        "timers.py",
        f"""
        import faulthandler, signal, threading, time
        import gevent
        from mrq_core import task

        def call(function):
            function()

        def in_a_thread(function):
            threading.Thread(target=function).start()
            time.sleep(0.1)

        def in_a_greenlet(function):
            gevent.spawn(function).join()

        def in_the_pool(function):
            gevent.get_hub().threadpool.apply(function)

        def when_it_has_ended(function):
            gevent.spawn_later(0.05, function)

        @task
        def leaves():
            {way}(lambda: {left})

        @task(at_most_once=True)
        def computes():
            end = time.monotonic() + 1.5
            while time.monotonic() < end:
                pass
        """,
    )
    left_over = project.queue("timers.leaves")
    job = project.queue("timers.computes")
    beside = project.queue("tasks.noted", {"word": "beside", "seconds": 0.3})
    project.work_off("--greenlets", str(greenlets))
    assert [project.ended(one).status for one in (left_over, job, beside)] == ["success"] * 3


def test_a_timer_that_a_module_sets_when_it_is_imported_stays(project: Project) -> None:
    project.write(
        "profiled.py",
        """
        import signal, time
        from mrq_core import task

        signal.signal(signal.SIGPROF, lambda *_: None)
        signal.setitimer(signal.ITIMER_PROF, 1000, 1000)

        @task
        def timer():
            time.sleep(0.01)
            return signal.getitimer(signal.ITIMER_PROF)[1]
        """,
    )
    jobs = [project.queue("profiled.timer") for _ in range(2)]
    project.work_off("--greenlets", "1")
    assert [project.ended(job).result for job in jobs] == [1000, 1000]


def test_limits_that_a_module_sets_when_it_is_imported_stay(project: Project) -> None:
    project.write(
        "limiting.py",
        """
        import resource, time
        from mrq_core import task

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (200, hard))

        @task
        def limit():
            time.sleep(0.01)
            return resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        """,
    )
    jobs = [project.queue("limiting.limit") for _ in range(2)]
    project.work_off("--greenlets", "1")
    assert [project.ended(job).result for job in jobs] == [200, 200]


def test_a_limit_that_a_running_job_has_lowered_is_not_kept_for_a_module_that_is_imported_then(
    project: Project,
) -> None:
    project.write("later.py", "from mrq_core import task\n\n@task\ndef nothing():\n    pass\n")
    before = project.queue("changes.limits_now")
    project.work_off()
    jobs = [project.queue("changes.lowers_limits"), project.queue("later.nothing")]
    worker = project.worker("--greenlets", "2")  # imports the second module while the first job sleeps
    assert [project.ended(job_id).status for job_id in jobs] == ["success", "success"]
    after = project.queue("changes.limits_now")
    assert project.ended(after).result == project.ended(before).result
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_worker_ends_after_a_task_has_lowered_its_memory_for_good(project: Project) -> None:
    project.queue("changes.lowers_hard_limits")
    beside = project.queue("tasks.noted", {"word": "beside", "seconds": 1000})
    worker = project.worker("--greenlets", "2", "--stop-grace", "1")
    assert worker.wait() == 0
    assert project.client.fetch(beside).status in (Status.INTERRUPT, Status.STARTED)


def test_a_worker_outlives_a_limit_of_processor_time_that_a_task_has_lowered(project: Project) -> None:
    job = project.queue("changes.uses_more_processor_time")
    project.work_off()
    assert project.ended(job).claims == 1


def test_a_limit_of_processor_time_that_a_module_sets_when_it_is_imported_ends_the_worker(
    project: Project,
) -> None:
    project.write(
        "spinning.py",
        """
        import resource
        from mrq_core import task

        resource.setrlimit(resource.RLIMIT_CPU, (1, resource.getrlimit(resource.RLIMIT_CPU)[1]))

        @task
        def spin():
            while True:
                pass
        """,
    )
    project.queue("spinning.spin")
    assert project.worker().wait() == -signal.SIGXCPU


@needs_root
@pytest.mark.parametrize(
    ("function", "argument"), [("seteuid", 1000), ("setgid", 1000), ("setgroups", [1000])]
)
@pytest.mark.parametrize("seconds", [0, 0.01])
def test_later_jobs_have_the_user_and_the_groups_of_the_worker(
    project: Project, function: str, argument: object, seconds: float
) -> None:
    before = project.queue("changes.user_now")
    worker = project.worker("--greenlets", "1")
    params = {"function": function, "argument": argument, "seconds": seconds}
    project.queue("changes.changes_user", params)
    worker.until_output("user.restored")
    after = project.queue("changes.user_now")
    assert project.ended(before).result == project.ended(after).result
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


@needs_root
def test_a_worker_ends_after_a_task_has_changed_its_user_for_good(project: Project) -> None:
    worker = project.worker("--greenlets", "2", "--stop-grace", "1")
    project.queue("changes.changes_user", {"function": "setuid", "argument": 1000, "seconds": 1000})
    assert worker.wait() == 0
    assert "the user or the groups of the process for good" in worker.output


def test_no_log_of_a_job_has_the_warnings_of_what_was_restored_when_it_ended(project: Project) -> None:
    jobs = [
        project.queue("changes.ignores_sigterm"),
        project.queue("changes.leaves_in", {"kind": "left"}),
    ]
    worker = project.worker("--burst", "--greenlets", "1")
    assert worker.wait() == 0
    for job, event in zip(jobs, ("signal.restored SIGTERM", "folder.restored"), strict=True):
        (line,) = (line for line in worker.output.splitlines() if event in line)
        assert f" - {event}" in line
        assert f"found at the end of job {job}" in line
        assert project.log_of(job) == []


@pytest.mark.parametrize("kind", ["left", "deleted"])
def test_the_next_job_runs_in_the_folder_of_the_worker(project: Project, kind: str) -> None:
    project.queue("changes.leaves_in", {"kind": kind})
    job = project.queue("changes.where")
    project.work_off()
    assert project.ended(job).result == [str(project.path), "fresh"]


def test_a_deleted_folder_is_left_at_once_though_other_jobs_run(project: Project) -> None:
    worker = project.worker("--greenlets", "2")
    beside = project.queue("changes.naps")
    until(project.ledger, what="the neighbour to start")
    project.ended(project.queue("changes.leaves_in", {"kind": "deleted"}))
    job = project.queue("changes.where")
    assert project.ended(job).result == [str(project.path), "fresh"]
    project.ended(project.queue("changes.leaves_in", {"kind": "left"}))
    worker.until_output("folder.changed")
    project.write("go", "")
    project.ended(beside)


def test_a_relative_report_file_stays_in_the_folder_of_the_worker(project: Project) -> None:
    worker = project.worker("--greenlets", "2", "--report-file", "report.json", "--report-interval", "0.1")
    beside = project.queue("changes.naps")
    until(project.ledger, what="the neighbour to start")
    project.ended(project.queue("changes.leaves_in", {"kind": "left"}))
    report = project.path / "report.json"
    before = report.stat().st_mtime_ns
    until(lambda: report.stat().st_mtime_ns > before, what="another report")
    project.write("go", "")
    project.ended(beside)
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
    assert not report.exists()


def test_later_jobs_have_the_recursion_limit_and_the_standard_streams_of_the_worker(project: Project) -> None:
    limit = project.queue("changes.limits")
    project.queue("changes.redirects")
    job = project.queue("changes.prints")
    worker = project.work_off()
    assert project.ended(limit).result == sys.getrecursionlimit()
    assert project.ended(job).status == "success"
    assert "printed" in worker.output


@pytest.mark.parametrize("kind", ["settrace", "setprofile"])
def test_a_trace_function_that_a_task_sets_for_threads_stays_out_of_those_of_the_worker(
    project: Project, kind: str
) -> None:
    project.write(
        "traced.py",
        f"""
        import threading, time
        from mrq_core import task
        from tasks import note

        def broken(*event):
            raise ValueError("traced")

        @task
        def traces():
            threading.{kind}(broken)
            note("traces")
            time.sleep(0.3)
    """,
    )
    job = project.queue("traced.traces")
    worker = project.worker("--greenlets", "2")
    until(lambda: "traces" in project.ledger(), what="the function")
    beside = project.queue("tasks.noted", {"word": "beside"})
    assert [project.ended(one).status for one in (job, beside)] == [Status.SUCCESS, Status.SUCCESS]
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 2})).result == 3
    # gevent's threads may meet the function before a call of the worker begins, and then say so themselves.
    assert " ERROR " not in worker.output


@pytest.mark.parametrize("change", ["sys.path.clear()", "sys.path = None"])
def test_later_jobs_are_imported_after_a_task_has_cleared_the_path(project: Project, change: str) -> None:
    project.write(
        "paths.py", f"import sys\nfrom mrq_core import task\n\n@task\ndef clears():\n    {change}\n"
    )
    for name in ("first", "second"):
        project.write(f"{name}.py", "from mrq_core import task\n\n@task\ndef runs():\n    return 1\n")
    project.queue("paths.clears")
    later = [project.queue(f"{name}.runs") for name in ("first", "second")]
    worker = project.work_off()
    assert [project.ended(job).result for job in later] == [1, 1], worker.output


def test_a_relative_path_of_the_database_does_not_follow_the_tasks(tmp_path: Path) -> None:
    """Native threads of a worker, and those of tasks, open the database later than the hub."""
    with open_project(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite3") as project:
        project.write("tasks.py", RELATIVE)
        (tmp_path / "other").mkdir()
        jobs = [project.queue(f"tasks.{name}") for name in ("away", "once", "native")]
        worker = project.work_off("--broker", "sqlite:///jobs.sqlite3", "--lease", "0.6", "--greenlets", "3")
        records = [project.ended(job) for job in jobs]
        assert [(one.status, one.claims) for one in records] == [(Status.SUCCESS, 1)] * 3, worker.output
        assert project.client.fetch(str(records[2].result)).path == "tasks.later"
        assert not list((tmp_path / "other").iterdir())


RELATIVE = """
import os
import time

import gevent
from mrq_core import queue_job, task

here = os.getcwd()


@task
def away():
    os.environ["HOME"] = os.path.join(here, "other")
    os.chdir("other")
    time.sleep(1.5)
    os.chdir(here)


@task(at_most_once=True)
def once():
    time.sleep(1.5)


@task
def native():
    while os.getcwd() == here:
        time.sleep(0.01)
    return gevent.get_hub().threadpool.apply(queue_job, ("tasks.later",), {"queue": "later"})
"""
