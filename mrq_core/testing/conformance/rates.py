"""Limits on the rate of claims: the burst, the turns, and that each job is pushed back once."""

from __future__ import annotations

from random import Random

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import ChangeResult, Limit, Move
from mrq_core.contract.record import Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    Contract,
    bring_to,
    claim,
    put,
    put_many,
    record_of,
    run_in_threads,
    settle,
    take,
    take_one,
)

TWO_A_TEN = {"rule": Limit(rate=2, per=10.0)}
KEYS = ("rule",)
THREADS = 8


class RateContract(Contract):
    """What claim promises where the rate of claims is limited."""

    @pytest.fixture(autouse=True)
    def _needs_limits(self) -> None:
        if not self.supports_limits:
            pytest.skip("this driver has no limits")

    def test_a_burst_starts_at_once_and_the_others_at_their_turns(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = put_many(broker, clock, 4, limit_keys=KEYS)
        assert take(broker, limits=TWO_A_TEN) == ids[:2]
        third, fourth = (record_of(broker, job_id) for job_id in ids[2:])
        assert (third.due_at, fourth.due_at) == (after(clock.now(), 5.0), after(clock.now(), 10.0))
        assert (third.status, third.claims, third.history) == (Status.QUEUED, 0, ())
        clock.advance(4.999)
        assert take(broker, limits=TWO_A_TEN) == []
        clock.advance(0.001)
        assert take(broker, limits=TWO_A_TEN) == ids[2:3]
        clock.advance(5)
        assert take(broker, limits=TWO_A_TEN) == ids[3:]

    @pytest.mark.parametrize("limit", [Limit(rate=1e-300), Limit(rate=1e300), Limit(rate=1e6, per=1e300)])
    def test_a_rate_beyond_all_bounds_fails_no_claim(
        self, broker: Broker, clock: ManualClock, limit: Limit
    ) -> None:
        ids = put_many(broker, clock, 3, limit_keys=KEYS)
        clock.advance(1)
        free = put(broker, clock)
        taken = [job_id for _ in range(4) for job_id in take(broker, limits={"rule": limit})]
        assert ids[0] in taken
        assert free in taken

    def test_next_due_is_the_turn(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 4, limit_keys=KEYS)
        answer = claim(broker, limits=TWO_A_TEN)
        assert answer.next_due == after(clock.now(), 5.0)
        for record in answer.records:
            assert settle(broker, record, ttl=100.0)
        assert record_of(broker, ids[3]).due_at == after(clock.now(), 10.0)

    def test_a_job_is_pushed_back_once_and_not_charged_again(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = put_many(broker, clock, 4, limit_keys=KEYS)
        assert take(broker, limits=TWO_A_TEN) == ids[:2]
        clock.advance(10)
        [late] = put_many(broker, clock, 1, limit_keys=KEYS)
        assert take(broker, limits=TWO_A_TEN) == ids[2:]
        assert record_of(broker, late).due_at == after(clock.now(), 5.0)
        clock.advance(5)
        assert take(broker, limits=TWO_A_TEN) == [late]

    def test_a_turn_is_kept_for_its_job(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 2, limit_keys=KEYS)
        [pushed] = put_many(broker, clock, 1, limit_keys=KEYS)
        take(broker, limits=TWO_A_TEN)
        clock.advance(5)
        urgent = put(broker, clock, limit_keys=KEYS, priority=4)
        assert take(broker, limits=TWO_A_TEN) == [pushed]
        assert record_of(broker, urgent).due_at == after(clock.now(), 5.0)

    def test_after_a_quiet_time_a_burst_starts_at_once_again(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_many(broker, clock, 2, limit_keys=KEYS)
        assert len(take(broker, limits=TWO_A_TEN)) == 2
        clock.advance(10)
        ids = put_many(broker, clock, 3, limit_keys=KEYS)
        assert take(broker, limits=TWO_A_TEN) == ids[:2]
        assert record_of(broker, ids[2]).due_at == after(clock.now(), 5.0)

    def test_a_rate_below_one_lets_one_start_at_a_time(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"rule": Limit(rate=0.5, per=1.0)}
        first, second = put_many(broker, clock, 2, limit_keys=KEYS)
        assert take(broker, limits=limits) == [first]
        assert record_of(broker, second).due_at == after(clock.now(), 2.0)

    def test_a_rate_is_never_exceeded(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"rule": Limit(rate=3, per=1.0)}
        ids = put_many(broker, clock, 30, limit_keys=KEYS)
        begin = clock.now_ms()
        starts: list[int] = []
        while len(starts) < len(ids):
            starts += [clock.now_ms() - begin] * len(take(broker, limits=limits, limit=100, lease=1000.0))
            clock.advance(0.05)
        # The burst, and then one each third of a second; looked at each twentieth.
        for number, start in enumerate(starts):
            earliest = max(0, number - 2) * 1000 / 3
            assert earliest <= start <= earliest + 51

    def test_keys_of_one_rule_have_rates_of_their_own(self, broker: Broker, clock: ManualClock) -> None:
        a = put_many(broker, clock, 3, limit_keys=("rule:a",))
        b = put_many(broker, clock, 3, limit_keys=("rule:b",))
        assert take(broker, limits=TWO_A_TEN) == [*a[:2], *b[:2]]

    def test_of_several_rates_the_latest_turn_counts(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"slow": Limit(rate=1, per=30.0), "fast": Limit(rate=1, per=10.0)}
        first, second = put_many(broker, clock, 2, limit_keys=("fast", "slow"))
        assert take(broker, limits=limits) == [first]
        assert record_of(broker, second).due_at == after(clock.now(), 30.0)
        clock.advance(30)
        assert take(broker, limits=limits) == [second]

    @pytest.mark.parametrize("status", [Status.RETRY, Status.INTERRUPT])
    def test_a_pushed_back_job_keeps_its_status(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = bring_to(broker, clock, status, limit_keys=KEYS)
        put_many(broker, clock, 2, limit_keys=KEYS, priority=4)
        assert len(take(broker, limits=TWO_A_TEN)) == 2
        record = record_of(broker, job_id)
        assert (record.status, record.due_at, record.claims) == (status, after(clock.now(), 5.0), 1)

    def test_a_new_attempt_is_charged_anew(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"rule": Limit(rate=1, per=10.0)}
        job_id = put(broker, clock, limit_keys=KEYS)
        assert settle(broker, take_one(broker, limits=limits), Status.RETRY, delay=0.0, is_retry=True)
        assert take(broker, limits=limits) == []
        assert record_of(broker, job_id).due_at == after(clock.now(), 10.0)

    def test_a_moved_job_keeps_its_turn(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 3, limit_keys=KEYS)
        assert take(broker, limits=TWO_A_TEN) == ids[:2]
        assert broker.move([ids[2]], Move(queue="other")) == [ChangeResult.DONE]
        clock.advance(5)
        assert take(broker, "other", limits=TWO_A_TEN) == [ids[2]]

    def test_a_job_that_waits_for_its_turn_does_not_stand_in_the_way(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        limits = {"rule": Limit(rate=1, per=3600.0)}
        blocked = put_many(broker, clock, 200, limit_keys=KEYS, priority=4)
        free = put(broker, clock, priority=-4)
        taken = [job_id for _ in range(50) for job_id in take(broker, limits=limits, limit=1)]
        assert sorted(taken) == sorted([blocked[0], free])

    def test_concurrency_and_rate_hold_together(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"rule": Limit(concurrency=1, rate=2, per=10.0)}
        ids = put_many(broker, clock, 4, limit_keys=KEYS)
        starts: dict[str, float] = {}
        begin = clock.now()
        for _ in range(40):
            for record in claim(broker, limits=limits).records:
                starts[record.id] = (clock.now() - begin).total_seconds()
                assert settle(broker, record, ttl=1000.0)
            clock.advance(1)
        assert list(starts) == ids
        # Evenly after the burst of two; at most a look or two later.
        for number, job_id in enumerate(ids):
            assert max(0, number - 1) * 5 <= starts[job_id] <= max(0, number - 1) * 5 + 3

    def test_jobs_whose_turns_have_passed_start_at_the_rate(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"rule": Limit(rate=5, per=1.0)}
        ids = put_many(broker, clock, 60, limit_keys=KEYS)
        first = claim(broker, limits=limits, limit=100).records
        assert [record.id for record in first] == ids[:5]
        assert all(settle(broker, record, ttl=1000.0) for record in first)
        clock.advance(100)  # no worker claims
        starts: list[int] = []
        number = 0
        while len(starts) < 55:
            number += 1
            assert number < 500
            for record in claim(broker, limits=limits, limit=100).records:
                starts.append(number * 50)
                assert settle(broker, record, ttl=1000.0)
            clock.advance(0.05)
        # The burst of five and one, and then one each 200 ms; looked at each 50.
        for place, start in enumerate(starts):
            earliest = max(0, place - 5) * 200
            assert earliest <= start - starts[0] <= earliest + 450

    @pytest.mark.parametrize("seed", range(3))
    def test_after_gaps_of_any_length_no_time_has_more_starts_than_the_rate(
        self, broker: Broker, clock: ManualClock, seed: int
    ) -> None:
        chance = Random(seed)
        limits = {"rule": Limit(rate=3, per=1.0)}
        starts: list[int] = []
        for _ in range(60):
            put_many(broker, clock, chance.randrange(6), limit_keys=KEYS)
            for record in claim(broker, limits=limits, limit=chance.randrange(1, 9)).records:
                starts.append(clock.now_ms())
                assert settle(broker, record, ttl=10_000.0)
            clock.advance(chance.choice([0.01, 0.2, 0.4, 1.0, 7.0]))
        assert len(starts) > 20
        for number, first in enumerate(starts):
            for more, last in enumerate(starts[number:]):
                # The burst of three and one, and one each third of a second (333,333 microseconds).
                assert more < 4 + (last - first + 1) * 3 / 999.9

    def test_a_late_job_gets_the_turn_after_those_that_are_given(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        limits = {"rule": Limit(rate=1, per=10.0)}
        began = clock.now()
        ids = put_many(broker, clock, 5, limit_keys=KEYS)
        assert take(broker, limits=limits, lease=1000.0) == ids[:1]
        clock.advance(35)  # The turns were at 10, 20, 30 and 40 seconds.
        assert take(broker, limits=limits, lease=1000.0) == ids[1:3]
        late, last = record_of(broker, ids[3]), record_of(broker, ids[4])
        assert (late.due_at, last.due_at) == (after(began, 55.0), after(began, 40.0))
        assert (late.status, late.claims) == (Status.QUEUED, 0)
        clock.advance(5)
        assert take(broker, limits=limits, lease=1000.0) == []  # two have started at once
        assert record_of(broker, ids[4]).due_at == after(began, 65.0)
        clock.advance(15)
        assert take(broker, limits=limits, lease=1000.0) == [ids[3]]
        clock.advance(10)
        assert take(broker, limits=limits, lease=1000.0) == [ids[4]]

    def test_turns_that_were_given_obey_a_smaller_rate(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 6, limit_keys=KEYS)
        assert take(broker, limits={"rule": Limit(rate=2, per=1.0)}) == ids[:2]
        clock.advance(2)
        slower = {"rule": Limit(rate=1, per=10.0)}
        assert take(broker, limits=slower, lease=1000.0) == ids[2:4]
        clock.advance(5)
        assert take(broker, limits=slower, lease=1000.0) == []

    def test_a_burst_is_exact_under_eight_claimers(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"rule": Limit(rate=5, per=50.0)}
        put_many(broker, clock, 20, limit_keys=KEYS)
        taken: list[str] = []
        run_in_threads(
            lambda name: taken.extend(take(broker, limit=3, worker=name, limits=limits)),
            [(f"w{number}",) for number in range(THREADS)],
        )
        assert len(taken) == len(set(taken)) == 5
