"""What a task changes for its whole process: logging, signals, the working directory, standard streams."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, open_project, until

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")

CHANGES = '''
import asyncio
import contextlib
import io
import logging
import logging.config
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings

from mrq_core import get_current_worker, log, queue_job, task
from tasks import note

HANDLED = {"version": 1, "root": {"level": "WARNING", "handlers": []}}
FILE = """
[loggers]
keys=root
[handlers]
keys=
[formatters]
keys=
[logger_root]
level=ERROR
handlers=
"""


def dict_config():
    logging.config.dictConfig(HANDLED)


def file_config():
    logging.config.fileConfig(io.StringIO(FILE))


def basic_config():
    logging.basicConfig(force=True, level=logging.ERROR, stream=io.StringIO())


def disable():
    logging.disable(logging.CRITICAL)


def shut_down():
    logging.shutdown()


def clear():
    logging.getLogger().handlers.clear()


def raise_levels():
    logging.getLogger().setLevel(logging.CRITICAL)
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.CRITICAL)
    time.sleep(0.01)


def own_levels():
    for name in list(logging.Logger.manager.loggerDict):
        if name.startswith("mrq"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    time.sleep(0.01)


def own_config():
    loggers = {"mrq": {"level": "CRITICAL"}}
    logging.config.dictConfig({"version": 1, "disable_existing_loggers": False, "loggers": loggers})
    time.sleep(0.01)


def clear_loggers():
    logging.Logger.manager.loggerDict.clear()


def handlers_none():
    logging.root.handlers = None


def handlers_tuple():
    logging.root.handlers = (*logging.root.handlers, 5)


def handlers_odd():
    logging.root.handlers.insert(0, 5)
    time.sleep(0.01)


def levels_none():
    logging.root.addHandler(logging.StreamHandler())
    for handler in logging.root.handlers:
        handler.level = None
    time.sleep(0.01)


def filters_none():
    logging.root.filters = None
    for handler in logging.root.handlers:
        handler.filters = None


def parts_of_handlers():
    for handler in logging.root.handlers:
        handler.formatter = 42
        handler.lock = handler.stream = None
    time.sleep(0.01)


def streams():
    for handler in logging.root.handlers:
        handler.stream = io.StringIO()


def short_levels():
    log.setLevel(logging.CRITICAL)


def short_levels_above():
    logging.getLogger("mrq").setLevel(logging.CRITICAL)


def short_handler_levels():
    for handler in logging.root.handlers:
        handler.setLevel(logging.CRITICAL)


def short_filters():
    for handler in logging.root.handlers:
        handler.addFilter(lambda record: False)


def short_propagation():
    logging.getLogger("mrq").propagate = False


def short_loggers():
    log.handlers = log.filters = None


def log_file():
    for number in range(3, 100):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").endswith("/worker.log"):
                os.close(number)
                time.sleep(0.01)


def other_file():
    for number in range(3, 100):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{number}").endswith("/worker.log"):
                os.dup2(os.open("other", os.O_WRONLY | os.O_CREAT), number)
                log.info("at once")


def disable_odd():
    logging.Logger.manager.disable = 99


def other_root():
    logging.root = logging.Logger.root = logging.Logger("other")
    time.sleep(0.01)


def loggers():
    for name in ("mrq", "mrq.job", "mrq.worker"):
        logger = logging.getLogger(name)
        logger.handlers = logger.filters = None
        logger.propagate = False
    time.sleep(0.01)


def methods():
    logging.Logger.handle = None
    time.sleep(0.01)


def capture():
    logging.captureWarnings(True)
    warnings.warn("captured")


@task
def configures(way: str):
    globals()[way]()


@task
def closes_client():
    get_current_worker().client.close()
    return queue_job("changes.logs", {})


@task(isolate=True)
def closes_client_alone():
    get_current_worker().client.close()
    return queue_job("changes.logs", {})


@task
def logs():
    log.info("from the logger of mrq")
    logging.getLogger(__name__).info("from a logger of the task")
    logging.info("from the root")


@task
def handles(signum: int):
    signal.signal(signum, signal.SIG_IGN)
    time.sleep(0.01)


@task
def loops(signum: int):
    async def handles():
        asyncio.get_running_loop().add_signal_handler(signum, int)
        await asyncio.sleep(0.002)
    asyncio.run(handles())


@task
def codes():
    return [subprocess.run(["sh", "-c", "exit 3"]).returncode, os.waitstatus_to_exitcode(os.system("exit 3"))]


@task
def defaults(signum: int):
    signal.signal(signum, signal.SIG_DFL)
    time.sleep(0.01)


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


@task
def switches_slowly():
    sys.setswitchinterval(1000)


@task(timeout=0.5)
def switches_slowly_and_spins():
    sys.setswitchinterval(1000)
    while True:
        pass


@task
def blocks_signals():
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGALRM, signal.SIGTERM))
    time.sleep(0.01)


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
def formats_nothing():
    logging.Formatter.format = None


@task
def handled(signum: int):
    return str(signal.getsignal(signum))


@task
def redirects():
    sys.stdout = io.StringIO()
    time.sleep(0.01)


@task
def watches(signum: int):
    import gevent
    watcher = gevent.signal_handler(signum, lambda: None)
    time.sleep(0.01)


@task
def calls_c(signum: int):
    import ctypes
    ctypes.CDLL(None).signal(signum, 1)
    time.sleep(0.01)


@task
def prints():
    print("printed", flush=True)


@task(timeout=0.5)
def spins():
    while True:
        pass


@task
def naps():
    note("nap")
    while "go" not in os.listdir(os.environ["HERE"]):
        time.sleep(0.01)
'''

WAYS = (
    "dict_config", "short_levels_above", "file_config", "basic_config", "disable", "shut_down", "clear",
    "raise_levels", "own_levels", "own_config",
    "clear_loggers", "capture", "handlers_none", "handlers_tuple", "handlers_odd", "levels_none",
    "filters_none", "parts_of_handlers", "disable_odd", "other_root", "loggers", "methods", "streams",
    "short_levels", "short_handler_levels", "short_filters", "short_propagation", "short_loggers",
)  # fmt: skip


@pytest.fixture(autouse=True)
def changes(project: Project) -> None:
    project.write("changes.py", CHANGES)
    project.write("fresh.py", "NAME = 'fresh'\n")
    project.env["HERE"] = str(project.path)


@pytest.mark.parametrize("way", WAYS)
def test_a_task_that_configures_logging_keeps_no_later_job_from_its_log(project: Project, way: str) -> None:
    project.queue("changes.logs")  # loggers that exist already
    project.queue("changes.configures", {"way": way})
    job = project.queue("changes.logs")
    failing = project.queue("tasks.fail")
    worker = project.work_off()
    project.ended(job)
    assert project.log_of(job) == [
        "from the logger of mrq",
        "from a logger of the task",
        "from the root",
    ]
    assert f"job.failed id={failing}" in worker.output
    assert "worker.stopped" in worker.output


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_lines_go_to_the_log_file_after_a_task_has_closed_its_descriptor(project: Project) -> None:
    project.queue("changes.configures", {"way": "log_file"})
    project.queue("changes.logs")
    worker = project.work_off("--log-file", "worker.log")
    lines = (project.path / "worker.log").read_text()
    assert "from the logger of mrq" in lines
    assert "worker.stopped" in lines
    assert "Bad file descriptor" not in worker.output


def test_no_line_goes_to_another_file_that_has_the_descriptor_of_the_log_file(project: Project) -> None:
    project.queue("changes.configures", {"way": "other_file"})
    project.queue("changes.logs")
    project.work_off("--log-file", "worker.log")
    assert (project.path / "other").read_text() == ""
    assert "at once" in (project.path / "worker.log").read_text()


@pytest.mark.parametrize("task", ["closes_client", "closes_client_alone"])
def test_the_client_of_a_worker_stays_open_after_a_task_has_closed_it(project: Project, task: str) -> None:
    job = project.queue(f"changes.{task}")
    worker = project.work_off()
    record = project.ended(job)
    assert record.status == Status.SUCCESS
    assert project.ended(str(record.result)).status == Status.SUCCESS
    assert "client.kept_open" in worker.output
    assert "broker.away" not in worker.output


def test_a_task_that_goes_on_after_it_has_configured_logging_leaves_the_logs_of_its_neighbours(
    project: Project,
) -> None:
    project.write(
        "going_on.py",
        """
        import changes, os, time
        from mrq_core import log, task
        from tasks import note

        @task
        def configures():
            changes.dict_config()
            changes.disable()
            note("configured")
            while "go" not in os.listdir("."):
                time.sleep(0.01)

        @task
        def talks():
            while "go" not in os.listdir("."):
                log.info("here")
                time.sleep(0.05)
    """,
    )
    project.queue("going_on.configures")
    worker = project.worker("--greenlets", "2")
    until(project.ledger, what="the task to configure logging")
    talking = project.queue("going_on.talks")
    until(lambda: project.log_of(talking), what="a line of the neighbour")
    project.write("go", "")
    project.ended(talking)
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


@pytest.mark.parametrize("task", ["handles", "watches", "calls_c"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_the_worker_after_a_task_has_replaced_its_handler(
    project: Project, signum: signal.Signals, task: str
) -> None:
    worker = project.worker()
    project.ended(project.queue(f"changes.{task}", {"signum": int(signum)}))
    worker.send(signum)
    assert worker.wait() == 0


def test_a_timeout_ends_code_that_keeps_the_processor_after_a_task_has_taken_its_signal(
    project: Project,
) -> None:
    project.queue("changes.handles", {"signum": int(signal.SIGALRM)})
    job = project.queue("changes.spins")
    project.work_off()
    assert project.ended(job).status == "timeout"


@pytest.mark.parametrize("path", ["switches_slowly", "blocks_signals"])
def test_a_timeout_ends_code_that_keeps_the_processor_after_a_task_has_kept_threads_from_running(
    project: Project, path: str
) -> None:
    project.queue(f"changes.{path}")
    job = project.queue("changes.spins")
    project.work_off()
    assert project.ended(job).status == "timeout"


def test_a_timeout_ends_code_that_has_kept_threads_from_running(project: Project) -> None:
    job = project.queue("changes.switches_slowly_and_spins")
    project.work_off()
    assert project.ended(job).status == "timeout"


@pytest.mark.parametrize("signum", [signal.SIGPIPE, signal.SIGXFSZ])
def test_signals_that_python_ignores_are_ignored_after_a_task_has_replaced_their_handlers(
    project: Project, signum: signal.Signals
) -> None:
    before = project.queue("changes.handled", {"signum": int(signum)})
    project.queue("changes.defaults", {"signum": int(signum)})
    after = project.queue("changes.handled", {"signum": int(signum)})
    project.work_off()
    assert project.ended(before).result == project.ended(after).result == "1"


@pytest.mark.parametrize("task", ["loops", "handles", "defaults"])
def test_the_log_file_is_opened_again_after_a_task_has_replaced_the_handler_of_its_signal(
    project: Project, task: str
) -> None:
    file, moved = project.path / "log", project.path / "log.1"
    worker = project.start("worker", "--log-file", str(file), "--max-latency", "0.05")
    project.queue(f"changes.{task}", {"signum": int(signal.SIGUSR1)})
    until(lambda: file.exists() and "signal.restored SIGUSR1" in file.read_text(), what="the handler")
    file.rename(moved)
    worker.send(signal.SIGUSR1)
    until(file.exists, what="the new file")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


@pytest.mark.parametrize("is_early", [False, True])
def test_programs_of_later_jobs_have_exit_codes_after_children_were_ignored(
    project: Project, is_early: bool
) -> None:
    if is_early:
        earlier = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        try:
            worker = project.start("worker", "--max-jobs", "1")
        finally:
            signal.signal(signal.SIGCHLD, earlier)
    else:
        ignoring = project.queue("changes.handles", {"signum": int(signal.SIGCHLD)})
        worker = project.worker("--max-jobs", "2")
        project.ended(ignoring)
        worker.until_output("signal.restored SIGCHLD")
    job = project.queue("changes.codes")
    assert project.ended(job).result == [3, 3]
    assert worker.wait() == 0


def test_later_jobs_have_the_limits_of_the_worker_and_no_alarm(project: Project) -> None:
    before = project.queue("changes.limits_now")
    project.queue("changes.lowers_limits")
    after = project.queue("changes.limits_now")
    project.work_off("--greenlets", "1")
    assert project.ended(before).result == project.ended(after).result


def test_levels_of_the_loggers_of_mrq_that_a_module_sets_when_it_is_imported_stay(project: Project) -> None:
    project.write(
        "leveling.py",
        """
        import logging, time
        from mrq_core import log, task

        log.setLevel(logging.WARNING)

        @task
        def talk():
            log.info("left out")
            log.warning("here")
            time.sleep(0.01)
        """,
    )
    jobs = [project.queue("leveling.talk") for _ in range(2)]
    project.work_off("--greenlets", "1")
    for job in jobs:
        project.ended(job)
        assert project.log_of(job) == ["here"]


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


def test_jobs_have_their_outcomes_after_a_task_has_broken_all_formatters(project: Project) -> None:
    project.queue("changes.formats_nothing")
    jobs = [project.queue("changes.logs"), project.queue("tasks.fail")]
    project.work_off()
    assert [project.ended(job).exception_type for job in jobs] == [None, "ValueError"]


def test_no_log_of_a_job_has_the_warnings_of_what_was_restored_when_it_ended(project: Project) -> None:
    jobs = [
        project.queue("changes.handles", {"signum": int(signal.SIGTERM)}),
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
    project.queue("changes.limits")
    project.queue("changes.redirects")
    job = project.queue("changes.prints")
    worker = project.work_off()
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


BREAKS = [
    "close()",
    "detach()",
    "buffer.close()",
    "buffer.detach()",
    "reconfigure(encoding='ascii'); time.sleep(0.01)",
]


@pytest.mark.parametrize("greenlets", [1, 3])
def test_later_jobs_print_after_a_task_has_broken_the_standard_streams(
    project: Project, greenlets: int
) -> None:
    functions = [
        f"@task\ndef breaks_{number}():\n    sys.stdout.{call}; sys.stderr.{call}\n"
        for number, call in enumerate(BREAKS)
    ]
    project.write(
        "streams.py",
        "import sys, time\nfrom mrq_core import task\n\n"
        "@task\ndef prints(word):\n"
        "    print(word + '\\u20ac', flush=True)\n    print(word, file=sys.stderr)\n\n"
        "@task\ndef waits():\n    time.sleep(60)\n\n" + "\n\n".join(functions),
    )
    beside = [project.queue("streams.waits") for _ in range(greenlets - 1)]
    worker = project.worker("--greenlets", str(greenlets))
    calls = BREAKS[:-1] if beside else BREAKS  # another job may need the encoding
    for number in range(len(calls)):
        broken = project.ended(project.queue(f"streams.breaks_{number}"))
        job = project.ended(project.queue("streams.prints", {"word": f"word{number}"}))
        assert (broken.status, job.status) == (Status.SUCCESS, Status.SUCCESS), job.traceback
        until(lambda: worker.output.count(f"word{number}") == 2, what="what the job has printed")  # noqa: B023
    worker.send(signal.SIGTERM)
    worker.wait()
    assert "worker.stopped" in worker.output


def test_jobs_print_after_others_have_left_a_closed_stream_as_the_standard_one(project: Project) -> None:
    """Two overlapping `redirect_stdout` leave the stream of the first one, which is closed."""
    project.write(
        "capturing.py",
        """
        import contextlib, io, os, time
        from mrq_core import task
        from tasks import note

        def wait_for(name):
            while name not in os.listdir("."):
                time.sleep(0.01)

        @task
        def captures(go):
            with io.StringIO() as out, contextlib.redirect_stdout(out):
                note(go)
                wait_for(go)
                return out.getvalue()

        @task
        def waits():
            wait_for("never")

        @task
        def prints():
            print("printed", flush=True)
    """,
    )
    project.queue("capturing.waits")
    worker = project.worker("--greenlets", "4")
    first = project.queue("capturing.captures", {"go": "one"})
    until(lambda: project.ledger() == ["one"], what="the first stream")
    second = project.queue("capturing.captures", {"go": "two"})
    until(lambda: project.ledger() == ["one", "two"], what="the second stream")
    for name, job in (("one", first), ("two", second)):
        project.write(name, "")
        assert project.ended(job).status == Status.SUCCESS
    assert project.ended(project.queue("capturing.prints")).status == Status.SUCCESS
    until(lambda: "printed" in worker.output, what="what the job prints")


def test_lines_that_a_handler_has_kept_are_stored_with_no_other_job(project: Project) -> None:
    project.write(
        "keeping.py",
        """
        import logging
        from logging.handlers import MemoryHandler
        from mrq_core import log, task

        @task
        def keeps():
            logging.getLogger().addHandler(MemoryHandler(1000, target=logging.getLogger().handlers[1]))
            log.info("kept")

        @task
        def says(word, level):
            log.log(level, word)
    """,
    )
    others = [
        project.queue("keeping.keeps"),
        project.queue("keeping.says", {"word": "other", "level": 20}),
    ]
    job = project.queue("keeping.says", {"word": "own", "level": 40})
    project.work_off("--greenlets", "1")
    assert [project.log_of(one) for one in others] == [["kept"], ["other"]]
    assert {*project.log_of(job)} == {"own"}


CLOSES = """
import os
import socket

from mrq_core import log, task
from tasks import note

taken = []


@task
def closes(connects: bool):
    os.closerange(0, 3)
    if connects:
        taken.extend(socket.socketpair() + socket.socketpair())
        note([one.fileno() for one in taken][:3] == [0, 1, 2])


@task
def talks(word: str):
    log.info("log of %s", word)
    print("print of", word, flush=True)
"""


@pytest.mark.parametrize("connects", [True, False])
def test_a_task_that_closes_the_standard_descriptors_takes_no_lines_of_the_worker(
    project: Project, connects: bool
) -> None:
    project.write("closes.py", CLOSES)
    worker = project.worker()
    for word in ("one", "two"):
        project.ended(project.queue("closes.closes", {"connects": connects}))
        job = project.ended(project.queue("closes.talks", {"word": word}))
        assert (job.status, job.claims) == ("success", 1)
        worker.until_output(f"log of {word}")
        worker.until_output(f"print of {word}")
    assert ("True" in project.ledger()) == connects
    assert all(f"descriptor.restored number={number}" in worker.output for number in (1, 2))


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
