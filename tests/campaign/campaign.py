"""A client that enqueues, workers that run its jobs, and the faults that they meet."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import ENDED, WAITING, JobRecord, Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.ids import new_id
from tests import brokers
from tests.campaign import ledger
from tests.support import Process, Project, until

LEASE = 1.0
AHEAD = 60
"""How many jobs wait, at most, when the client enqueues more."""
LONG = 600.0
"""Seconds for what is left after the last fault."""


class Campaign:
    """A client that enqueues, workers, and the faults that they meet."""

    def __init__(
        self,
        project: Project,
        *,
        jobs: int,
        most_faults: int,
        seed: int,
        workers: int = 4,
        longest: float = 1.0,
    ) -> None:
        self.project = project
        self.jobs = jobs
        self._most_faults = most_faults
        self._seed = seed
        self._longest = longest
        self.random = random.Random(seed)
        self.acknowledged: list[str] = []
        self.faults = 0
        self.processes: list[Process] = []
        self._stopped = threading.Event()
        self._started = time.monotonic()
        self.workers = [self._start() for _ in range(workers)]

    def run(self, fault: Callable[[Process], None]) -> list[JobRecord]:
        """Enqueues and lets faults happen until all jobs have ended or there were enough faults.

        Returns the records when all have ended and all workers are gone.
        """
        with ThreadPoolExecutor(1) as pool:
            enqueueing = pool.submit(self._enqueue)
            try:
                while self.faults < self._most_faults and not self._is_over():
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
        assert len(records) == len(self.acknowledged) == self.jobs
        brokers.repair(broker)
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
        print(
            f"seed: {self._seed}, jobs: {self.jobs}, faults: {self.faults}, {numbers}, seconds: {seconds:.0f}"
        )

    def _victim(self) -> Process:
        worker = self.random.choice(self.workers)
        assert worker.popen.poll() is None, f"a worker ended by itself:\n{worker.output}"
        return worker

    def _start(self) -> Process:
        process = self.project.start("worker", "--greenlets", "5", "--lease", f"{LEASE:g}")
        self.processes.append(process)
        return process

    def _enqueue(self) -> None:
        """In a thread: keeps some jobs ahead of the workers, so that enqueueing goes on during the faults."""
        client, durations = self.project.client, random.Random(self._seed)
        for number in range(self.jobs):
            if number % 10 == 0:
                until(self._may_enqueue, what="the workers to keep up", patience=LONG)
            if self._stopped.is_set():
                return
            job_id, params = new_id(), {"seconds": round(durations.uniform(0.05, self._longest), 3)}
            while True:
                try:
                    acknowledged = client.queue_job("tasks.work", params, job_id=job_id)
                    break
                except BrokerUnavailable:  # repeated under the same id, which is one job
                    if self._stopped.is_set():
                        raise
            assert acknowledged == job_id
            self.acknowledged.append(job_id)

    def _may_enqueue(self) -> bool:
        try:
            return self._stopped.is_set() or self._number_of(WAITING) < AHEAD
        except BrokerUnavailable:
            return False

    def _is_over(self) -> bool:
        try:
            return self._number_of(ENDED) >= self.jobs
        except BrokerUnavailable:  # the server itself is what was hit
            return False

    def _number_of(self, statuses: frozenset[Status]) -> int:
        # Counted: totals may be wrong for a while where a server that keeps them apart has died.
        counts = self.project.client.broker.count(JobFilter(statuses=tuple(statuses)), "status").numbers
        return sum(counts.values())
