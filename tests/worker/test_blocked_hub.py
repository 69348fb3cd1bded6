"""A job that keeps the processor blocks the hub. Outcomes of other jobs and the report do not wait."""

from __future__ import annotations

import json
import signal
import socket
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from mrq_core.contract.record import JobRecord, Status
from mrq_core.operations.workers import find_worker
from tests.servers import ServerProcess
from tests.support import Project, open_project, until
from tests.worker.conftest import TASKS

JOBS = 20
DELAY = 0.5
"""Seconds within which an outcome is stored."""

BLOCKING = """
import os, time
from tasks import note
from mrq_core import log, task

ran = 0


@task
def quick(number: int, wait: float = 0, lines: int = 0):
    time.sleep(wait)
    for line in range(lines):
        log.info("line %d", line)
    note(f"ran-{number}")
    global ran
    ran += 1
    return time.time()


@task
def block(after: int = 0, wait: float = 0, until_file: str = "go"):
    note("waits")
    while ran < after:
        time.sleep(0)
    time.sleep(wait)
    note("blocks")
    while not os.path.exists(until_file):  # keeps the processor: asking the file system does not yield
        pass
    return time.time()
"""

OBSERVER = """
from tasks import note
from mrq_core import hookimpl

@hookimpl
def mrq_jobs_settled(settled):
    for record, outcome in settled:
        note(f"settled-{record.id}")
"""


@pytest.fixture(autouse=True)
def tasks(request: pytest.FixtureRequest) -> None:
    if "project" in request.fixturenames:
        request.getfixturevalue("project").write("blocking.py", BLOCKING)


class Block:
    """A worker in which JOBS jobs have ended and another job blocks the hub until `release`; with `hold`, it
    does so this many seconds after the last of them."""

    def __init__(self, project: Project, *arguments: str, hold: float = 0.0, **params: object) -> None:
        self.project = project
        self.jobs = [project.queue("blocking.quick", {"number": number, **params}) for number in range(JOBS)]
        self.blocker = project.queue("blocking.block", {"after": JOBS if hold else 0, "wait": hold})
        self.worker = project.worker("--greenlets", str(JOBS + 1), "--name", "blocked", *arguments)
        until(lambda: "blocks" in project.ledger(), what="the hub to be blocked")

    @property
    def name(self) -> str:
        return f"blocked.{socket.gethostname()}.{self.worker.pid}"

    def records(self) -> list[JobRecord]:
        return [record for record in self.project.client.broker.get(self.jobs) if record]

    def until_stored(self) -> list[JobRecord]:
        """The records of the jobs, once all have ended. The hub stays blocked."""
        until(lambda: all(record.is_ended for record in self.records()), what="the outcomes")
        assert self.is_blocked()
        return self.records()

    def is_blocked(self) -> bool:
        return self.project.client.fetch(self.blocker).status == Status.STARTED

    def release(self) -> JobRecord:
        self.project.write("go", "")
        return self.project.ended(self.blocker)


def delays(records: list[JobRecord]) -> list[float]:
    """Seconds from the end of each job's code to the stored outcome."""
    return [r.ended_at.timestamp() - r.result for r in records if r.ended_at and isinstance(r.result, float)]


def test_outcomes_are_stored_in_time_and_no_job_runs_again_after_kill_9(project: Project) -> None:
    block = Block(project, "--lease", "2")
    records = block.until_stored()
    assert [record.status for record in records] == [Status.SUCCESS] * JOBS
    assert len(delays(records)) == JOBS
    assert max(delays(records)) < DELAY
    block.worker.send(signal.SIGKILL)
    block.worker.wait()
    project.write("go", "")
    project.worker("--lease", "2")
    assert project.ended(block.blocker).claims == 2
    ran = [word for word in project.ledger() if word.startswith("ran-")]
    assert sorted(ran) == sorted(f"ran-{n}" for n in range(JOBS))
    assert block.records() == records


def test_logs_are_stored_before_the_outcome(project: Project) -> None:
    block = Block(project, lines=30)
    missing = set(block.jobs)

    def all_have_ended() -> bool:
        for record in block.records():
            if record.is_ended and record.id in missing:
                assert project.log_of(record.id) == [f"line {n}" for n in range(30)]
                missing.discard(record.id)
        return not missing

    until(all_have_ended, what="the outcomes")
    assert block.is_blocked()
    block.release()
    assert [project.log_of(job) for job in block.jobs] == [[f"line {n}" for n in range(30)]] * JOBS


@pytest.mark.parametrize("hold", [0.0, 0.002, 0.003, 0.004, 0.006, 0.01])
def test_an_outcome_is_counted_and_observed_once_wherever_the_settler_is_caught(
    project: Project, hold: float
) -> None:
    project.write("observer.py", OBSERVER)
    block = Block(project, "--plugins", "observer", hold=hold, lines=1)
    block.until_stored()
    block.release()
    everything = [*block.jobs, block.blocker]
    until(lambda: f"settled-{block.blocker}" in project.ledger(), what="the last observer")
    until(
        lambda: (report := find_worker(project.client.broker, block.name)) and not report.unsettled, what=""
    )
    block.worker.send(signal.SIGINT)
    assert block.worker.wait() == 0
    observed = [word for word in project.ledger() if word.startswith("settled-")]
    assert sorted(observed) == sorted(f"settled-{job}" for job in everything)
    assert "claim.lost" not in block.worker.output
    assert "Traceback" not in block.worker.output


def test_outcomes_are_counted_once_in_the_report(project: Project) -> None:
    block = Block(project)
    block.until_stored()
    block.release()

    def counted() -> int:
        report = find_worker(project.client.broker, block.name)
        return report.jobs.get("success", 0) if report and not report.unsettled else 0

    until(lambda: counted() > JOBS, what="the counts in the report")
    assert counted() == JOBS + 1


def test_a_burst_ends_after_outcomes_were_stored_beside_the_hub(project: Project) -> None:
    jobs = [project.queue("blocking.quick", {"number": number}) for number in range(JOBS)]
    blocker = project.queue("blocking.block")
    worker = project.start("worker", "--burst", "--greenlets", "30", "--max-latency", "0.05")
    until(lambda: all(project.client.fetch(job).is_ended for job in jobs), what="the outcomes")
    assert project.client.fetch(blocker).status == Status.STARTED
    project.write("go", "")
    assert worker.wait() == 0
    assert project.client.fetch(blocker).status == Status.SUCCESS


def test_an_outcome_that_cannot_be_stored_keeps_no_other_waiting(project: Project) -> None:
    project.write(
        "garbage.py",
        """
        from mrq_core import task
        from mrq_core.worker import outcomes

        checked = outcomes.storable

        def unchecked(value, **more):
            return object() if value == "garbage" else checked(value, **more)

        outcomes.storable = unchecked

        @task
        def make():
            return "garbage"
        """,
    )
    garbage = project.queue("garbage.make")
    block = Block(project, "--greenlets", str(JOBS + 2))  # all are claimed together, before one is settled
    block.until_stored()
    assert project.client.fetch(garbage).status == Status.STARTED
    block.release()
    assert project.ended(garbage).status == Status.FAILED
    assert "could not be stored" in (project.ended(garbage).traceback or "")


def test_the_report_is_never_older_than_two_intervals(project: Project) -> None:
    interval = 1.0
    file = project.path / "report.json"
    block = Block(project, "--report-interval", str(interval), "--report-file", str(file))
    until(lambda: find_worker(project.client.broker, block.name), what="the first report")
    ages: list[float] = []
    end = time.monotonic() + 4 * interval
    while time.monotonic() < end:
        report = find_worker(project.client.broker, block.name)
        assert report is not None
        told = datetime.fromisoformat(json.loads(file.read_text())["reported_at"])
        now = datetime.now(UTC)
        ages += [(now - report.reported_at).total_seconds(), (now - told).total_seconds()]
        time.sleep(0.05)
    assert block.is_blocked()
    assert max(ages) < 2 * interval
    block.release()
    block.worker.send(signal.SIGINT)
    assert block.worker.wait() == 0
    last = find_worker(project.client.broker, block.name)
    assert last is not None
    assert last.status == "stop"
    assert list(project.path.glob("report.json*")) == []


def test_outcomes_are_kept_while_the_broker_is_away_and_stored_when_it_is_back(
    own_server: ServerProcess, tmp_path: Path
) -> None:
    with open_project(tmp_path, own_server.url) as project:
        project.write("tasks.py", TASKS)
        project.write("blocking.py", BLOCKING)
        worker = project.worker("--greenlets", "3")
        project.ended(project.queue("blocking.quick", {"number": 0}))
        jobs = [project.queue("blocking.quick", {"number": 1, "wait": 1.0})]
        blocker = project.queue("blocking.block", {"wait": 1.5})
        until(lambda: "waits" in project.ledger(), what="the jobs to start")
        own_server.kill()
        until(lambda: "blocks" in project.ledger(), what="the hub to be blocked")
        away_until = time.monotonic() + 1.0  # so that the native thread meets a broker that is away
        until(lambda: time.monotonic() > away_until)
        own_server.start()
        for job in jobs:
            record = project.ended(job)
            assert (record.status, record.claims) == (Status.SUCCESS, 1)
        assert project.client.fetch(blocker).status == Status.STARTED
        project.write("go", "")
        assert project.ended(blocker).claims == 1
        assert worker.popen.poll() is None


def test_a_cancel_reaches_the_job_that_blocks_the_hub(project: Project) -> None:
    blocked = Block(project, "--paused-queues-refresh-interval", "0.2")
    project.job(blocked.blocker).cancel(interrupt=True)
    record = project.ended(blocked.blocker)
    assert (record.status, record.claims) == (Status.CANCEL, 1)
    # The hub polls again, and finds the same request: it concerns no later attempt.
    project.job(blocked.blocker).requeue()
    project.write("go", "")
    record = project.ended(blocked.blocker)
    assert (record.status, record.claims) == (Status.SUCCESS, 2)
