"""How a worker stops."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from mrq_core.client.handles import Queue
from mrq_core.contract.record import Status
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.support import LOAD, Project, until


def test_sigint_finishes_what_runs_and_takes_nothing_new(project: Project) -> None:
    running = project.queue("tasks.noted", {"word": "running", "seconds": 1.0})
    worker = project.worker()
    until(lambda: "start-running" in project.ledger(), what="the job to start")
    waiting = project.queue("tasks.noted", {"word": "waiting"})
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
    assert project.client.fetch(running).status == Status.SUCCESS
    assert project.client.fetch(waiting).status == Status.QUEUED
    assert project.client.fetch(waiting).claims == 0


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)])
def test_a_second_sigint_or_a_sigterm_interrupts_what_runs(
    project: Project, signals: tuple[signal.Signals, ...]
) -> None:
    job = project.queue("tasks.noted", {"word": "long", "seconds": 1000})
    worker = project.worker()
    until(lambda: "start-long" in project.ledger(), what="the job to start")
    for signum in signals:
        worker.send(signum)
        worker.until_output(f"worker.stopping on {signum.name}")
    assert worker.wait() == 0
    record = project.client.fetch(job)
    assert record.status == Status.INTERRUPT
    assert (record.retry_count, record.lost_claims, record.claims) == (0, 0, 1)
    assert not record.is_ended
    assert "end-long" not in project.ledger()


def test_an_interrupted_job_is_due_again_at_once(project: Project) -> None:
    project.write(
        "short.py",
        """
        import os, time, tasks
        from mrq_core import task

        @task
        def second_time_fast():
            tasks.note("run")
            time.sleep(1000 if "SLOW" in os.environ else 0)
        """,
    )
    project.env["SLOW"] = "1"
    job = project.queue("short.second_time_fast")
    first = project.worker()
    until(lambda: project.ledger() == ["run"], what="the job to start")
    first.send(signal.SIGTERM)
    assert first.wait() == 0
    del project.env["SLOW"]
    project.work_off()
    record = project.client.fetch(job)
    assert (record.status, record.claims, record.lost_claims) == (Status.SUCCESS, 2, 0)
    assert [attempt.status for attempt in record.attempts] == [Status.INTERRUPT, Status.SUCCESS]


@pytest.mark.parametrize("signals", [(signal.SIGINT, signal.SIGINT), (signal.SIGTERM,)])
@pytest.mark.parametrize("path", ["tasks.busy", "tasks.deaf"])
def test_an_interrupt_ends_a_worker_within_three_seconds_whatever_its_job_does(
    project: Project, path: str, signals: tuple[signal.Signals, ...]
) -> None:
    project.write("mrq-config.py", "TASKS = {'tasks.deaf': {'timeout': 1000}}")
    job = project.queue(path, {"seconds": 1000} if path == "tasks.busy" else {})
    worker = project.worker()
    until(project.ledger, what="the job to start")
    started = time.monotonic()
    for signum in signals:
        until(lambda: "ShdPnd:\t0000000000000000" in Path(f"/proc/{worker.pid}/status").read_text())
        worker.send(signum)  # two that are pending at the same time would be one
    assert worker.wait() == 0
    assert time.monotonic() - started < LEAVE_WITHIN + LOAD
    assert project.client.fetch(job).status == Status.INTERRUPT


def test_an_at_most_once_job_that_is_interrupted_has_ended(project: Project) -> None:
    project.write("mrq-config.py", "TASKS = {'tasks.noted': {'at_most_once': True}}")
    job = project.mrq("run", "tasks.noted", '{"word": "once", "seconds": 1000}', "--async").strip()
    worker = project.worker()
    until(lambda: project.ledger() == ["start-once"], what="the job to start")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    record = project.client.fetch(job)
    assert record.status == Status.INTERRUPT
    assert record.is_ended
    project.work_off()
    assert project.ledger() == ["start-once"]


def test_max_jobs_ends_a_worker_after_that_many(project: Project) -> None:
    jobs = [project.queue("tasks.Add", {"a": n, "b": 0}) for n in range(5)]
    worker = project.worker("--max-jobs", "3", "--greenlets", "2")
    assert worker.wait() == 0
    statuses = [project.client.fetch(job).status for job in jobs]
    assert statuses.count(Status.SUCCESS) == 3
    assert statuses.count(Status.QUEUED) == 2


@pytest.mark.parametrize("seconds", ["0.001", "0.2"])
def test_max_time_ends_a_worker_that_has_run_jobs(project: Project, seconds: str) -> None:
    job = project.queue("tasks.Add", {"a": 1, "b": 1})
    assert project.worker("--max-time", seconds).wait() == 0
    assert project.ended(job).result == 2


def test_cancel_with_interrupt_ends_a_running_job_and_without_leaves_it(project: Project) -> None:
    left = project.queue("tasks.noted", {"word": "left", "seconds": 1.5})
    stopped = project.queue("tasks.noted", {"word": "stopped", "seconds": 1000})
    project.worker("--greenlets", "2", "--paused-queues-refresh-interval", "0.1")
    until(lambda: len(project.ledger()) == 2, what="both jobs to start")
    project.job(left).cancel()
    project.job(stopped).cancel(interrupt=True)
    assert project.ended(stopped).status == Status.CANCEL
    assert project.ended(left).status == Status.SUCCESS
    assert "end-stopped" not in project.ledger()


def test_a_job_that_was_cancelled_while_it_ran_is_not_retried(project: Project) -> None:
    project.write(
        "again.py",
        """
        import os, time
        from tasks import note
        from mrq_core import retry_current_job, task

        @task(retry_delay=0.01)
        def again():
            note("run")
            while not os.path.exists("go"):
                time.sleep(0.01)
            retry_current_job()
        """,
    )
    job = project.queue("again.again")
    project.worker()
    until(lambda: project.ledger() == ["run"], what="the job to start")
    project.job(job).cancel()
    project.write("go", "")
    assert project.ended(job).status == Status.CANCEL
    assert project.ledger() == ["run"]


def test_a_paused_queue_is_left_alone_until_it_is_resumed(project: Project) -> None:
    quiet = Queue("quiet", client=project.client)
    quiet.pause()
    held = project.queue("tasks.noted", {"word": "held"}, queue="quiet")
    project.worker("quiet", "default", "--paused-queues-refresh-interval", "0.1")
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    assert project.client.fetch(held).status == Status.QUEUED
    quiet.resume()
    assert project.ended(held).status == Status.SUCCESS
