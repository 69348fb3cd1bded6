"""Solo jobs: a process for one job, what works in it, and how it ends."""

from __future__ import annotations

import signal
import time

import psutil
import pytest

from mrq_core.contract.record import JobRecord, Status
from tests.support import Project, until

SOLO = """
import ctypes, os, signal, subprocess, sys, threading, time
import psutil
from mrq_core import (
    Task, abort_current_job, get_current_config, get_current_job, get_current_worker, log, queue_job,
    retry_current_job, set_current_job_progress, spawn, subpool_map, task,
)
from tasks import note


@task(isolate=True)
def everything(text: str):
    log.info("it runs, %s", text)
    set_current_job_progress(0.25)
    greenlet = spawn(lambda: get_current_job().id)
    greenlet.join()
    return {
        "pid": os.getpid(),
        "job": get_current_job().id,
        "greenlet": greenlet.value,
        "pool": subpool_map(2, lambda n: n * 2, [1, 2]),
        "worker": get_current_worker().name,
        "setting": get_current_config()["OWN_NAME"],
        "flag": get_current_config()["GREENLETS"],
        "queued": queue_job("tasks.Add", {"a": 1, "b": 2}, queue="later"),
        "folder": os.getcwd(),
    }


@task(isolate=True)
def slow_progress():
    set_current_job_progress(0.5)
    note("half")
    time.sleep(1000)


@task(isolate=True)
def die(how: str):
    log.warning("it dies now")
    if how == "signal":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "program":
        os.execvp("sleep", ["sleep", "1000"])
    os._exit(7)


@task(isolate=True, at_most_once=True)
def die_once():
    note("once")
    os.kill(os.getpid(), signal.SIGKILL)


@task
def die_in_the_worker():
    note(f"under-{psutil.Process(os.getppid()).ppid()}")
    os.kill(os.getpid(), signal.SIGKILL)


@task(isolate=True, timeout=1)
def hold_the_gil():
    note(time.time())
    ctypes.PyDLL(None).sleep(1000)


@task(isolate=True, timeout=1)
def spin():
    while True:
        pass


@task(isolate=True, timeout=0.5)
def deaf():
    while True:
        try:
            time.sleep(0.05)
        except BaseException:
            pass


@task(memory="150MB")
def eat():
    taken = []
    while True:
        taken.append(bytearray(2_000_000))
        time.sleep(0.01)


@task(memory="150MB")
def feed_a_child():
    code = "import time; taken = bytearray(300_000_000); time.sleep(1000)"
    subprocess.run([sys.executable, "-c", code])


@task(memory="150MB")
def eat_at_once():
    return len(bytearray(3_000_000_000))


@task(isolate=True)
def nap(word: str, seconds: float):
    note(f"{os.getpid()}")
    time.sleep(seconds)
    note(f"end-{word}")


@task(isolate=True)
def fork():
    if os.fork() == 0:
        log.info("from the child")
        os._exit(0)
    os.wait()
    log.info("from the parent")
    return "parent"


@task(isolate=True, retry_delay=0.05)
def flaky():
    if get_current_job().record.retry_count == 0:
        retry_current_job()
    return "again"


@task(isolate=True)
def fail():
    raise ValueError("it does not work")


@task(isolate=True)
def stop_the_worker():
    get_current_worker().stop("the task says so")


@task(isolate=True)
def unstorable():
    return object()


@task
def take_the_children(how: str):
    if how == "signal":
        signal.signal(signal.SIGCHLD, lambda *_: None)
    elif how == "ignore":
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    else:
        import gevent.monkey
        waitpid = gevent.monkey.get_original("os", "waitpid")
        note("waiting")
        while True:
            try:
                if waitpid(-1, os.WNOHANG)[0]:
                    return
            except ChildProcessError:
                pass
            time.sleep(0.0001)


@task(isolate=True)
def echo(text: str):
    for _ in range(200):
        log.info("%s", text[:1000])
    return text


@task(isolate=True)
def leave_a_child():
    note(subprocess.Popen(["sleep", "1000"]).pid)


@task(isolate=True)
def lose_the_link():
    os.closerange(3, 100)
    time.sleep(0.3)
"""


@pytest.fixture
def solo(project: Project) -> Project:
    project.write("solo.py", SOLO)
    return project


def test_a_solo_job_has_all_that_another_job_has(solo: Project) -> None:
    solo.write("mrq-config.py", "OWN_NAME = 'ours'\n")
    job = solo.queue("solo.everything", {"text": "thät\u2026"})
    worker = solo.work_off("--greenlets", "3")
    record = solo.ended(job)
    assert record.status is Status.SUCCESS, record.traceback
    result = record.result
    assert isinstance(result, dict)
    assert result.pop("pid") != worker.pid
    queued = result.pop("queued")
    assert isinstance(queued, str)
    assert solo.client.fetch(queued).queue == "later"
    assert result == {
        "job": job, "greenlet": job, "pool": [2, 4], "worker": record.worker, "setting": "ours", "flag": 3,
        "folder": str(solo.path),
    }  # fmt: skip
    assert solo.log_of(job) == ["it runs, thät\u2026"]
    assert record.progress == 1.0


def test_the_progress_of_a_solo_job_is_stored_while_it_runs(solo: Project) -> None:
    job = solo.queue("solo.slow_progress")
    solo.worker()
    until(lambda: solo.client.fetch(job).progress == 0.5, what="the progress to be stored")


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("signal", "was killed by SIGKILL (signal 9)"),
        ("exit", "exited with code 7"),
        (
            "program",
            "was killed by the worker, because its code closed the connection to the worker, or replaced",
        ),
    ],
)
def test_a_solo_job_that_dies_fails_after_two_deaths_with_the_reason(
    solo: Project, how: str, text: str
) -> None:
    job = solo.queue("solo.die", {"how": how})
    solo.work_off()
    record = solo.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.ProcessDied")
    assert (record.claims, record.lost_claims, record.solo_deaths) == (2, 2, 2)
    first, second = record.attempts
    assert (first.lost, first.exception_type) == (True, "mrq_core.errors.ProcessDied")
    for attempt in (first, second):
        assert text in (attempt.traceback or "")
        assert "peak memory was" in (attempt.traceback or "")
        assert "peak memory was 0 MB" not in (attempt.traceback or "")
    logged = [(line.attempt, line.message) for line in solo.client.broker.read_logs(job).lines]
    for number in (1, 2):
        messages = [message for attempt, message in logged if attempt == number]
        assert messages[0] == "it dies now"
        assert text in messages[1]
    assert text in solo.mrq("jobs", "show", job)


def test_an_at_most_once_solo_job_that_dies_never_runs_again(solo: Project) -> None:
    job = solo.queue("solo.die_once")
    solo.work_off()
    record = solo.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.ClaimLost")
    assert "SIGKILL" in (record.traceback or "")
    assert solo.ledger() == ["once"]


def test_a_job_that_killed_two_workers_runs_solo_from_then_on(solo: Project) -> None:
    job = solo.queue("solo.die_in_the_worker")
    for _ in range(2):
        worker = solo.worker("--lease", "0.6")
        assert worker.wait() == -signal.SIGKILL
    survivor = solo.worker("--lease", "0.6")
    record = solo.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.ProcessDied")
    assert (record.claims, record.lost_claims, record.solo_deaths) == (4, 4, 2)
    assert "SIGKILL" in (record.traceback or "")
    assert solo.ledger()[2:] == [f"under-{survivor.pid}"] * 2
    neighbour = solo.queue("tasks.Add", {"a": 1, "b": 2})
    assert solo.ended(neighbour).result == 3


def test_c_code_that_holds_the_gil_past_its_timeout_ends_within_a_second(solo: Project) -> None:
    job = solo.queue("solo.hold_the_gil")
    solo.worker()
    record = solo.ended(job)
    ended = time.time()
    [line] = solo.ledger()
    assert record.status is Status.TIMEOUT
    assert record.exception_type == "mrq_core.errors.TimeoutInterrupt"
    assert (record.lost_claims, record.claims) == (0, 1)
    assert ended - float(line) < 1 + 1 + 0.5  # the timeout, the second, and the polls of this test


@pytest.mark.parametrize("task", ["spin", "deaf"])
def test_a_solo_job_is_interrupted_when_its_time_is_over(solo: Project, task: str) -> None:
    job = solo.queue(f"solo.{task}")
    neighbour = solo.queue("tasks.noted", {"word": "neighbour", "seconds": 0.1})
    solo.work_off("--greenlets", "2")
    record = solo.ended(job)
    assert (record.status, record.lost_claims) == (Status.TIMEOUT, 0)
    assert solo.ended(neighbour).status is Status.SUCCESS


@pytest.mark.parametrize("task", ["eat", "feed_a_child"])
def test_a_job_that_uses_more_than_its_memory_is_killed(solo: Project, task: str) -> None:
    job = solo.queue(f"solo.{task}")
    solo.work_off()
    record = solo.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.MemoryLimitExceeded")
    assert "more than its memory of 150 MB" in (record.traceback or "")
    assert (record.claims, record.lost_claims) == (1, 0)


def test_an_allocation_far_beyond_the_memory_fails_in_the_task(solo: Project) -> None:
    job = solo.queue("solo.eat_at_once")
    solo.work_off()
    assert solo.ended(job).exception_type == "MemoryError"


def test_a_solo_job_is_cancelled(solo: Project) -> None:
    job = solo.queue("solo.nap", {"word": "job", "seconds": 1000})
    solo.worker()
    until(solo.ledger, what="the job to start")
    solo.mrq("jobs", "cancel", job, "--interrupt", "--yes")
    record = solo.ended(job)
    assert (record.status, record.claims) == (Status.CANCEL, 1)
    _gone(_pid_in(solo))


def test_a_solo_job_is_interrupted_by_a_stop_and_runs_again(solo: Project) -> None:
    job = solo.queue("solo.nap", {"word": "job", "seconds": 1000})
    worker = solo.worker("--stop-grace", "0") if _has_stop_grace(solo) else solo.worker()
    until(solo.ledger, what="the job to start")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    record = solo.client.fetch(job)
    assert (record.status, record.lost_claims) == (Status.INTERRUPT, 0)
    _gone(_pid_in(solo))


def test_solo_jobs_that_wait_for_a_process_are_given_back_by_a_stop(solo: Project) -> None:
    jobs = [solo.queue("solo.nap", {"word": f"w{n}", "seconds": 0.5}) for n in range(3)]
    worker = solo.worker("--greenlets", "3", "--solo-processes", "1")
    until(solo.ledger, what="a job to start")
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
    records = [solo.client.fetch(job) for job in jobs]
    assert sorted(record.status for record in records) == [Status.QUEUED, Status.QUEUED, Status.SUCCESS]
    waiting = [record for record in records if record.status is Status.QUEUED]
    assert all((record.lost_claims, record.retry_count) == (0, 0) for record in waiting)


def test_the_timeout_of_a_solo_job_starts_with_its_process(solo: Project) -> None:
    solo.write("mrq-config.py", "TASKS = {'solo.nap': {'timeout': 1.5}}\n")
    jobs = [solo.queue("solo.nap", {"word": f"w{n}", "seconds": 0.7}) for n in range(3)]
    solo.work_off("--greenlets", "3", "--solo-processes", "1")
    assert [solo.ended(job).status for job in jobs] == [Status.SUCCESS] * 3


def test_no_solo_process_outlives_its_worker(solo: Project) -> None:
    solo.queue("solo.nap", {"word": "job", "seconds": 1000})
    worker = solo.worker()
    until(solo.ledger, what="the job to start")
    worker.send(signal.SIGKILL)
    worker.wait()
    _gone(_pid_in(solo))


def test_a_forked_child_of_a_solo_job_says_nothing_to_the_worker(solo: Project) -> None:
    job = solo.queue("solo.fork")
    solo.work_off()
    record = solo.ended(job)
    assert (record.status, record.result) == (Status.SUCCESS, "parent")
    assert solo.log_of(job) == ["from the parent"]


@pytest.mark.parametrize(
    ("task", "status", "error"),
    [
        ("flaky", Status.SUCCESS, None),
        ("fail", Status.FAILED, "ValueError"),
        ("unstorable", Status.FAILED, "mrq_core.errors.InvalidValue"),
        ("nothing", Status.FAILED, "mrq_core.errors.TaskNotFound"),
        ("lose_the_link", Status.FAILED, "mrq_core.errors.ProcessDied"),
    ],
)
def test_a_solo_job_ends_as_another_job_does(
    solo: Project, task: str, status: Status, error: str | None
) -> None:
    job = solo.queue(f"solo.{task}")
    solo.worker()
    record: JobRecord = solo.ended(job)
    assert (record.status, record.exception_type) == (status, error), record.traceback


@pytest.mark.parametrize("how", ["signal", "ignore", "wait"])
def test_a_death_is_noticed_though_a_task_takes_the_signals_of_children(solo: Project, how: str) -> None:
    solo.queue("solo.take_the_children", {"how": how})
    job = solo.queue("solo.die", {"how": "exit"}, priority=-1)
    other = solo.queue("solo.everything", {"text": ""}, priority=-2)
    solo.write("mrq-config.py", "OWN_NAME = 'ours'\n")
    solo.worker("--greenlets", "2")
    record = solo.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.ProcessDied")
    assert solo.ended(other).status is Status.SUCCESS


@pytest.mark.parametrize("change", ["broken", "changed", "removed"])
def test_a_solo_job_has_the_config_of_its_worker_whatever_has_become_of_the_file(
    solo: Project, change: str
) -> None:
    solo.write("mrq-config.py", "OWN_NAME = 'ours'\n")
    solo.worker()
    if change == "removed":
        (solo.path / "mrq-config.py").unlink()
    else:
        solo.write("mrq-config.py", "OWN_NAME = 'theirs'\n" if change == "changed" else "(")
    record = solo.ended(solo.queue("solo.everything", {"text": ""}))
    assert record.status is Status.SUCCESS, record.traceback
    assert isinstance(record.result, dict)
    assert record.result["setting"] == "ours"


def test_a_config_file_that_raises_in_the_process_of_a_solo_job_fails_the_job_and_says_why(
    solo: Project,
) -> None:
    solo.write(
        "mrq-config.py",
        "import os\nOWN_NAME = 'ours'\nif os.path.exists('full'):\n    raise OSError('no such disk')\n",
    )
    solo.worker()
    solo.write("full", "")
    record = solo.ended(solo.queue("solo.fail"))
    assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.ConfigError")
    assert "mrq-config.py failed, line 4: OSError: no such disk" in (record.traceback or "")
    assert (record.claims, record.lost_claims) == (1, 0)
    (solo.path / "full").unlink()
    assert solo.ended(solo.queue("solo.everything", {"text": ""})).status is Status.SUCCESS


def test_large_params_results_and_logs_pass_to_and_from_a_process(solo: Project) -> None:
    text = "ä" * 400_000
    job = solo.queue("solo.echo", {"text": text})
    solo.work_off()
    record = solo.ended(job)
    assert record.status is Status.SUCCESS, record.traceback
    assert record.result == text
    assert solo.log_of(job) == ["ä" * 1000] * 200


def test_a_solo_job_can_stop_its_worker(solo: Project) -> None:
    job = solo.queue("solo.stop_the_worker")
    worker = solo.worker()
    assert worker.wait() == 0
    assert solo.client.fetch(job).status is Status.SUCCESS


@pytest.mark.parametrize("memory", ["much", "-1MB", "10", 12, "1EB"])
def test_a_memory_that_is_no_size_is_refused(solo: Project, memory: object) -> None:
    solo.write("mrq-config.py", f"TASKS = {{'solo.nap': {{'memory': {memory!r}}}}}\n")
    refused = solo.start("worker", "--burst")
    assert refused.wait() == 2
    assert "memory is" in refused.output
    assert "'512MB'" in refused.output


def _has_stop_grace(project: Project) -> bool:
    return "--stop-grace" in project.mrq("worker", "--help")


def _pid_in(project: Project) -> int:
    return int(project.ledger()[0])


def _gone(pid: int) -> None:
    until(lambda: not psutil.pid_exists(pid), what="the solo process to be gone")


def test_a_killed_fork_server_costs_its_running_jobs_a_claim_and_is_replaced(solo: Project) -> None:
    solo.write("mrq-config.py", "OWN_NAME = 'ours'\n")
    job = solo.queue("solo.nap", {"word": "job", "seconds": 1.0})
    worker = solo.worker("--greenlets", "2")
    until(solo.ledger, what="the job to start")
    [server] = psutil.Process(worker.pid).children()
    assert server.pid == psutil.Process(_pid_in(solo)).ppid()
    server.kill()
    record = solo.ended(job)
    assert record.status is Status.SUCCESS
    assert [attempt.lost for attempt in record.attempts] == [True, False]
    assert (record.lost_claims, record.solo_deaths) == (0, 0)
    assert solo.ended(solo.queue("solo.everything", {"text": ""})).status is Status.SUCCESS
    [other] = psutil.Process(worker.pid).children()
    worker.send(signal.SIGKILL)
    worker.wait()
    _gone(other.pid)


def test_what_a_solo_job_leaves_in_its_group_ends_with_it(solo: Project) -> None:
    job = solo.queue("solo.leave_a_child")
    solo.worker()
    assert solo.ended(job).status is Status.SUCCESS
    [child] = solo.ledger()
    _gone(int(child))


def test_a_solo_job_that_leaves_no_room_for_threads_ends_without_a_traceback(solo: Project) -> None:
    solo.write(
        "stacks.py",
        """
        import threading
        from mrq_core import task

        @task(isolate=True)
        def isolated():
            threading.stack_size(1 << 40)
            return 1

        @task
        def beside():
            threading.stack_size(1 << 40)
            return 2
    """,
    )
    jobs = [solo.queue("stacks.isolated"), solo.queue("stacks.beside"), solo.queue("stacks.isolated")]
    worker = solo.work_off()
    assert [solo.ended(job).result for job in jobs] == [1, 2, 1]
    assert "Traceback" not in worker.output
    assert "new thread" not in worker.output


def test_a_default_that_a_flag_gives_holds_in_the_process_of_a_solo_job(solo: Project) -> None:
    solo.write("mrq-config.py", "OWN_NAME = 'own'\nGREENLETS = 7\n")
    job = solo.queue("solo.everything", {"text": "x"})
    solo.env["MRQ_GREENLETS"] = "9"
    solo.work_off("--greenlets", "1", "default")
    record = solo.ended(job)
    assert isinstance(record.result, dict)
    assert record.result["flag"] == 1


def test_a_cancel_ends_isolated_jobs_that_wait_for_a_process_and_those_whose_process_starts(
    solo: Project,
) -> None:
    jobs = [solo.queue("solo.slow_progress") for _ in range(8)]
    solo.worker("--greenlets", "8", "--solo-processes", "2")
    until(
        lambda: all(solo.client.fetch(job).status is Status.STARTED for job in jobs),
        what="all jobs to be claimed",
    )
    for job in jobs:
        solo.job(job).cancel(interrupt=True)
    assert [solo.ended(job).status for job in jobs] == [Status.CANCEL] * 8


def test_jobs_that_delete_their_standard_streams_leave_no_traceback_when_their_processes_end(
    project: Project,
) -> None:
    project.write(
        "deleting.py",
        """
        import sys
        from mrq_core import task

        @task(isolate=True)
        def output():
            del sys.stdout

        @task(isolate=True)
        def errors():
            del sys.stderr

        @task(isolate=True)
        def both():
            sys.stdout = sys.stderr = None
        """,
    )
    jobs = [project.queue(f"deleting.{name}") for name in ("output", "errors", "both")]
    worker = project.work_off("--quiet")
    assert [project.ended(job).status for job in jobs] == ["success"] * 3
    assert "Traceback" not in worker.output
