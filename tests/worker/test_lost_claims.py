"""A worker that loses a claim interrupts the job, and tells of renewals that fail."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from mrq_core.contract.messages import ClaimRef, ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.record import JobRecord, Status
from mrq_core.operations.workers import workers_at_work
from tests.servers import ServerProcess
from tests.support import Process, Project, open_project, until
from tests.worker.conftest import TASKS

HOLDING = """
import time
from tasks import note
from mrq_core import task


def hold(step):
    note("start")
    try:
        while True:
            step()
    except BaseException as error:
        note(type(error).__name__)
        raise


@task
def waits():
    hold(lambda: time.sleep(1000))


@task
def spins():
    hold(lambda: None)


@task
def ends():
    pass


@task(max_retries=0)
def is_deaf():
    def step():
        try:
            time.sleep(0.05)
        except BaseException:
            note("deaf")
    hold(step)
"""


def lose_claim(project: Project, path: str) -> tuple[JobRecord, Process]:
    """Lets another worker claim a job that runs. Returns the job under the new claim and its first worker."""
    project.write("holding.py", HOLDING)
    job = project.queue(path)
    worker = project.worker("--lease", "0.6")
    until(lambda: project.ledger() == ["start"], what="the job to start")
    broker, first = project.client.broker, project.client.fetch(job)
    request = ClaimRequest(worker="other", wanted=(Wanted(name="default"),), limit=1, lease=60.0)

    def claim() -> tuple[JobRecord, ...]:
        # Not by SIGSTOP: a frozen worker may hold the lock of SQLite's file.
        broker.renew([ClaimRef(id=job, token=first.token or "")], 0.001)
        return tuple(broker.claim(request).records)

    return until(claim, what="the second claim")[0], worker


def settle_second(project: Project, second: JobRecord) -> None:
    """Ends the second attempt, which is undisturbed by the first."""
    record = project.client.fetch(second.id)
    assert (record.status, record.token, record.claims) == (Status.STARTED, second.token, 2)
    done = Outcome(status=Status.SUCCESS, ttl=60.0)
    settlement = Settlement(id=second.id, token=second.token or "", outcome=done)
    assert project.client.broker.settle([settlement]) == [True]


@pytest.mark.parametrize("path", ["holding.waits", "holding.spins"])
def test_a_job_whose_claim_is_lost_is_interrupted_and_its_outcome_refused(
    project: Project, path: str
) -> None:
    second, late = lose_claim(project, path)
    until(lambda: "JobInterrupt" in project.ledger(), what="the job to be interrupted")
    late.until_output("this outcome is not stored")
    assert "it is interrupted here" in late.output
    assert "the claim of the job was lost: another worker may run it now" in late.output
    settle_second(project, second)
    # The worker goes on.
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    late.send(signal.SIGINT)
    assert late.wait() == 0


def test_a_worker_is_given_up_for_a_job_that_ignores_that_its_claim_is_lost(project: Project) -> None:
    second, late = lose_claim(project, "holding.is_deaf")
    until(lambda: "deaf" in project.ledger(), what="the first interrupt")
    interrupted = time.monotonic()
    assert late.wait() == 1
    assert time.monotonic() - interrupted > 4.0  # the grace of a timeout
    settle_second(project, second)


def test_an_outage_that_renewals_meet_is_logged_once_and_its_end_too(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    with open_project(tmp_path, own_server.url) as project:
        project.write("tasks.py", TASKS)
        project.queue("tasks.noted", {"word": "x", "seconds": 1000})
        worker = project.worker("--greenlets", "2", "--lease", "0.6", "--broker-timeout", "1")
        until(lambda: project.ledger() == ["start-x"], what="the job to start")
        for outage in (1, 2):
            own_server.kill()
            until_logged(worker, "broker.away", outage)
            away = time.monotonic()
            until(lambda: time.monotonic() > away + 3.0, what="some renewals")  # noqa: B023
            own_server.start()
            until_logged(worker, "broker.back", outage)
        for event, number in (("broker.away", 2), ("broker.back", 2), ("renew.", 0), ("thread.broke", 0)):
            assert worker.output.count(event) == number, event


def until_logged(worker: Process, event: str, number: int) -> None:
    until(lambda: worker.output.count(event) >= number, what=f"{event} for the {number}th time")


def run_after_losses(project: Project, times: int, *flags: str) -> JobRecord:
    """Lets other workers claim a job and disappear, this many times in a row, beside a worker that claims
    nothing meanwhile. Returns the job when it has ended."""
    broker = project.client.broker
    project.write("holding.py", HOLDING)
    broker.pause(["default"])
    project.worker("--paused-queues-refresh-interval", "0.1", *flags)
    until(lambda: workers_at_work(broker), what="the worker to report")
    job = project.queue("holding.ends")
    request = ClaimRequest(
        worker="gone", wanted=(Wanted(name="default"),), limit=1, lease=0.001, lost_limit=1
    )
    for _ in range(times):
        until(lambda: broker.claim(request).records, what="the claim")
    broker.resume(["default"])
    until(lambda: project.client.fetch(job).is_ended, what="the job to end")
    return project.client.fetch(job)


def test_a_job_that_was_lost_with_three_workers_waits_for_a_lease_and_runs(project: Project) -> None:
    record = run_after_losses(project, 3, "--lease", "3")
    assert (record.status, record.lost_claims) == (Status.SUCCESS, 0)
    lost = [attempt for attempt in record.history if attempt.lost]
    assert len(lost) == 3
    assert record.started_at is not None
    assert (record.started_at - lost[-1].ended_at).total_seconds() >= 3.0


def test_a_job_that_was_lost_with_two_workers_does_not_wait(project: Project) -> None:
    record = run_after_losses(project, 2, "--lease", "60")
    assert record.status is Status.SUCCESS
