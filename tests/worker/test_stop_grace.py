"""STOP_GRACE: the time between SIGTERM and the interrupt of running jobs."""

from __future__ import annotations

import signal
import time

import pytest

from mrq_core.contract.record import Status
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.support import LOAD, Process, Project, until

GRACE = 1.5


def with_job(project: Project, seconds: float, *arguments: str) -> tuple[Process, str]:
    """A worker that runs a job of these seconds."""
    job = project.queue("tasks.noted", {"word": "job", "seconds": seconds})
    worker = project.worker("--stop-grace", str(GRACE), *arguments)
    until(lambda: "start-job" in project.ledger(), what="the job to start")
    return worker, job


def told(worker: Process, *signals: signal.Signals) -> float:
    """Sends the signals one by one, and returns the time of the last."""
    for signum in signals:
        worker.send(signum)
        worker.until_output(f"worker.stopping on {signum.name}")
    return time.monotonic()


def test_a_job_that_ends_within_the_grace_succeeds_and_nothing_new_starts(project: Project) -> None:
    worker, job = with_job(project, 0.7)
    waiting = project.queue("tasks.noted", {"word": "waiting"})
    since = told(worker, signal.SIGTERM)
    assert worker.wait() == 0
    assert time.monotonic() - since < GRACE  # the worker does not wait for the end of the grace
    assert project.client.fetch(job).status == Status.SUCCESS
    assert (project.client.fetch(waiting).status, project.client.fetch(waiting).claims) == (Status.QUEUED, 0)


def test_a_job_that_outlives_the_grace_is_interrupted_then_and_due_at_once(project: Project) -> None:
    worker, job = with_job(project, 1000)
    since = told(worker, signal.SIGTERM)
    assert worker.wait() == 0
    assert GRACE - 0.1 < time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD
    record = project.client.fetch(job)
    assert (record.status, record.claims, record.lost_claims) == (Status.INTERRUPT, 1, 0)
    assert not record.is_ended
    assert "STOP_GRACE is over" in worker.output


def test_a_job_that_keeps_the_processor_is_interrupted_after_the_grace(project: Project) -> None:
    job = project.queue("tasks.busy", {"seconds": 1000})
    worker = project.worker("--stop-grace", str(GRACE))
    until(project.ledger, what="the job to start")
    since = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert GRACE - 0.1 < time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD
    assert project.client.fetch(job).status == Status.INTERRUPT


@pytest.mark.parametrize(
    "signals",
    [
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGINT, signal.SIGTERM, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM, signal.SIGINT),
    ],
)
def test_sigint_ends_the_grace(project: Project, signals: tuple[signal.Signals, ...]) -> None:
    worker, job = with_job(project, 1000, "--stop-grace", "1000")
    since = told(worker, *signals)
    assert worker.wait() == 0
    assert time.monotonic() - since < LEAVE_WITHIN + LOAD
    assert project.client.fetch(job).status == Status.INTERRUPT


def test_sigterm_after_sigint_starts_the_grace(project: Project) -> None:
    worker, job = with_job(project, 1000)
    since = told(worker, signal.SIGINT, signal.SIGTERM)
    assert worker.wait() == 0
    assert GRACE - 0.1 < time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD
    assert project.client.fetch(job).status == Status.INTERRUPT


def test_a_second_sigterm_does_not_prolong_the_grace(project: Project) -> None:
    worker, job = with_job(project, 1000)
    told(worker, signal.SIGTERM)
    since = time.monotonic()
    until(lambda: time.monotonic() - since > GRACE / 2)
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD
    assert project.client.fetch(job).status == Status.INTERRUPT
