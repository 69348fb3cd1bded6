"""A process that is killed between any two writes loses nothing; repeating its call completes the rest."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from mrq_core import failpoints
from mrq_core.clock import after
from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import (
    Cancel,
    ChangeResult,
    Claimed,
    ClaimRequest,
    Edit,
    Limit,
    NewJob,
    Outcome,
    RawItem,
    Requeue,
    Settlement,
    Wanted,
)
from mrq_core.contract.metrics import Resolution, measured
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.testing.clock import ManualClock
from tests.embedded.kit import job, open_broker, succeed
from tests.embedded.recount import check_tables

OUTSIDE = ("write.done", "write.committed")
POINTS = ("batch.rows", "batch.totals", *OUTSIDE)
WITH_TERMS = ("batch.terms", *POINTS)
"""The points of a call that changes terms."""
QUEUES = ("q", "t/a", "t/b")
LEASE = 60.0


@dataclass
class Place:
    """One file, the broker of the test on it, and the point at which a child is killed."""

    path: Path
    clock: ManualClock
    broker: EmbeddedBroker
    point: str

    def crash(self, call: Callable[[EmbeddedBroker], object]) -> None:
        """Makes the call in a child that is killed at the point; what is left passes a recount."""
        child = os.fork()
        if child == 0:
            failpoints.hook = self._kill
            try:
                call(open_broker(self.path, clock=self.clock))
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        assert os.WIFSIGNALED(status), f"{self.point} was not reached"
        assert os.WTERMSIG(status) == signal.SIGKILL
        check_tables(self.path)

    def _kill(self, name: str) -> None:
        if name == self.point:
            os.kill(os.getpid(), signal.SIGKILL)

    @property
    def was_committed(self) -> bool:
        return self.point not in ("batch.rows", "batch.terms", "batch.totals", "raw.leases", "write.done")


@pytest.fixture
def place(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    path, clock = tmp_path / "mrq.sqlite3", ManualClock()
    with closing(open_broker(path, clock=clock)) as broker:
        broker.prepare()
        yield Place(path, clock, broker, request.param)
        check_tables(path)


def at(*points: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("place", points, indirect=True)


def jobs(*, at_most_once: bool = False) -> list[NewJob]:
    """Six jobs in three queues, three of them under a limit and with a search key."""
    return [
        job(queue, limit_keys=keys, at_most_once=at_most_once, search_keys=dict.fromkeys(keys, "value"))
        for queue in QUEUES
        for keys in ((), ("k",))
    ]


def claim_all(broker: EmbeddedBroker, *, limit: int = 10) -> Claimed:
    request = ClaimRequest(
        worker="w1",
        wanted=(Wanted(name="q"), Wanted(name="t/")),
        limit=limit,
        lease=LEASE,
        limits={"k": Limit(concurrency=2)},
    )
    return broker.claim(request)


def put_and_claim(place: Place) -> tuple[list[str], list[JobRecord]]:
    """All ids, and the jobs that run: one of the six is parked."""
    ids = [answer.id for answer in place.broker.enqueue(jobs())]
    running = list(claim_all(place.broker).records)
    assert len(running) == 5
    return ids, running


def statuses(place: Place, ids: list[str]) -> list[Status | None]:
    return [None if record is None else record.status for record in place.broker.get(ids)]


def run_all(place: Place) -> set[str]:
    """Claims and settles until nothing is left; the ids of what ran. A suspect without room pauses for a
    second."""
    done: set[str] = set()
    for _ in range(20):
        records = claim_all(place.broker).records
        if not records:
            place.clock.advance(1.0)
        assert place.broker.settle([succeed(record) for record in records]) == [True] * len(records)
        done.update(record.id for record in records)
    return done


@at(*WITH_TERMS)
def test_enqueue(place: Place) -> None:
    new = jobs()
    ids = [one.record.id for one in new]
    place.crash(lambda broker: broker.enqueue(new))
    again = place.broker.enqueue(new)
    assert [(answer.id, answer.created) for answer in again] == [(i, not place.was_committed) for i in ids]
    assert place.broker.count(JobFilter(search_keys={"k": "value"})).numbers == {"": 3}
    assert run_all(place) == set(ids)


@at(*POINTS, "claim.unsynced")
def test_claim(place: Place) -> None:
    ids = [answer.id for answer in place.broker.enqueue(jobs(at_most_once=place.point == "claim.unsynced"))]
    place.crash(claim_all)
    place.clock.advance(LEASE)
    done = run_all(place)
    if place.point == "claim.unsynced":  # what may have started is not started again
        assert len(done) == 1
        assert sorted(statuses(place, ids)) == [Status.FAILED] * 5 + [Status.SUCCESS]  # type: ignore[type-var]
    else:
        assert done == set(ids)
        records = [record for record in place.broker.get(ids) if record is not None]
        lost = {sum(attempt.lost for attempt in record.attempts) for record in records}
        assert lost == ({0, 1} if place.was_committed else {0})


@at(*POINTS)
def test_settle(place: Place) -> None:
    ids, running = put_and_claim(place)
    settlements = [succeed(record) for record in running]
    place.crash(lambda broker: broker.settle(settlements))
    assert place.broker.settle(settlements) == [True] * 5
    assert place.broker.count(JobFilter(statuses=(Status.SUCCESS,))).numbers == {"": 5}
    assert run_all(place) == set(ids) - {record.id for record in running}


FAILED = {"exception_type": "a.E", "exception_message": "no lamps", "error_group": "group"}


def fail(records: list[JobRecord], status: Status) -> list[Settlement]:
    """A failure, or a retry, of each of these jobs, with the same exception."""
    times = {"delay": 0.0} if status is Status.RETRY else {"ttl": 1000.0}
    outcome = Outcome(status=status, is_retry=status is Status.RETRY, **times, **FAILED)  # type: ignore[arg-type]
    return [Settlement(id=record.id, token=record.token or "", outcome=outcome) for record in records]


def with_error(place: Place) -> list[int]:
    """The number of jobs found by each term of the exception."""
    wanted = {"exception_types": ("E",), "error_words": ("lamps",), "error_groups": ("group",)}
    return [
        place.broker.count(JobFilter(**{name: value})).numbers[""]  # type: ignore[arg-type]
        for name, value in wanted.items()
    ]


@at(*WITH_TERMS)
def test_settle_of_failures(place: Place) -> None:
    _, running = put_and_claim(place)
    settlements = fail(running, Status.FAILED)
    place.crash(lambda broker: broker.settle(settlements))
    assert with_error(place) == [5 if place.was_committed else 0] * 3
    assert place.broker.settle(settlements) == [True] * 5
    assert with_error(place) == [5] * 3
    assert place.broker.totals().by_error_group == {"group": {Status.FAILED: 5}}


@at(*WITH_TERMS)
def test_claim_after_a_retry(place: Place) -> None:
    ids, running = put_and_claim(place)
    assert place.broker.settle(fail(running, Status.RETRY)) == [True] * 5
    place.crash(claim_all)
    assert with_error(place) == [0 if place.was_committed else 5] * 3
    place.clock.advance(LEASE)
    assert run_all(place) == set(ids)
    assert with_error(place) == [0] * 3
    assert place.broker.totals().by_error_group == {}


@at(*WITH_TERMS)
def test_requeue_of_failures(place: Place) -> None:
    _, running = put_and_claim(place)
    assert place.broker.settle(fail(running, Status.FAILED)) == [True] * 5
    ids = [record.id for record in running]
    place.crash(lambda broker: broker.requeue(ids, Requeue()))
    assert with_error(place) == [0 if place.was_committed else 5] * 3


@at(*POINTS)
def test_requeue(place: Place) -> None:
    ids, _ = put_and_claim(place)
    place.clock.advance(LEASE)
    run_all(place)
    place.crash(lambda broker: broker.requeue(ids, Requeue()))
    assert set(place.broker.requeue(ids, Requeue())) == {
        ChangeResult.REFUSED if place.was_committed else ChangeResult.DONE
    }
    assert run_all(place) == set(ids)


@at(*OUTSIDE)
def test_record_metrics(place: Place) -> None:
    metrics = [measured("jobs", place.clock.now(), (("task", task),), [1.0]) for task in "abc"]
    place.broker.record_metrics(metrics)
    place.crash(lambda broker: broker.record_metrics(metrics))
    start, end = Resolution.HOUR.start_of(place.clock.now()), after(place.clock.now(), 1)
    for resolution in Resolution:
        read = place.broker.read_metrics(["jobs"], start, end, resolution)
        assert [metric.count for metric in read] == [1 + place.was_committed] * 3


@at(*POINTS)
def test_cancel(place: Place) -> None:
    ids, running = put_and_claim(place)
    [parked] = set(ids) - {record.id for record in running}
    place.crash(lambda broker: broker.cancel(ids, Cancel()))
    again = dict(zip(ids, place.broker.cancel(ids, Cancel()), strict=True))
    assert again.pop(parked) is (ChangeResult.REFUSED if place.was_committed else ChangeResult.DONE)
    assert set(again.values()) == {ChangeResult.REQUESTED}
    assert statuses(place, [parked]) == [Status.CANCEL]


@at(*WITH_TERMS)
def test_edit(place: Place) -> None:
    ids, running = put_and_claim(place)
    [parked] = set(ids) - {record.id for record in running}
    change = Edit(id=parked, claims=0, edits=0, params={"a": 1}, search_keys={"k": "new"}, priority=2)
    place.crash(lambda broker: broker.edit([change]))
    [record] = place.broker.get([parked])
    assert record is not None
    edited = ({"a": 1}, {"k": "new"}, 2, 1)
    is_edited = (record.params, record.search_keys, record.priority, record.edits) == edited
    assert is_edited == place.was_committed
    assert place.broker.edit([change]) == [ChangeResult.REFUSED if is_edited else ChangeResult.DONE]
    assert place.broker.count(JobFilter(search_keys={"k": "new"})).numbers == {"": 1}
    place.clock.advance(LEASE)
    assert run_all(place) == set(ids)


@at(*WITH_TERMS)
def test_remove(place: Place) -> None:
    ids, running = put_and_claim(place)
    [parked] = set(ids) - {record.id for record in running}
    place.crash(lambda broker: broker.remove([parked]))
    assert place.broker.remove([parked]) == [
        ChangeResult.UNKNOWN if place.was_committed else ChangeResult.DONE
    ]
    assert place.broker.get([parked]) == [None]
    assert place.broker.count(JobFilter(search_keys={"k": "value"})).numbers == {"": 2}


@at(*OUTSIDE)
@pytest.mark.parametrize("name", ["m_raw", "m_set", "m_sorted_set", "m_timed_set"])
def test_raw_claim(place: Place, name: str) -> None:
    raw = place.broker.raw(name)
    raw.push([RawItem(param=param, score=1.0) for param in "abc"])
    place.crash(lambda broker: broker.raw(name).claim(10, LEASE, "w1"))
    place.clock.advance(LEASE)
    claims = raw.claim(10, LEASE, "w1")
    assert sorted(claim.param for claim in claims) == ["a", "b", "c"]
    assert {claim_number(claim.token) for claim in claims} == {2 if place.was_committed else 1}
    assert raw.size() == 0


@at("raw.leases", *POINTS)
def test_raw_admit(place: Place) -> None:
    raw = place.broker.raw("m_raw")
    raw.push([RawItem(param=param) for param in "abc"])
    pairs = [(claim, job("t/a", limit_keys=("k",)).record) for claim in raw.claim(10, LEASE, "w1")]
    place.crash(lambda broker: broker.raw("m_raw").admit(pairs, LEASE))
    assert raw.admit(pairs, LEASE) == [True] * 3
    place.clock.advance(LEASE)
    assert raw.claim(10, LEASE, "w1") == []
    assert run_all(place) == {claim.job_id for claim, _ in pairs}


@at(*OUTSIDE)
def test_raw_settle(place: Place) -> None:
    raw = place.broker.raw("m_set")
    raw.push([RawItem(param=param) for param in "ab"])
    claims = raw.claim(10, LEASE, "w1")
    place.crash(lambda broker: broker.raw("m_set").settle(claims, [None, 5.0]))
    assert raw.settle(claims, [None, 5.0]) == [True, True]
    place.clock.advance(5.0)
    [again] = raw.claim(10, LEASE, "w1")
    assert (again.param, again.job_id) == (claims[1].param, claims[1].job_id)


@at(*POINTS)
def test_a_call_that_fails_before_its_commit_is_undone(place: Place) -> None:
    def fail(name: str) -> None:
        if name == place.point:
            raise ConnectionAbortedError(name)

    new = jobs()
    failpoints.hook = fail
    try:
        with pytest.raises(ConnectionAbortedError):
            place.broker.enqueue(new)
    finally:
        failpoints.hook = None
    assert [answer.created for answer in place.broker.enqueue(new)] == [not place.was_committed] * 6
    assert run_all(place) == {one.record.id for one in new}
