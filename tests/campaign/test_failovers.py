"""What a failover of Redis by sentinels loses: on Redis alone, and where Redis is the queue of a pair.

Replication is asynchronous. Redis alone keeps no promise about what the replica did not have: that is
counted and printed. In a pair the store has all jobs, and those that the queue has lost get their places
back.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.composed import ComposedBroker
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import ENDED, JobRecord, Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.operations.actions import repair_all
from tests.campaign import ledger
from tests.campaign.campaign import LEASE
from tests.campaign.ledger import Ledger
from tests.composed.recount import check_halves
from tests.mongo import servers as mongo
from tests.redis.recount import check_keys
from tests.redis.services import Watched, sentinels
from tests.support import Process, Project, open_project, until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(1200)]

JOBS = int(os.environ.get("MRQ_TEST_JOBS", "1000"))
BEHIND = JOBS // 10
"""How many acknowledged jobs the replica has not received, where it lags."""


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Watched]:
    with sentinels(tmp_path) as service:
        yield service


@pytest.fixture(params=["redis", "redis+mongo"])
def project(request: pytest.FixtureRequest, service: Watched, tmp_path: Path) -> Iterator[Project]:
    store = mongo.Server() if request.param == "redis+mongo" else None
    try:
        with open_project(tmp_path, service.url, store.url if store else "") as project:
            project.write("tasks.py", ledger.TASKS)
            yield project
    finally:
        if store:
            store.stop()


class Failover:
    """Jobs that are enqueued while the primary dies and the replica takes over."""

    def __init__(self, project: Project, service: Watched, behind: int) -> None:
        self._project = project
        self._service = service
        self._behind = behind
        self.acknowledged: list[str] = []
        self.refused = 0
        self.killed_at = self.promoted_at = 0.0

    def run(self) -> None:
        is_cut = False
        while len(self.acknowledged) < JOBS or not self.promoted_at:
            if not is_cut and self._behind and len(self.acknowledged) >= JOBS // 2 - self._behind:
                self._service.cut()
                is_cut = True
            if not self.killed_at and len(self.acknowledged) >= JOBS // 2:
                self._service.primary.kill()
                self.killed_at = time.time()
            self._enqueue()
            if self.killed_at and not self.promoted_at and self._service.is_promoted():
                self.promoted_at = time.time()

    def _enqueue(self) -> None:
        try:
            self.acknowledged.append(self._project.queue("tasks.work", {"seconds": 0.01}))
        except BrokerUnavailable:
            self.refused += 1


@pytest.mark.parametrize("behind", [0, BEHIND], ids=["in step", "behind"])
def test_workers_go_on_with_the_replica_and_what_is_lost_is_told(
    project: Project, service: Watched, behind: int
) -> None:
    options = ("--lease", f"{LEASE:g}", "--greenlets", "5")
    workers = [project.start("worker", *options) for _ in range(2)]
    for worker in workers:
        worker.until_output("worker.started")
    failover = Failover(project, service, behind)
    failover.run()
    mended = until(lambda: _mended(project), what="the queue to be mended")[0]
    until(lambda: _have_ended(project), what="all jobs that are left to end")
    for worker in workers:
        worker.send(signal.SIGINT)
        assert worker.wait() == 0, worker.output
    records = ledger.all_records(project.client.broker)
    _tell(project, failover, records, mended)
    broker = project.client.broker
    if isinstance(broker, ComposedBroker):
        assert set(failover.acknowledged) <= {record.id for record in records}
        ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST)
        lost, noticed = ledger.lost_attempts(records), _noticed(workers)
        assert set(lost) <= noticed
        check_halves(broker)
    else:
        assert {record.status for record in records} == {Status.SUCCESS}
        check_keys(broker)  # type: ignore[arg-type]


def _tell(project: Project, failover: Failover, records: list[JobRecord], mended: int) -> None:
    later = [a.started_at.timestamp() for record in records for a in record.attempts]
    first = min(moment for moment in later if moment > failover.promoted_at)
    there = {record.id for record in records}
    book = Ledger(project.ledger_path)
    done = Counter(mark.job for mark in book.ends)
    missing = [job for job in failover.acknowledged if job not in there]
    print(
        f"acknowledged: {len(failover.acknowledged)}, lost: {len(missing)} "
        f"(of these run: {sum(job in done for job in missing)}), places given back: {mended}, "
        f"run more than once: {sum(number > 1 for number in done.values())}, "
        f"attempts lost: {ledger.lost_attempts(records).total()}, enqueues refused: {failover.refused}, "
        f"promoted after {failover.promoted_at - failover.killed_at:.2f} s, "
        f"first claim {first - failover.promoted_at:.2f} s later"
    )


def _noticed(workers: list[Process]) -> set[tuple[str, int]]:
    return ledger.noticed_losses({worker.pid: worker.output for worker in workers})


def _mended(project: Project) -> list[int]:
    """How many got their places back; empty while nobody answers."""
    try:
        return [sum(len(step.repaired) for step in repair_all(project.client.broker))]
    except BrokerUnavailable:
        return []


def _have_ended(project: Project) -> bool:
    try:
        counts = project.client.broker.count(JobFilter(), "status").numbers
    except BrokerUnavailable:
        return False
    return bool(counts) and set(counts) <= {status.value for status in ENDED}
