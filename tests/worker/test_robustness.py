"""Jobs, signals and plugins at their worst: nothing of it stops the worker or runs a job twice."""

from __future__ import annotations

import signal
import sqlite3
import time

import pytest

from mrq_core.contract.record import Status
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.support import LOAD, PATIENCE, Project, until

WORST = """
import multiprocessing
import os
import time
import gevent
from tasks import note
from mrq_core import get_current_job, queue_job, retry_current_job, subpool_map, task


@task
def bad_retry(what: str):
    retry_current_job(**{"max_retries": {"max_retries": "5"}, "queue": {"queue": "x" * 201},
                         "delay": {"delay": 1e12}, "type": {"delay": "soon"}}[what])


@task
def leaves_timeout():
    gevent.Timeout(0.05).start()


@task
def leaves_timeout_for_others():
    gevent.Timeout(0.3).start()


@task
def leaves_a_waiting_timeout():
    time.sleep(0)
    gevent.Timeout(0.3).start()


@task
def kills_itself_later():
    gevent.getcurrent().kill(block=False)


@task
def forks():
    note("forks")
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(0.5,))
    child.start()
    child.join()
    return child.exitcode


@task(timeout=60)
def forks_and_terminates():
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,))
    child.start()
    child.terminate()
    child.join()
    return child.exitcode


@task
def pools():
    note("pooling")
    subpool_map(8, lambda n: queue_job("tasks.Add", {"a": n, "b": 1}, queue="elsewhere"), range(1_000_000))


@task
def swallows_one():
    note("swallowing")
    try:
        time.sleep(1000)
    except BaseException:
        pass
    time.sleep(1000)


@task(at_most_once=True)
def once():
    note("once")
    time.sleep(1000)
"""


@pytest.fixture(autouse=True)
def worst(project: Project) -> None:
    project.write("worst.py", WORST)


@pytest.mark.parametrize("what", ["max_retries", "queue", "delay", "type"])
def test_a_retry_that_makes_no_sense_fails_the_job_only(project: Project, what: str) -> None:
    job = project.queue("worst.bad_retry", {"what": what})
    after = project.queue("tasks.Add", {"a": 1, "b": 1})
    project.work_off()
    record = project.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.InvalidValue")
    assert project.ended(after).result == 2


def test_a_module_that_raises_at_a_name_fails_the_job_only(project: Project) -> None:
    project.write("odd.py", "def __getattr__(name):\n    raise RuntimeError('no ' + name)\n")
    job = project.queue("odd.Thing")
    after = project.queue("tasks.Add", {"a": 1, "b": 1})
    project.work_off()
    record = project.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.TaskImportFailed")
    assert "RuntimeError: no Thing" in (record.traceback or "")
    assert project.ended(after).result == 2


def test_a_log_handler_that_raises_keeps_no_job_from_its_outcome(project: Project) -> None:
    project.write(
        "handlers.py",
        """
        import logging
        from mrq_core import task

        class Raises(logging.Handler):
            def emit(self, record):
                if "ValueError" in record.getMessage():
                    raise RuntimeError("no log today")

        @task
        def fails():
            if not any(isinstance(handler, Raises) for handler in logging.root.handlers):
                logging.root.addHandler(Raises())
            raise ValueError("it does not work")
        """,
    )
    jobs = [project.queue("handlers.fails") for _ in range(3)]
    project.work_off()
    assert [project.ended(job).exception_type for job in jobs] == ["ValueError"] * 3


@pytest.mark.parametrize("path", ["worst.leaves_timeout", "worst.kills_itself_later"])
def test_what_a_job_leaves_behind_does_not_stop_the_worker(project: Project, path: str) -> None:
    job = project.queue(path)
    worker = project.worker()
    assert project.ended(job).is_ended
    for n in range(3):
        # One at a time: each waits for a greenlet that may have been disturbed.
        assert project.ended(project.queue("tasks.noted", {"word": f"w{n}", "seconds": 0.05})).claims == 1
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


@pytest.mark.parametrize(
    "path", ["leaves_timeout_for_others", "leaves_a_waiting_timeout", "kills_itself_later"]
)
def test_what_a_job_leaves_in_the_loop_reaches_no_other_job(project: Project, path: str) -> None:
    for _ in range(3):
        project.queue(f"worst.{path}")
    jobs = [project.queue("tasks.noted", {"word": f"w{n}", "seconds": 0.6}) for n in range(3)]
    project.work_off("--greenlets", "3")
    assert [project.ended(job).status for job in jobs] == ["success"] * 3


def test_a_process_that_a_task_forks_runs_no_jobs(project: Project) -> None:
    forking = [project.queue("worst.forks") for _ in range(2)]
    beside = [project.queue("tasks.noted", {"word": f"b{n}", "seconds": 0.3}) for n in range(4)]
    project.work_off("--greenlets", "3")
    assert [project.ended(job).result for job in forking] == [0, 0]
    assert [project.ended(job).claims for job in beside] == [1] * 4
    assert sorted(project.ledger()) == sorted(
        ["forks"] * 2 + [f"{edge}-b{n}" for n in range(4) for edge in ("start", "end")]
    )


def test_a_process_that_a_task_forks_can_be_terminated(project: Project) -> None:
    job = project.queue("worst.forks_and_terminates")
    project.work_off()
    assert project.ended(job).result == -signal.SIGTERM


def test_cancelling_while_the_task_is_imported_ends_the_job_and_not_the_worker(project: Project) -> None:
    project.write("slow_import.py", "import time, tasks\ntasks.note('importing')\nwhile 'go' not in "
                  "tasks.os.listdir():\n    time.sleep(0.01)\nfrom mrq_core import task\n@task\ndef go():\n"
                  "    time.sleep(1000)\n")  # fmt: skip
    job = project.queue("slow_import.go")
    beside = project.queue("tasks.noted", {"word": "beside", "seconds": 1000})
    worker = project.worker("--greenlets", "2", "--paused-queues-refresh-interval", "0.05")
    until(lambda: len(project.ledger()) == 2, what="both jobs to start")
    project.job(job).cancel(interrupt=True)
    worker.until_output("job.interrupting")
    project.write("go", "")
    assert project.ended(job).status == Status.CANCEL
    assert project.client.fetch(beside).status == Status.STARTED
    assert worker.popen.poll() is None


@pytest.mark.parametrize("path", ["worst.pools", "worst.swallows_one"])
def test_an_interrupt_comes_again_until_it_is_heeded(project: Project, path: str) -> None:
    job = project.queue(path)
    worker = project.worker("--paused-queues-refresh-interval", "0.05")
    until(project.ledger, what="the job to start")
    project.job(job).cancel(interrupt=True)
    assert project.ended(job).status == Status.CANCEL
    assert worker.popen.poll() is None


def locked(project: Project) -> sqlite3.Connection:
    lock = sqlite3.connect(project.path / "jobs.sqlite3", isolation_level=None)
    lock.execute("BEGIN IMMEDIATE")
    return lock


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
@pytest.mark.parametrize("seconds", [None, 0.3, 1000])
def test_sigterm_ends_a_worker_within_three_seconds_though_its_broker_is_away(
    project: Project, seconds: float | None
) -> None:
    if seconds is not None:
        project.queue("tasks.noted", {"word": "job", "seconds": seconds})
    worker = project.worker()
    if seconds is not None:
        until(project.ledger, what="the job to start")
    lock = locked(project)
    try:
        if seconds == 0.3:
            until(lambda: len(project.ledger()) == 2, what="the job to end")
            worker.send(signal.SIGINT)
            worker.until_output("worker.stopping on SIGINT")
        started = time.monotonic()
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
        assert time.monotonic() - started < LEAVE_WITHIN + LOAD
        assert "greenlet.ended" not in worker.output
    finally:
        lock.close()


def test_a_suspect_gets_its_turn_though_its_queue_never_runs_dry(project: Project) -> None:
    crashed = project.queue("tasks.noted", {"word": "crashed", "seconds": 0.1})
    doomed = project.worker("--lease", "2")
    until(project.ledger, what="the job to start")
    doomed.send(signal.SIGKILL)
    doomed.wait()
    # The lease ends while another worker executes jobs that overlap: it is never without other jobs.
    naps = [{"word": f"w{n}", "seconds": 0.02 + 0.01 * (n % 3)} for n in range(600)]
    others = project.client.queue_jobs("tasks.noted", naps)
    project.work_off("--lease", "2", "--greenlets", "4")
    again = project.ended(crashed)
    last = project.client.fetch(others[-1])
    assert again.status == Status.SUCCESS
    assert again.started_at is not None
    assert last.started_at is not None
    assert again.started_at < last.started_at


def test_an_at_most_once_task_never_starts_twice_though_it_was_queued_without_its_code(
    project: Project,
) -> None:
    job = project.queue("worst.once")
    assert not project.client.fetch(job).at_most_once
    doomed = project.worker("--lease", "0.5")
    until(lambda: project.ledger() == ["once"], what="the job to start")
    doomed.send(signal.SIGKILL)
    doomed.wait()
    project.worker("--lease", "0.5")
    record = project.ended(job)
    assert (record.status, record.exception_type) == (Status.FAILED, "mrq_core.errors.ClaimLost")
    assert project.ledger() == ["once"]


SLOW_PLUGIN = """
import time
from mrq_core import hookimpl

@hookimpl
def mrq_jobs_started(records):
    time.sleep(1.2)

@hookimpl
def mrq_worker_event(worker, event):
    time.sleep(0.01)
"""


def test_a_slow_observer_costs_no_claim_and_no_wake_up(project: Project) -> None:
    project.write("slow_plugin.py", SLOW_PLUGIN)
    jobs = [project.queue("tasks.noted", {"word": f"w{n}"}) for n in range(3)]
    project.worker("--plugins", "slow_plugin", "--lease", "0.6")
    assert [project.job(job).wait(PATIENCE).claims for job in jobs] == [1, 1, 1]


def test_a_worker_that_may_open_no_more_files_stops_and_stores_all_outcomes(project: Project) -> None:
    project.write(
        "leaking.py",
        """
        import os, resource, time
        from mrq_core import task

        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))
        left = []

        @task
        def leaks():
            try:
                while True:
                    left.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                return True

        @task(timeout=1)
        def endless():
            while True:
                time.sleep(0.01)
    """,
    )
    jobs = [project.queue("leaking.leaks"), project.queue("leaking.endless", priority=-1)]
    worker = project.start("worker", "--greenlets", "1", "--name", "poor", "--report-interval", "0.2")
    assert worker.wait() == 0, worker.output
    assert [project.client.fetch(job).status for job in jobs] == [Status.SUCCESS, Status.TIMEOUT]
    assert [project.client.fetch(job).claims for job in jobs] == [1, 1]
    assert "it may open no more files" in worker.output
    assert "settle.broke" not in worker.output
    assert "an error in mrq" not in worker.output
    assert '"stop"' in project.mrq("workers", "--json")
