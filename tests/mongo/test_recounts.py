"""Totals that are wrong are repaired while jobs go on, and no name of a queue with jobs is forgotten."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from msgspec.structs import replace

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.jobs import recounting
from mrq_core.contract.messages import ClaimRequest, NewJob, Outcome, Settlement, Wanted
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing import ManualClock
from tests.mongo.kit import Place, new_job
from tests.mongo.recount import check_collections, differences
from tests.support import until

QUEUES = ("a", "b", "t/c")
SECONDS = 60.0
"""Until when the numbers are about right at the latest."""
CHANGES = 15
"""By how much a number of a writer changes within a look at the most."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(place: Place, clock: ManualClock) -> Iterator[MongoBroker]:
    broker = place.open(clock)
    broker.prepare()
    yield broker
    broker.close()


class Writer:
    """Enqueues, claims, settles and removes jobs of a queue, until it is stopped."""

    def __init__(self, place: Place, clock: ManualClock, queue: str) -> None:
        self._broker = place.open(clock)
        self._queue = queue
        self._stops = False
        self._thread = threading.Thread(target=self._run)
        self.cycles = 0
        self.rest = threading.Lock()
        """The test holds this lock to keep the writer from its next cycle."""
        self._thread.start()

    def _run(self) -> None:
        while not self._stops:
            with self.rest:
                self._cycle()
                self.cycles += 1
        self._broker.close()

    def _cycle(self) -> None:
        self._broker.enqueue([job_of(self._queue) for _ in range(3)])
        request = ClaimRequest(worker="w", wanted=(Wanted(name=self._queue),), limit=2, lease=60.0)
        records = self._broker.claim(request).records
        self._broker.settle([outcome_of(record, index) for index, record in enumerate(records)])
        if self.cycles % 3 == 0:
            self._broker.remove([record.id for record in records])

    def stop(self) -> None:
        self._stops = True
        self._thread.join()


def job_of(queue: str) -> NewJob:
    return NewJob(record=replace(new_job(queue).record, path=f"p {queue}"))


def outcome_of(record: JobRecord, index: int) -> Settlement:
    failed = Outcome(status=Status.FAILED, ttl=1e6, exception_type="shop.E", error_group=f"g {record.queue}")
    outcome = failed if index else Outcome(status=Status.SUCCESS, ttl=1e6)
    return Settlement(id=record.id, token=record.token or "", outcome=outcome)


def put_wrong(broker: MongoBroker) -> None:
    """Numbers as crashes leave them, and worse: too large, too small and missing."""
    changes: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"_id": "q a"}, {"$inc": {"n.queued": 70, "n.success": -1000}}),
        ({"_id": "p p a"}, {"$inc": {"n.queued": 70, "n.success": -1000}}),
        ({"_id": "q t/c"}, {"$inc": {"n.started": 1, "n.failed": -50}}),
        ({"_id": "g g b"}, {"$inc": {"n.failed": 40}}),
        ({"_id": "q gone"}, {"$set": {"n": {"retry": 3}}}),
    ]
    for wanted, update in changes:
        broker._connection.run(
            "totals",
            lambda totals, wanted=wanted, update=update: totals.update_one(wanted, update, upsert=True),  # type: ignore[misc]
        )
    broker._connection.run("totals", lambda totals: totals.delete_one({"_id": "q b"}))


def test_wrong_numbers_are_repaired_while_jobs_are_enqueued_and_settled(
    place: Place, broker: MongoBroker, clock: ManualClock
) -> None:
    """Beside the writers the numbers become right but for their changes, and exact when the writers rest."""
    writers = [Writer(place, clock, queue) for queue in QUEUES]
    with ExitStack() as stack:
        for writer in writers:
            stack.callback(writer.stop)
        until(lambda: all(writer.cycles > 5 for writer in writers), what="jobs of all writers")
        with ExitStack() as resting:
            for writer in writers:
                resting.enter_context(writer.rest)
            put_wrong(broker)
            assert len(differences(broker._connection)) >= 9
        deadline = time.monotonic() + SECONDS
        while True:
            before = [writer.cycles for writer in writers]
            recounting.recount(broker._connection)
            until(lambda: all(one.cycles > cycles for one, cycles in zip(writers, before, strict=True)))  # noqa: B023
            with ExitStack() as resting:
                for writer in writers:
                    resting.enter_context(writer.rest)
                left = differences(broker._connection)
            if all(abs(told - counted) <= CHANGES for told, counted in left.values()):
                break
            assert time.monotonic() < deadline, left
        with ExitStack() as resting:
            for writer in writers:
                resting.enter_context(writer.rest)
            recounting.recount(broker._connection)
            assert differences(broker._connection) == {}
    check_collections(broker)


def test_a_difference_within_the_changes_of_a_number_is_left_until_it_rests() -> None:
    """A count in a busy queue is too large by jobs that come and go during it."""
    busy, more = recounting.Interval(low=1, high=3, moved=2), recounting.Interval(low=2, high=6, moved=4)
    assert not busy.is_wrong
    assert not busy.both(more).is_wrong
    larger = recounting.Interval(low=5, high=9, moved=4)
    assert larger.is_wrong
    assert larger.correction == 5
    resting = recounting.Interval(low=-1, high=-1, moved=0)
    assert resting.is_wrong
    assert resting.correction == -1
    assert not resting.both(recounting.Interval(low=0, high=0, moved=0)).is_wrong
