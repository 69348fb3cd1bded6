"""Whatever befalls the workers, no acknowledged job is lost and each repeat is explained by the records.

Four workers run jobs that a client enqueues all the while, and one of them, chosen at random, is
killed, told to leave, or frozen, again and again. The seed is printed; MRQ_TEST_SEED repeats it, as far
as the choices go.
"""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mrq_core.errors import BrokerUnavailable
from mrq_core.ids import new_id
from mrq_core.job import ENDED, WAITING, JobRecord, Status
from tests.campaign import ledger
from tests.campaign.ledger import Ledger
from tests.embedded.recount import check_tables
from tests.support import Process, Project, open_project, until

pytestmark = pytest.mark.campaign

JOBS = int(os.environ.get("MRQ_TEST_JOBS", "1000"))
SEED = int(os.environ.get("MRQ_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
WORKERS = 4
MOST_FAULTS = 30
LEASE = 1.0
AHEAD = 60
"""How many jobs wait, at most, when the client enqueues more."""
LONG = 600.0
"""Seconds for what is left after the last fault."""


class Campaign:
    """A client that enqueues, workers, and the faults that they meet."""

    def __init__(self, project: Project) -> None:
        self.project = project
        self.random = random.Random(SEED)
        self.acknowledged: list[str] = []
        self.faults = 0
        self.processes: list[Process] = []
        self._stopped = threading.Event()
        self._started = time.monotonic()
        self.workers = [self._start() for _ in range(WORKERS)]

    def run(self, fault: Callable[[Process], None]) -> list[JobRecord]:
        """Enqueues and lets faults happen until all jobs have ended or there were enough faults.

        Returns the records when all have ended and all workers are gone.
        """
        with ThreadPoolExecutor(1) as pool:
            enqueueing = pool.submit(self._enqueue)
            try:
                while self.faults < MOST_FAULTS and not self._is_over():
                    fault(self._victim())
                    self.faults += 1
                enqueueing.result(LONG)
            finally:
                self._stopped.set()
        until(self._is_over, what="all jobs to end", patience=LONG)
        for worker in self.workers:
            worker.until_output("worker.started")
            worker.send(signal.SIGINT)
        for worker in self.workers:
            assert worker.wait() == 0, worker.output
        broker = self.project.client.broker
        records = ledger.all_records(broker)
        assert {record.id for record in records} == set(self.acknowledged)
        assert len(records) == len(self.acknowledged) == JOBS
        ledger.check_totals(broker, records)
        return records

    def replace(self, worker: Process, signum: signal.Signals) -> None:
        """Sends the signal and starts another worker in its place."""
        worker.send(signum)
        self.workers[self.workers.index(worker)] = self._start()

    def outputs(self) -> dict[int, str]:
        """What each worker printed."""
        return {process.pid: process.output for process in self.processes}

    def tell(self, counted: Counter[str]) -> None:
        """Prints the figures of the run."""
        numbers = ", ".join(f"{name}: {number}" for name, number in sorted(counted.items()))
        seconds = time.monotonic() - self._started
        print(f"seed: {SEED}, jobs: {JOBS}, faults: {self.faults}, {numbers}, seconds: {seconds:.0f}")

    def _victim(self) -> Process:
        worker = self.random.choice(self.workers)
        assert worker.popen.poll() is None, f"a worker ended by itself:\n{worker.output}"
        return worker

    def _start(self) -> Process:
        # A job may be hit more often by chance than a poison job is run: none is to be condemned here.
        process = self.project.start(
            "worker", "--greenlets", "5", "--lease", f"{LEASE:g}", "--max-lost-claims", str(MOST_FAULTS + 1)
        )
        self.processes.append(process)
        return process

    def _enqueue(self) -> None:
        """In a thread: keeps some jobs ahead of the workers, so that enqueueing goes on during the faults."""
        client, durations = self.project.client, random.Random(SEED)
        for number in range(JOBS):
            if number % 10 == 0:
                until(self._may_enqueue, what="the workers to keep up", patience=LONG)
            if self._stopped.is_set():
                return
            job_id, params = new_id(), {"seconds": round(durations.uniform(0.05, 1.0), 3)}
            while True:
                try:
                    acknowledged = client.queue_job("tasks.work", params, job_id=job_id)
                    break
                except BrokerUnavailable:  # a frozen worker may hold the file's lock; the id makes this safe
                    if self._stopped.is_set():
                        raise
            assert acknowledged == job_id
            self.acknowledged.append(job_id)

    def _may_enqueue(self) -> bool:
        return self._stopped.is_set() or self._number_of(WAITING) < AHEAD

    def _is_over(self) -> bool:
        return self._number_of(ENDED) >= JOBS

    def _number_of(self, statuses: frozenset[Status]) -> int:
        totals = self.project.client.broker.totals().by_status()
        return sum(totals.get(status, 0) for status in statuses)


@pytest.fixture
def campaign(tmp_path: Path) -> Iterator[Campaign]:
    print(f"seed: {SEED}")
    database = tmp_path / "jobs.sqlite3"
    with open_project(tmp_path, f"sqlite:///{database}") as project:
        project.write("tasks.py", ledger.TASKS)
        yield Campaign(project)
    check_tables(database)


def test_no_job_is_lost_by_workers_that_are_killed(campaign: Campaign) -> None:
    killed: set[int] = set()

    def kill(worker: Process) -> None:
        time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
        killed.add(worker.pid)
        campaign.replace(worker, signal.SIGKILL)

    records = campaign.run(kill)
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)
    # A survivor loses a claim if it gets no processor for a lease; then it has to have noticed.
    lost = ledger.lost_attempts(records)
    noticed = ledger.noticed_losses(campaign.outputs())
    assert {(job, pid) for job, pid in lost if pid not in killed} <= noticed
    counted["lost by survivors"] = sum(n for (_, pid), n in lost.items() if pid not in killed)
    campaign.tell(counted)
    assert counted[ledger.LOST] > 0


def test_no_claim_is_lost_by_workers_that_are_told_to_leave(campaign: Campaign) -> None:
    left: list[Process] = []

    def tell_to_leave(worker: Process) -> None:
        time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
        left.append(worker)
        campaign.replace(worker, signal.SIGTERM)

    records = campaign.run(tell_to_leave)
    for worker in left:
        code = worker.wait()
        # One that had not yet begun to work when it was told dies of the signal.
        assert code == 0 or ("worker.started" not in worker.output and code == -signal.SIGTERM), worker.output
    interrupt = Status.INTERRUPT.value
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=interrupt)
    campaign.tell(counted)
    assert counted[interrupt] > 0
    assert not ledger.noticed_losses(campaign.outputs())


def test_outcomes_of_workers_that_were_frozen_come_too_late(campaign: Campaign) -> None:
    def freeze(worker: Process) -> None:
        time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
        worker.send(signal.SIGSTOP)
        time.sleep(3 * LEASE)  # how long the fault lasts
        worker.send(signal.SIGCONT)

    records = campaign.run(freeze)
    counted = ledger.check(records, Ledger(campaign.project.ledger_path), repeated_after=ledger.LOST)
    refused = ledger.refused_settles(campaign.outputs())
    counted["settles refused"] = refused.total()
    campaign.tell(counted)
    assert refused == ledger.lost_attempts(records)
    assert counted[ledger.LOST] > 0
