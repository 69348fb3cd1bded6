"""Positions of waiting jobs in their queues, and the use of limit keys."""

from __future__ import annotations

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, MOST_AHEAD, MOST_NAMED, Cancel, Limit
from mrq_core.contract.queries import KeyUse, QueuePosition
from mrq_core.contract.record import WAITING, Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    LEASE,
    Contract,
    bring_to,
    claim,
    lose,
    put,
    put_many,
    record_of,
    settle,
    take,
    take_one,
)

ONE = {"rule": Limit(concurrency=1)}
KEYS = ("rule",)
ODD = ["a b,c", "q\n", "ü/", "t/x y/z", "w:0:q", "{q}", "%s"]


def ahead(broker: Broker, job_id: str) -> int:
    return position(broker, job_id).ahead


def position(broker: Broker, job_id: str) -> QueuePosition:
    """The position of a job that must have a position."""
    found = broker.queue_position(job_id)
    assert found is not None
    return found


class PositionContract(Contract):
    """What queue_position promises."""

    # --- the number of jobs ahead ----------------------------------------------------------------

    def test_jobs_are_ahead_in_the_order_of_claims(self, broker: Broker, clock: ManualClock) -> None:
        ids = [
            put(broker, clock, priority=priority, delay=delay)
            for delay in (0.0, 0.002, 0.001)
            for priority in (0, 4, -4, 1)
        ]
        put_many(broker, clock, 3, "other")
        clock.advance(1)
        expected = {job_id: ahead(broker, job_id) for job_id in ids}
        assert sorted(expected.values()) == list(range(12))
        assert take(broker, limit=100) == sorted(ids, key=expected.__getitem__)

    def test_a_claimed_job_is_not_ahead(self, broker: Broker, clock: ManualClock) -> None:
        first, second, third = put_many(broker, clock, 3)
        assert (ahead(broker, second), ahead(broker, third)) == (1, 2)
        assert take_one(broker).id == first
        assert (ahead(broker, second), ahead(broker, third)) == (0, 1)
        lose(clock)
        assert (ahead(broker, second), ahead(broker, third)) == (0, 1)
        broker.cancel([second], Cancel())
        assert ahead(broker, third) == 0

    def test_a_larger_priority_that_is_due_later_is_not_ahead(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        now = put(broker, clock)
        later = put(broker, clock, delay=10.0)
        urgent = put(broker, clock, priority=1, delay=5.0)
        assert (ahead(broker, now), ahead(broker, later), ahead(broker, urgent)) == (0, 2, 0)
        clock.advance(5)
        assert (ahead(broker, now), ahead(broker, later)) == (1, 2)
        found = position(broker, later)
        assert (found.due_at, found.is_exact, found.keys) == (after(clock.now(), 5.0), True, ())

    @pytest.mark.parametrize("name", ODD)
    def test_a_queue_may_have_any_name(self, broker: Broker, clock: ManualClock, name: str) -> None:
        ids = put_many(broker, clock, 3, name)
        put_many(broker, clock, 2, "q")
        assert [ahead(broker, job_id) for job_id in ids] == [0, 1, 2]

    @pytest.mark.parametrize("status", list(Status))
    def test_only_waiting_jobs_have_a_position(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = bring_to(broker, clock, status)
        found = broker.queue_position(job_id)
        if status in WAITING:
            assert found == QueuePosition(ahead=0, due_at=record_of(broker, job_id).due_at)
        else:
            assert found is None

    def test_an_unknown_job_has_no_position(self, broker: Broker, clock: ManualClock) -> None:
        assert broker.queue_position("0" * 24) is None
        assert broker.queue_position("no id at all") is None
        interrupted = bring_to(broker, clock, Status.STARTED, at_most_once=True)
        settle(broker, record_of(broker, interrupted), Status.INTERRUPT, ttl=100.0)
        assert broker.queue_position(interrupted) is None

    def test_many_jobs_are_counted_up_to_a_bound(self, broker: Broker, clock: ManualClock) -> None:
        for _ in range(MOST_AHEAD // CHUNK):
            put_many(broker, clock, CHUNK)
        last, more = put(broker, clock), put(broker, clock)
        found = position(broker, last)
        assert (found.ahead, found.is_exact) == (MOST_AHEAD, True)
        found = position(broker, more)
        assert found.ahead == MOST_AHEAD + 1 if found.is_exact else found.ahead >= MOST_AHEAD

    # --- limits ----------------------------------------------------------------------------------

    def test_a_parked_job_tells_its_key_and_the_jobs_before_it(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        _skip_without_limits(self)
        first = put(broker, clock, limit_keys=KEYS)
        assert take(broker, limits=ONE) == [first]
        clock.advance(1)
        second = put(broker, clock, limit_keys=KEYS)
        assert take(broker, limits=ONE) == []
        parked_at = clock.now()
        clock.advance(1)
        third, urgent = put(broker, clock, limit_keys=KEYS), put(broker, clock, limit_keys=KEYS, priority=2)
        assert take(broker, limits=ONE) == []
        use = KeyUse(key="rule", running=1, holders=(first,), parked=3, waiters=(urgent, second, third))
        assert position(broker, second) == QueuePosition(
            ahead=1, due_at=None, parked_under="rule", parked_since=parked_at, keys=(use,)
        )
        assert (ahead(broker, urgent), ahead(broker, third)) == (0, 2)
        other = put(broker, clock)
        assert position(broker, other) == QueuePosition(ahead=0, due_at=clock.now())

    def test_all_keys_of_a_parked_job_are_told(self, broker: Broker, clock: ManualClock) -> None:
        _skip_without_limits(self)
        limits = {"a": Limit(concurrency=1), "b": Limit(concurrency=1)}
        holds_a = put(broker, clock, limit_keys=("a:x y",))
        holds_b = put(broker, clock, limit_keys=("b", "b"))
        assert take(broker, limits=limits) == [holds_a, holds_b]
        both = put(broker, clock, limit_keys=("a:x y", "b", "free"))
        assert take(broker, limits=limits) == []
        found = position(broker, both)
        assert found.parked_under == "a:x y"
        assert found.keys == (
            KeyUse(key="a:x y", running=1, holders=(holds_a,), parked=1, waiters=(both,)),
            KeyUse(key="b", running=1, holders=(holds_b,), parked=0, waiters=()),
            KeyUse(key="free", running=0, holders=(), parked=0, waiters=()),
        )

    def test_a_holder_holds_until_its_lease_ends(self, broker: Broker, clock: ManualClock) -> None:
        _skip_without_limits(self)
        put_many(broker, clock, 2, limit_keys=("other",))
        waits = put(broker, clock, limit_keys=KEYS, delay=1000.0)
        assert len(take(broker)) == 2
        first = put(broker, clock, limit_keys=KEYS)
        assert take(broker, limits=ONE) == [first]
        [use] = position(broker, waits).keys
        assert (use.running, use.holders) == (1, (first,))
        clock.advance(LEASE)
        [use] = position(broker, waits).keys
        assert (use.running, use.holders) == (0, ())

    def test_long_lists_are_cut_and_counted(self, broker: Broker, clock: ManualClock) -> None:
        _skip_without_limits(self)
        limits = {"rule": Limit(concurrency=MOST_NAMED + 5)}
        ids = put_many(broker, clock, 2 * MOST_NAMED + 10, limit_keys=KEYS)
        running = [record.id for record in claim(broker, limit=100, limits=limits).records]
        assert len(running) == MOST_NAMED + 5
        parked = sorted({*ids} - {*running})
        [use] = position(broker, parked[-1]).keys
        assert (use.running, use.parked) == (MOST_NAMED + 5, MOST_NAMED + 5)
        assert use.waiters == tuple(parked[:MOST_NAMED])
        assert len(use.holders) == MOST_NAMED
        assert {*use.holders} <= {*running}

    def test_a_job_that_a_rate_pushed_back_tells_until_when(self, broker: Broker, clock: ManualClock) -> None:
        _skip_without_limits(self)
        slow = {"rule": Limit(rate=1, per=10.0)}
        first, second = put_many(broker, clock, 2, limit_keys=KEYS)
        assert position(broker, second).allowed_at is None
        assert take(broker, limits=slow) == [first]
        allowed_at = after(clock.now(), 10.0)
        found = position(broker, second)
        assert (found.ahead, found.due_at, found.allowed_at) == (0, allowed_at, allowed_at)
        clock.advance(10)
        assert position(broker, second).allowed_at is None


def _skip_without_limits(contract: Contract) -> None:
    if not contract.supports_limits:
        pytest.skip("this driver has no limits")
