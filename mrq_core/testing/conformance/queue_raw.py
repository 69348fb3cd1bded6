"""Raw queues of a queue half: from a parameter to the entry of its job."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.messages import Limit, RawClaim, RawItem
from mrq_core.contract.naming import RawKind
from mrq_core.contract.pair import Entry, JobQueue, Removal
from mrq_core.contract.raw import RawParameters
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE
from mrq_core.testing.conformance.queue_kit import (
    TOKEN,
    QueuePart,
    claim,
    entry_of,
    ids_of,
    put,
    put_many,
    take,
)

KINDS = list(RawKind)


def name_of(kind: RawKind) -> str:
    return f"urls{kind}"


def taken(line: RawParameters, clock: ManualClock, *params: str) -> list[RawClaim]:
    """Pushes parameters that are due, and claims them."""
    score = clock.now_ms() / 1000 - 10
    line.push([RawItem(param=param, score=score) for param in params])
    claims = line.claim(len(params), LEASE, "w1")
    assert sorted(one.param for one in claims) == sorted(params)
    return claims


def started(one: RawClaim, **fields: object) -> Entry:
    """The entry of the job that is made of a parameter."""
    values: dict[str, object] = {"queue": "jobs", "version": 1, "due_at": None, **fields}
    return Entry(id=one.job_id, token=one.token, claims=1, **values)  # type: ignore[arg-type]


class AdmitContract(QueuePart):
    """What raw, admit and is_leased promise, whatever the kind."""

    @pytest.fixture(params=KINDS)
    def name(self, request: pytest.FixtureRequest) -> str:
        kind: RawKind = request.param
        return name_of(kind)

    def test_a_parameter_is_leased_until_its_job_is_admitted(
        self, queue: JobQueue, clock: ManualClock, name: str
    ) -> None:
        line = queue.raw(name)
        first, second = taken(line, clock, "a", "b")
        ids = [first.job_id, "0" * 24, second.job_id]
        assert queue.is_leased(name, ids) == [True, False, True]
        assert queue.admit(name, [(first, started(first))], LEASE) == [True]
        assert queue.is_leased(name, ids) == [False, False, True]
        assert queue.is_leased("other_raw", ids) == [False, False, False]
        assert queue.is_leased(name, []) == []

    def test_an_admitted_entry_is_claimed_to_the_end_of_the_lease(
        self, queue: JobQueue, clock: ManualClock, name: str
    ) -> None:
        [one] = taken(queue.raw(name), clock, "a")
        clock.advance(10)
        entry = started(one, priority=2, version=3, limit_keys=("rule",))
        assert queue.admit(name, [(one, entry)], LEASE) == [True]
        found = entry_of(queue, one.job_id)
        assert replace(found, claims=1) == replace(entry, due_at=after(clock.now(), LEASE))
        assert (queue.counts(["jobs"])[0].claimed, queue.queue_names("jobs")) == (1, ["jobs"])
        put(queue, "jobs", limit_keys=("rule",))
        assert take(queue, "jobs", limits={"rule": Limit(concurrency=1)}) == []
        clock.advance(LEASE)
        assert one.job_id in ids_of(claim(queue, "jobs").suspects)

    def test_an_admitted_parameter_is_not_delivered_again(
        self, queue: JobQueue, clock: ManualClock, name: str
    ) -> None:
        line = queue.raw(name)
        claims = taken(line, clock, "a", "b")
        assert queue.admit(name, [(one, started(one)) for one in claims], LEASE) == [True, True]
        clock.advance(LEASE * 2)
        assert line.claim(10, LEASE, "w2") == []
        assert line.renew(claims, LEASE) == [False, False]

    def test_admitting_again_is_done_already(self, queue: JobQueue, clock: ManualClock, name: str) -> None:
        [one] = taken(queue.raw(name), clock, "a")
        assert queue.admit(name, [(one, started(one))] * 2, LEASE) == [True, True]
        before = entry_of(queue, one.job_id)
        clock.advance(1)
        assert queue.admit(name, [(one, started(one))], LEASE) == [True]
        assert entry_of(queue, one.job_id) == before

    def test_admitting_is_refused_where_another_worker_has_claimed_the_parameter(
        self, queue: JobQueue, clock: ManualClock, name: str
    ) -> None:
        line = queue.raw(name)
        [one] = taken(line, clock, "a")
        clock.advance(LEASE)
        [again] = line.claim(1, LEASE, "w2")
        assert (again.job_id, again.redelivered) == (one.job_id, True)
        assert queue.admit(name, [(one, started(one))], LEASE) == [False]
        assert queue.entries([one.job_id]) == [None]
        assert queue.is_leased(name, [one.job_id]) == [True]
        assert queue.admit(name, [(again, started(again, version=2))], LEASE) == [True]
        assert entry_of(queue, one.job_id).token == again.token

    def test_admitting_replaces_an_entry_of_an_earlier_version(
        self, queue: JobQueue, clock: ManualClock, name: str
    ) -> None:
        [one] = taken(queue.raw(name), clock, "a")
        queue.push([Entry(id=one.job_id, queue="other", version=1, due_at=None, token=TOKEN)], LEASE)
        assert queue.admit(name, [(one, started(one, version=2))], LEASE) == [True]
        entry = entry_of(queue, one.job_id)
        assert (entry.queue, entry.token, entry.version) == ("jobs", one.token, 2)
        assert [counts.claimed for counts in queue.counts(["other", "jobs"])] == [0, 1]

    def test_a_visited_parameter_stays_in_its_set_when_its_job_is_admitted(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        name = name_of(RawKind.TIMED_SET)
        line = queue.raw(name)
        line.push([RawItem(param="a", score=0.0)])
        [one] = line.claim(1, LEASE, "w1", 5.0)
        assert queue.admit(name, [(one, started(one))], LEASE) == [True]
        assert queue.admit(name, [(one, started(one))], LEASE) == [True]
        clock.advance(5)
        [again] = line.claim(1, LEASE, "w1", 5.0)
        assert (again.param, again.job_id != one.job_id) == ("a", True)
        assert queue.remove([Removal(id=one.job_id, version=1)]) == [True]

    def test_parameters_are_looked_at_and_removed(
        self, queue: JobQueue, clock: ManualClock, name: str
    ) -> None:
        line = queue.raw(name)
        line.push([RawItem(param=param, score=1.0) for param in "ab"])
        assert line.size() == 2
        assert sorted(item.param for item in line.peek(10)) == ["a", "b"]
        assert line.remove(["a", "c"]) == [True, False]
        [one] = line.claim(10, LEASE, "w1")
        assert line.renew([one], LEASE * 2) == [True]
        assert line.settle([one], [None]) == [True]
        assert line.size() == sum(line.histogram(0.0, 10.0, 2)) == 0

    def test_entries_and_parameters_are_apart(self, queue: JobQueue, clock: ManualClock, name: str) -> None:
        put_many(queue, 2)
        queue.raw(name).push([RawItem(param="a", score=1.0)])
        assert queue.counts([name])[0].waiting == 0
        assert take(queue, name) == []
        assert queue.queue_names() == ["q", name]
