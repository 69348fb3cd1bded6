"""Rates that let jobs start far ahead: such jobs are parked, and go on when the rule changes."""

from __future__ import annotations

from typing import Any

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, ChangeResult, Edit, Limit, Move, Requeue
from mrq_core.contract.queries import KeyUse, QueuePosition
from mrq_core.contract.record import Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    Contract,
    claim,
    put,
    put_many,
    record_of,
    run_in_threads,
    settle,
    take,
    take_one,
)

SLOW = {"rule": Limit(rate=1, per=600.0)}
FAST = {"rule": Limit(rate=100, per=1.0)}
KEYS = ("rule",)
THREADS = 8


def position(broker: Broker, job_id: str) -> QueuePosition:
    found = broker.queue_position(job_id)
    assert found is not None
    return found


def use_of(broker: Broker, job_id: str, key: str = "rule") -> KeyUse:
    """The use of one of the limit keys of a waiting job."""
    return next(use for use in position(broker, job_id).keys if use.key == key)


def take_within(broker: Broker, clock: ManualClock, seconds: float, *wanted: str, **more: Any) -> list[str]:
    """The jobs that claims take within a time, in their order. Each job has a long lease."""
    taken = []
    for _ in range(20):
        taken += take(broker, *wanted, **{"limit": 100, "lease": 100_000.0, **more})
        clock.advance(seconds / 20)
    return taken


def starts_of(broker: Broker, clock: ManualClock, seconds: int, limits: dict[str, Limit]) -> dict[str, float]:
    """The jobs that start, with the times of their starts, if a claim comes each second. Each job ends at
    once."""
    starts = {}
    for second in range(seconds + 1):
        for record in claim(broker, limit=5, limits=limits).records:
            starts[record.id] = float(second)
            assert settle(broker, record, ttl=100_000.0)
        clock.advance(1)
    return starts


class RateHorizonContract(Contract):
    """What claim promises where a rate lets jobs start more than RATE_HORIZON_MS ahead."""

    @pytest.fixture(autouse=True)
    def _needs_limits(self) -> None:
        if not self.supports_limits:
            pytest.skip("this driver has no limits")

    def test_a_job_beyond_the_horizon_is_parked_and_not_charged(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        began = clock.now()
        first, *others = put_many(broker, clock, 20, limit_keys=KEYS)
        assert take(broker, limit=100, limits=SLOW) == [first]
        for job_id in others:
            record = record_of(broker, job_id)
            assert (record.status, record.due_at, record.claims) == (Status.QUEUED, None, 0)
        found = position(broker, others[3])
        assert (found.ahead, found.parked_under, found.parked_since) == (3, "rule", began)
        assert found.allowed_at is None
        use = use_of(broker, others[3])
        assert (use.running, use.parked, use.even_at) == (1, 19, after(began, 600.0))

    def test_parked_jobs_start_in_their_order_at_the_times_of_the_rate(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        limits = {"rule": Limit(rate=2, per=200.0)}
        ids = put_many(broker, clock, 5, limit_keys=KEYS)
        clock.advance(1)
        [urgent] = put_many(broker, clock, 1, limit_keys=KEYS, priority=4)
        assert starts_of(broker, clock, 400, limits) == {
            urgent: 0.0,
            ids[0]: 0.0,
            ids[1]: 100.0,
            ids[2]: 200.0,
            ids[3]: 300.0,
            ids[4]: 400.0,
        }

    def test_next_due_is_the_time_at_which_the_next_job_is_let_go(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        began = clock.now()
        _, second, third = put_many(broker, clock, 3, limit_keys=KEYS)
        assert settle(broker, take_one(broker, limits=SLOW), ttl=100_000.0)
        assert claim(broker, limits=SLOW).next_due == after(began, 540.0)
        clock.advance(539.999)
        assert take(broker, limits=SLOW) == []
        assert position(broker, second).parked_under == "rule"
        clock.advance(0.001)
        assert take(broker, limits=SLOW) == []
        assert claim(broker, limits=SLOW).next_due == after(began, 600.0)
        assert record_of(broker, second).due_at == after(began, 600.0)
        assert record_of(broker, third).due_at is None
        clock.advance(60)
        assert take(broker, limits=SLOW) == [second]

    def test_a_higher_rate_lets_parked_jobs_go_at_once(self, broker: Broker, clock: ManualClock) -> None:
        first, *others = put_many(broker, clock, 20, limit_keys=KEYS)
        assert take_within(broker, clock, 0.0, limits=SLOW) == [first]
        clock.advance(5)
        [late] = put_many(broker, clock, 1, limit_keys=KEYS)
        assert take_within(broker, clock, 1.0, limits=FAST) == [*others, late]

    def test_a_later_job_does_not_pass_parked_jobs(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"rule": Limit(rate=1, per=100.0)}
        ids = put_many(broker, clock, 3, limit_keys=KEYS)
        starts: list[str] = []
        for _ in range(350):
            clock.advance(1)
            if len(ids) < 10:
                ids += put_many(broker, clock, 1, limit_keys=KEYS)
            for record in claim(broker, limit=5, limits=limits).records:
                starts.append(record.id)
                assert settle(broker, record, ttl=100_000.0)
        assert starts == ids[:4]

    def test_without_the_rule_parked_jobs_go_at_once(self, broker: Broker, clock: ManualClock) -> None:
        first, *others = put_many(broker, clock, 20, limit_keys=KEYS)
        assert take_within(broker, clock, 0.0, limits=SLOW) == [first]
        assert take_within(broker, clock, 0.0) == others

    def test_a_rule_that_keeps_only_its_concurrency_lets_parked_jobs_go(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        first, *others = put_many(broker, clock, 5, limit_keys=KEYS)
        assert take_within(broker, clock, 0.0, limits=SLOW) == [first]
        assert take_within(broker, clock, 0.0, limits={"rule": Limit(concurrency=3)}) == others[:2]

    def test_a_job_that_is_pushed_back_keeps_its_time_under_a_changed_rule(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        limits = {"rule": Limit(rate=1, per=25.0)}
        ids = put_many(broker, clock, 6, limit_keys=KEYS)
        began = clock.now()
        assert take_within(broker, clock, 0.0, limits=limits) == ids[:1]
        due = [record_of(broker, job_id).due_at for job_id in ids[1:]]
        assert due == [after(began, 25.0), after(began, 50.0), None, None, None]
        assert take_within(broker, clock, 1.0, limits=FAST) == ids[3:]
        clock.advance(24)
        assert take(broker, limits=FAST) == ids[1:2]
        clock.advance(25)
        assert take(broker, limits=FAST) == ids[2:3]

    def test_a_changed_rule_cuts_the_time_of_its_rate_to_one_interval(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        hourly, faster = {"rule": Limit(rate=1, per=3600.0)}, {"rule": Limit(rate=1, per=100.0)}
        _, *others = put_many(broker, clock, 3, limit_keys=KEYS)
        assert settle(broker, take_one(broker, limits=hourly), ttl=100_000.0)
        clock.advance(10)
        assert starts_of(broker, clock, 200, faster) == {others[0]: 100.0, others[1]: 200.0}

    def test_a_slower_rule_keeps_the_time_of_its_rate(self, broker: Broker, clock: ManualClock) -> None:
        began = clock.now()
        ids = put_many(broker, clock, 3, limit_keys=KEYS)
        assert take(broker, limits={"rule": Limit(rate=1, per=30.0)}, lease=1000.0) == ids[:1]
        [late] = put_many(broker, clock, 1, limit_keys=KEYS)
        assert take(broker, limits=SLOW) == []
        assert use_of(broker, late).even_at == after(began, 90.0)

    def test_a_settle_leaves_jobs_beyond_the_horizon_parked_in_their_order(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        began = clock.now()
        limits = {"rule": Limit(rate=2, per=2000.0)}
        ids = put_many(broker, clock, 6, limit_keys=KEYS)
        records = claim(broker, limits=limits).records
        for record in records:
            clock.advance(1)
            assert settle(broker, record, ttl=100_000.0)
            assert take(broker, limits=limits) == []
        assert use_of(broker, ids[2]).waiters == tuple(ids[2:])
        assert [position(broker, job_id).parked_since for job_id in ids[2:]] == [began] * 4

    def test_a_lost_lease_leaves_jobs_beyond_the_horizon_parked_in_their_order(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        first, *others = put_many(broker, clock, 4, limit_keys=KEYS)
        assert take(broker, limits=SLOW, lease=30.0) == [first]
        clock.advance(31)
        assert take(broker, "other", limits=SLOW) == []
        assert take(broker, limits=SLOW, lease=30.0) == [first]
        assert use_of(broker, others[0]).waiters == tuple(others)

    def test_of_several_rates_none_is_charged_for_a_job_beyond_the_horizon(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        limits = {"slow": Limit(rate=1, per=600.0), "fast": Limit(rate=1, per=10.0)}
        began = clock.now()
        first, second, third = put_many(broker, clock, 3, limit_keys=("fast", "slow"))
        assert take(broker, limits=limits, lease=1000.0) == [first]
        assert position(broker, second).parked_under == "slow"
        assert use_of(broker, second, "fast").even_at == after(began, 10.0)
        assert use_of(broker, third, "slow").even_at == after(began, 600.0)
        [only_fast] = put_many(broker, clock, 1, limit_keys=("fast",))
        clock.advance(10)
        assert take(broker, limits=limits) == [only_fast]

    def test_concurrency_and_a_slow_rate_hold_together(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"rule": Limit(concurrency=1, rate=1, per=100.0)}
        ids = put_many(broker, clock, 4, limit_keys=KEYS)
        assert starts_of(broker, clock, 300, limits) == dict(
            zip(ids, (0.0, 100.0, 200.0, 300.0), strict=True)
        )

    def test_a_full_concurrency_hides_the_time_of_the_rate_from_next_due(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        limits = {"rule": Limit(concurrency=1, rate=1, per=100.0)}
        put_many(broker, clock, 3, limit_keys=KEYS)
        running = take_one(broker, limits=limits, lease=1000.0)
        clock.advance(200)
        for _ in range(3):
            assert claim(broker, limits=limits).next_due == running.lease_until

    def test_parked_jobs_are_moved_edited_cancelled_and_requeued(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = put_many(broker, clock, 6, limit_keys=KEYS)
        _, moved, cancelled, urgent, again, last = ids
        assert take(broker, limits=SLOW, lease=100_000.0) == ids[:1]
        assert broker.move([moved], Move(queue="other")) == [ChangeResult.DONE]
        assert broker.cancel([cancelled, again], Cancel(ttl=100_000.0)) == [ChangeResult.DONE] * 2
        clock.advance(1)
        assert broker.requeue([again], Requeue()) == [ChangeResult.DONE]
        record = record_of(broker, urgent)
        edit = Edit(id=urgent, claims=0, edits=record.edits, priority=3)
        assert broker.edit([edit]) == [ChangeResult.DONE]
        assert take(broker, limits=SLOW) == []
        assert use_of(broker, last).waiters == (urgent, moved, last, again)
        assert take_within(broker, clock, 0.1, limits=FAST) == [urgent, last, again]
        assert take_within(broker, clock, 0.1, "other", limits=FAST) == [moved]

    def test_a_parked_job_with_a_new_due_time_is_charged_when_it_is_due(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        limits = {"rule": Limit(rate=1, per=100.0)}
        first, second = put_many(broker, clock, 2, limit_keys=KEYS)
        assert take(broker, limits=limits, lease=1000.0) == [first]
        record = record_of(broker, second)
        assert broker.edit([Edit(id=second, claims=0, edits=record.edits, delay=70.0)]) == [ChangeResult.DONE]
        assert take(broker, limits=limits) == []
        clock.advance(70)
        assert take(broker, limits=limits) == []
        assert record_of(broker, second).due_at == after(clock.now(), 30.0)

    def test_many_parked_jobs_are_let_go_in_order_in_bounded_steps(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        limits = {"rule": Limit(rate=1000, per=1.0)}
        ids = put_many(broker, clock, 250, limit_keys=KEYS)
        for _ in range(4):
            take(broker, limits=SLOW, limit=1, lease=100_000.0)
        taken = []
        for _ in range(100):
            taken += take(broker, limits=limits, limit=10, lease=100_000.0)
            clock.advance(0.05)
        assert taken == ids[1:]

    def test_a_rate_is_exact_and_jobs_beyond_it_are_parked_under_eight_claimers(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        limits = {"rule": Limit(rate=5, per=3000.0)}
        ids = put_many(broker, clock, 20, limit_keys=KEYS)
        taken: list[str] = []
        run_in_threads(
            lambda name: taken.extend(take(broker, limit=3, worker=name, limits=limits)),
            [(f"w{number}",) for number in range(THREADS)],
        )
        assert len(taken) == len(set(taken)) == 5
        waiting = put(broker, clock, limit_keys=KEYS)
        assert take(broker, limits=limits) == []
        use = use_of(broker, waiting)
        assert (use.running, use.parked) == (5, len(ids) - 4)
        assert use.even_at == after(clock.now(), 3000.0)
