"""A process that is killed between any two calls of the server loses nothing; repeating work does no harm.

Each change is one script, so a crash falls between two of them. The points are before and after each script.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator

import pytest

from mrq_broker_redis.broker import RedisBroker
from mrq_core import failpoints
from mrq_core.clock import from_ms
from mrq_core.contract.messages import (
    Cancel,
    Claimed,
    ClaimRequest,
    JobFilter,
    Limit,
    NewJob,
    Outcome,
    RawItem,
    Requeue,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from tests.redis.kit import Place, open_broker
from tests.redis.recount import check_keys

LEASE = 60.0
QUEUES = ("q", "t/a", "t/b")


class Scene:
    """Keys with jobs in every state, and a call that is cut off."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.clock = ManualClock()
        self.broker = open_broker(place, self.clock)
        self.broker.prepare()
        self.jobs = [self.new_job(queue, limited) for queue in QUEUES for limited in (False, True)]

    def new_job(self, queue: str, limited: bool = False, unique: str | None = None) -> NewJob:
        now = from_ms(self.clock.now_ms())
        record = JobRecord(
            id=new_id(),
            path="t.Task",
            params={"n": 1},
            queue=queue,
            queued_at=now,
            updated_at=now,
            limit_keys=("k",) if limited else (),
        )
        return NewJob(record=record, unique=None if unique is None else Unique(key=unique))

    def claim(self, broker: RedisBroker, idle: bool = True) -> Claimed:
        request = ClaimRequest(
            worker="w",
            wanted=(Wanted(name="q"), Wanted(name="t/")),
            limit=10,
            lease=LEASE,
            idle=idle,
            max_lost_claims=100,
            limits={"k": Limit(concurrency=2)},
        )
        return broker.claim(request)

    def crash(self, call: Callable[[RedisBroker], object], point: str) -> None:
        """Makes the call in a child that is killed at the point; what is left passes a recount."""
        child = os.fork()
        if child == 0:
            failpoints.hook = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == point else None
            try:
                call(open_broker(self.place, self.clock))
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), f"{point} was not reached"
        check_keys(self.broker)

    def run_all(self) -> dict[str, Status]:
        """Runs what is left, and says how every job has ended."""
        for _ in range(40):
            records = self.claim(self.broker).records
            if not records:
                self.clock.advance(LEASE + 1)
            for record in records:
                assert self.broker.settle([succeeded(record)]) == [True]
        check_keys(self.broker)
        return {record.id: record.status for record in self.broker.find(JobFilter(), limit=1000).records}


def succeeded(record: JobRecord) -> Settlement:
    outcome = Outcome(status=Status.SUCCESS, ttl=1e6)
    return Settlement(id=record.id, token=record.token or "", outcome=outcome)


def failed(record: JobRecord) -> Settlement:
    outcome = Outcome(status=Status.FAILED, ttl=1e6, exception_type="E")
    return Settlement(id=record.id, token=record.token or "", outcome=outcome)


@pytest.fixture
def scene(place: Place) -> Iterator[Scene]:
    scene = Scene(place)
    yield scene
    scene.broker.close()


@pytest.mark.parametrize(
    "point", ["enqueue.before", "enqueue.after", "enqueue_each.before", "enqueue_each.after"]
)
def test_an_enqueue_that_was_cut_off_is_repeated(scene: Scene, point: str) -> None:
    is_ordinary = point.startswith("enqueue.")
    jobs = [scene.new_job("q", unique=None if is_ordinary else f"u{number}") for number in range(250)]
    scene.crash(lambda broker: broker.enqueue(jobs), point)
    assert [answer.id for answer in scene.broker.enqueue(jobs)] == [job.record.id for job in jobs]
    assert scene.broker.totals().by_status() == {Status.QUEUED: 250}


@pytest.mark.parametrize("point", ["claim.before", "claim.after"])
def test_a_claim_that_was_cut_off_costs_a_lease(scene: Scene, point: str) -> None:
    scene.broker.enqueue(scene.jobs)
    scene.crash(scene.claim, point)
    assert set(scene.run_all().values()) == {Status.SUCCESS}
    assert len(scene.run_all()) == len(scene.jobs)


@pytest.mark.parametrize("point", ["read.before", "read.after", "replace.before", "replace.after"])
def test_a_claim_of_a_suspect_that_was_cut_off_costs_another_lease(scene: Scene, point: str) -> None:
    scene.broker.enqueue(scene.jobs)
    running = scene.claim(scene.broker).records
    scene.broker.cancel([running[0].id], Cancel())
    scene.clock.advance(LEASE + 1)
    scene.crash(scene.claim, point)
    ended = scene.run_all()
    assert ended.pop(running[0].id) is Status.CANCEL
    assert set(ended.values()) == {Status.SUCCESS}


@pytest.mark.parametrize(
    "point", ["settle.before", "settle.after", "read.before", "read.after", "replace.before", "replace.after"]
)
def test_a_settle_that_was_cut_off_is_repeated(scene: Scene, point: str) -> None:
    scene.broker.enqueue(scene.jobs)
    running = scene.claim(scene.broker).records
    half = len(running) // 2
    settlements = [*map(succeeded, running[:half]), *map(failed, running[half:])]
    scene.crash(lambda broker: broker.settle(settlements), point)
    assert scene.broker.settle(settlements) == [True] * len(running)
    ended = scene.run_all()
    for record in running[:half]:
        assert ended[record.id] is Status.SUCCESS
    for record in running[half:]:
        assert ended[record.id] is Status.FAILED
    assert {record.claims for record in scene.broker.get([one.id for one in running]) if record} == {1}


@pytest.mark.parametrize("point", ["read.before", "read.after", "replace.before", "replace.after"])
def test_follow_ups_are_there_with_their_parent_or_not_at_all(scene: Scene, point: str) -> None:
    scene.broker.enqueue([scene.new_job("q")])
    [record] = scene.claim(scene.broker).records
    children = tuple(scene.new_job("t/a") for _ in range(3))
    outcome = Outcome(status=Status.SUCCESS, ttl=1e6, followups=children)
    settlement = Settlement(id=record.id, token=record.token or "", outcome=outcome)
    scene.crash(lambda broker: broker.settle([settlement]), point)
    [parent] = scene.broker.get([record.id])
    assert parent is not None
    there = [child is not None for child in scene.broker.get([child.record.id for child in children])]
    assert there == [parent.status is Status.SUCCESS] * 3
    assert scene.broker.settle([settlement]) == [True]
    assert set(scene.run_all().values()) == {Status.SUCCESS}


@pytest.mark.parametrize("point", ["read.after", "replace.before", "replace.after"])
def test_changes_by_people_that_were_cut_off_are_made_or_not(scene: Scene, point: str) -> None:
    scene.broker.enqueue(scene.jobs)
    ids = [job.record.id for job in scene.jobs]
    scene.crash(lambda broker: broker.cancel(ids, Cancel()), point)
    expected = Status.CANCEL if point == "replace.after" else Status.QUEUED
    assert {record.status for record in scene.broker.get(ids) if record} == {expected}
    scene.broker.cancel(ids, Cancel())
    scene.crash(lambda broker: broker.requeue(ids, Requeue()), point)
    scene.broker.requeue(ids, Requeue())
    assert set(scene.run_all().values()) == {Status.SUCCESS}


@pytest.mark.parametrize("point", ["raw_claim.after", "raw_admit.before", "raw_admit.after"])
def test_a_parameter_is_neither_lost_nor_made_two_jobs(scene: Scene, point: str) -> None:
    raw = scene.broker.raw("urls_set")
    raw.push([RawItem(param="a")])

    def take(broker: RedisBroker) -> None:
        queue = broker.raw("urls_set")
        claims = queue.claim(5, LEASE, "w")
        queue.admit([(claim, scene.new_job("q").record) for claim in claims], LEASE)

    scene.crash(take, point)
    scene.clock.advance(LEASE + 1)
    take(scene.broker)
    scene.clock.advance(LEASE + 1)
    assert list(scene.run_all().values()) == [Status.SUCCESS]
    assert raw.size() == 0


@pytest.mark.parametrize("point", ["prune.before", "prune.after"])
def test_pruning_that_was_cut_off_goes_on(scene: Scene, point: str) -> None:
    scene.broker.enqueue(scene.jobs)
    scene.run_all()
    scene.clock.advance(2e6)
    scene.crash(lambda broker: broker.prune(3), point)
    while scene.broker.prune(3):
        pass
    check_keys(scene.broker)
    assert scene.broker.totals().by_status() == {}
