"""Limits on concurrency: parking, letting go, exactness. Rates are in `rates`."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, ChangeResult, Limit, Move, Requeue
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.rules import OVERLAP_RULE
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    LEASE,
    BrokerFactory,
    Contract,
    bring_to,
    claim,
    lose,
    put,
    put_many,
    record_of,
    ref,
    run_in_threads,
    settle,
    take,
    take_one,
)

THREADS = 8
ONE = {"rule": Limit(concurrency=1)}
TWO = {"rule": Limit(concurrency=2)}
KEYS = ("rule",)


def put_limited(
    broker: Broker, clock: ManualClock, number: int, limit_keys: tuple[str, ...] = KEYS, **fields: Any
) -> list[str]:
    return put_many(broker, clock, number, limit_keys=limit_keys, **fields)


def take_soon(broker: Broker, *wanted: str, calls: int = 5, **more: Any) -> list[str]:
    """What some calls take together: a call may let go what only the next one takes."""
    return [job_id for _ in range(calls) for job_id in take(broker, *wanted, **more)]


class LimitContract(Contract):
    """What claim promises where the number of jobs that run at once is limited."""

    @pytest.fixture(autouse=True)
    def _needs_limits(self) -> None:
        if not self.supports_limits:
            pytest.skip("this driver has no limits")

    # --- parking ---------------------------------------------------------------------------------

    def test_no_more_than_the_limit_run_at_once(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_limited(broker, clock, 5)
        assert take(broker, limits=TWO) == ids[:2]
        assert take_soon(broker, limits=TWO) == []

    def test_a_parked_job_waits_without_a_due_time(self, broker: Broker, clock: ManualClock) -> None:
        first, second = put_limited(broker, clock, 2)
        answer = claim(broker, limits=ONE)
        assert [record.id for record in answer.records] == [first]
        parked = record_of(broker, second)
        assert (parked.status, parked.due_at, parked.ended_at) == (Status.QUEUED, None, None)
        assert (parked.claims, parked.history) == (0, ())
        [counts] = broker.counts(["q"])
        assert (counts.waiting, counts.due, counts.claimed) == (1, 0, 1)
        assert answer.next_due == record_of(broker, first).lease_until

    @pytest.mark.parametrize("status", [Status.RETRY, Status.INTERRUPT])
    def test_a_parked_job_keeps_its_status(self, broker: Broker, clock: ManualClock, status: Status) -> None:
        job_id = bring_to(broker, clock, status, limit_keys=KEYS)
        put_limited(broker, clock, 1, priority=4)
        take_one(broker, limits=ONE)
        assert take_soon(broker, limits=ONE) == []
        parked = record_of(broker, job_id)
        assert (parked.status, parked.due_at, parked.claims) == (status, None, 1)

    def test_keys_of_one_rule_are_counted_apart(self, broker: Broker, clock: ManualClock) -> None:
        [a, _] = put_limited(broker, clock, 2, limit_keys=("rule:a",))
        [b, _] = put_limited(broker, clock, 2, limit_keys=("rule:b:c",))
        [plain, _] = put_limited(broker, clock, 2)
        assert take(broker, limits=ONE) == [a, b, plain]

    def test_a_key_whose_rule_is_not_known_does_not_limit(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_limited(broker, clock, 3, limit_keys=("other", "rule-b:x"))
        assert take(broker, limits=ONE) == ids

    @pytest.mark.parametrize("limits", [{}, {"schedules": Limit(concurrency=5)}], ids=["no rule", "another"])
    def test_one_job_at_a_time_runs_under_a_key_of_schedules_whatever_the_rules(
        self, broker: Broker, clock: ManualClock, limits: dict[str, Limit]
    ) -> None:
        first, second = put_limited(broker, clock, 2, limit_keys=(f"{OVERLAP_RULE}:daily",))
        [other, _] = put_limited(broker, clock, 2, limit_keys=(f"{OVERLAP_RULE}:hourly:x",))
        running, _ = claim(broker, limits=limits).records
        assert (running.id, take_soon(broker, limits=limits)) == (first, [])
        position = broker.queue_position(second)
        assert position is not None
        assert position.parked_under == f"{OVERLAP_RULE}:daily"
        assert settle(broker, running, ttl=100.0)
        assert take_soon(broker, limits=limits) == [second]
        assert record_of(broker, other).status is Status.STARTED

    def test_a_limit_holds_over_all_queues(self, broker: Broker, clock: ManualClock) -> None:
        first = put(broker, clock, "a", limit_keys=KEYS)
        put(broker, clock, "b", limit_keys=KEYS)
        put(broker, clock, "t/x", limit_keys=KEYS)
        free = put(broker, clock, "t/y")
        assert set(take_soon(broker, "a", "b", "t/", limits=ONE)) == {first, free}

    def test_of_several_keys_all_must_have_room(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"a": Limit(concurrency=1), "b": Limit(concurrency=1)}
        put(broker, clock, limit_keys=("a",))
        holds_a = take_one(broker, limits=limits)
        both = put(broker, clock, limit_keys=("a", "b"))
        assert take_soon(broker, limits=limits) == []
        put(broker, clock, limit_keys=("b",))
        holds_b = take_one(broker, limits=limits)
        assert settle(broker, holds_a, ttl=100.0)
        assert take_soon(broker, limits=limits) == []
        assert settle(broker, holds_b, ttl=100.0)
        assert take_soon(broker, limits=limits) == [both]
        put(broker, clock, limit_keys=("b",))
        assert take_soon(broker, limits=limits) == []

    def test_a_parked_job_does_not_stand_in_the_way(self, broker: Broker, clock: ManualClock) -> None:
        blocked = put_limited(broker, clock, 200, priority=4)
        free = put(broker, clock, priority=-4)
        taken = take_soon(broker, limits=ONE, limit=1, calls=50)
        assert sorted(taken) == sorted([blocked[0], free])
        assert record_of(broker, blocked[1]).claims == 0

    # --- letting go --------------------------------------------------------------------------------

    def test_a_settle_lets_the_longest_parked_go(self, broker: Broker, clock: ManualClock) -> None:
        put_limited(broker, clock, 1)
        running = take_one(broker, limits=ONE)
        ids = []
        for _ in range(3):
            clock.advance(1)
            ids += put_limited(broker, clock, 1)
            assert take(broker, limits=ONE) == []
        assert settle(broker, running, ttl=100.0)
        let_go, *parked = (record_of(broker, job_id) for job_id in ids)
        assert let_go.due_at is not None
        assert let_go.due_at <= clock.now()
        assert [record.due_at for record in parked] == [None, None]
        assert broker.counts(["q"])[0].due == 1
        for job_id in ids:
            record = take_one(broker, limits=ONE)
            assert record.id == job_id
            assert settle(broker, record, Status.FAILED, ttl=100.0)

    def test_a_job_that_was_let_go_goes_ahead_of_those_that_came_later(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_limited(broker, clock, 1)
        running = take_one(broker, limits=ONE)
        [parked] = put_limited(broker, clock, 1)
        assert take(broker, limits=ONE) == []
        clock.advance(1)
        put_limited(broker, clock, 3)
        clock.advance(1)
        assert settle(broker, running, ttl=100.0)
        assert take(broker, limits=ONE) == [parked]

    def test_a_larger_priority_is_let_go_first(self, broker: Broker, clock: ManualClock) -> None:
        put_limited(broker, clock, 1)
        running = take_one(broker, limits=ONE)
        [low] = put_limited(broker, clock, 1)
        assert take(broker, limits=ONE) == []
        clock.advance(1)
        [high] = put_limited(broker, clock, 1, priority=1)
        assert take(broker, limits=ONE) == []
        assert settle(broker, running, ttl=100.0)
        second = take_one(broker, limits=ONE)
        assert second.id == high
        assert settle(broker, second, ttl=100.0)
        assert take(broker, limits=ONE) == [low]

    @pytest.mark.parametrize("status", [Status.RETRY, Status.INTERRUPT, Status.QUEUED])
    def test_an_attempt_that_goes_on_later_makes_room(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        put_limited(broker, clock, 1)
        running = take_one(broker, limits=ONE)
        [parked] = put_limited(broker, clock, 1)
        assert take(broker, limits=ONE) == []
        assert settle(broker, running, status, delay=30.0)
        assert take(broker, limits=ONE) == [parked]

    @pytest.mark.parametrize("how", ["cancel", "remove"])
    def test_the_end_of_one_that_was_let_go_lets_the_next_go(
        self, broker: Broker, clock: ManualClock, how: str
    ) -> None:
        put_limited(broker, clock, 1)
        running = take_one(broker, limits=ONE)
        first, second = put_limited(broker, clock, 2)
        assert take(broker, limits=ONE) == []
        assert settle(broker, running, ttl=100.0)
        assert _leave(broker, first, how) == [ChangeResult.DONE]
        assert take_soon(broker, limits=ONE) == [second]

    @pytest.mark.parametrize("how", ["cancel", "remove"])
    def test_a_parked_job_can_be_taken_away(self, broker: Broker, clock: ManualClock, how: str) -> None:
        first, second, third = put_limited(broker, clock, 3)
        running = take_one(broker, limits=ONE)
        assert take(broker, limits=ONE) == []
        assert _leave(broker, second, how) == [ChangeResult.DONE]
        assert broker.counts(["q"])[0].waiting == 1
        assert settle(broker, running, ttl=100.0)
        assert take_soon(broker, limits=ONE) == [third]
        assert running.id == first

    def test_the_end_of_a_lease_makes_room(self, broker: Broker, clock: ManualClock) -> None:
        put_limited(broker, clock, 1)
        take_one(broker, limits=ONE)
        [parked] = put_limited(broker, clock, 1)
        assert take(broker, limits=ONE) == []
        clock.advance(LEASE - 0.001)
        assert take_soon(broker, limits=ONE) == []
        clock.advance(0.001)
        assert take_soon(broker, limits=ONE, lost_limit=0) == [parked]

    def test_a_suspect_starts_again_only_where_there_is_room(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        [suspect] = put_limited(broker, clock, 1)
        take_one(broker, limits=ONE)
        lose(clock)
        [second] = put_limited(broker, clock, 1)
        running = take_one(broker, limits=ONE, lost_limit=0)
        assert running.id == second
        free = put(broker, clock)
        assert take_soon(broker, limits=ONE) == [free]
        assert record_of(broker, suspect).claims == 1
        assert settle(broker, running, ttl=100.0)
        clock.advance(5)
        again = take_one(broker, limits=ONE)
        assert (again.id, again.claims) == (suspect, 2)

    def test_suspects_without_room_hide_no_other_suspect_and_keep_no_worker_busy(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_limited(broker, clock, 30)
        assert len(take(broker, limit=30, limits={"rule": Limit(concurrency=30)})) == 30
        put(broker, clock)
        [other] = take(broker, lease=LEASE + 1.0)
        clock.advance(LEASE + 2.0)
        [running] = put_limited(broker, clock, 1)
        assert take(broker, limit=1, limits=ONE, lost_limit=0) == [running]
        taken: list[str] = []
        for _ in range(20):
            answer = claim(broker, worker="w2", limits=ONE)
            taken += [record.id for record in answer.records]
            if answer.next_due is None or answer.next_due > answer.now:
                break
        else:
            raise AssertionError("each claim said that more is due")
        assert taken == [other]

    def test_a_renewed_lease_keeps_its_place(self, broker: Broker, clock: ManualClock) -> None:
        put_limited(broker, clock, 2)
        running = take_one(broker, limits=ONE)
        for _ in range(3):
            clock.advance(LEASE / 2)
            assert broker.renew([ref(running)], LEASE) == [True]
            assert take(broker, limits=ONE) == []

    def test_a_condemned_job_makes_room(self, broker: Broker, clock: ManualClock) -> None:
        put_limited(broker, clock, 1, at_most_once=True)
        take_one(broker, limits=ONE)
        [parked] = put_limited(broker, clock, 1)
        assert take(broker, limits=ONE) == []
        lose(clock)
        assert take_soon(broker, limits=ONE) == [parked]

    @pytest.mark.parametrize("limits", [{"rule": Limit(concurrency=4)}, {"rule": Limit()}, {}], ids=str)
    def test_no_job_stays_parked_when_its_limit_grows_or_goes(
        self, broker: Broker, clock: ManualClock, limits: dict[str, Limit]
    ) -> None:
        ids = put_limited(broker, clock, 4)
        assert take(broker, limits=ONE) == ids[:1]
        assert take_soon(broker, limits=limits) == ids[1:]

    def test_under_a_limit_of_zero_nothing_runs_until_it_grows(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = put_limited(broker, clock, 2)
        assert take_soon(broker, limits={"rule": Limit(concurrency=0)}) == []
        assert take_soon(broker, limits=TWO) == ids

    def test_a_limit_that_shrinks_lets_nobody_start(self, broker: Broker, clock: ManualClock) -> None:
        put_limited(broker, clock, 4)
        first, second = claim(broker, limits=TWO).records
        assert settle(broker, first, ttl=100.0)
        assert take_soon(broker, limits=ONE) == []
        assert settle(broker, second, ttl=100.0)
        assert len(take_soon(broker, limits=ONE)) == 1

    # --- changes -----------------------------------------------------------------------------------

    @pytest.mark.parametrize("most", [0, 1])
    def test_a_limit_that_shrinks_holds_for_lost_jobs(
        self, broker: Broker, clock: ManualClock, most: int
    ) -> None:
        put_many(broker, clock, 3, limit_keys=KEYS)
        assert len(take(broker, lease=10.0, limits={"rule": Limit(concurrency=3)})) == 3
        clock.advance(11)
        smaller = {"rule": Limit(concurrency=most)}
        taken: list[str] = []
        for _ in range(5):
            taken += take(broker, lease=1000.0, limits=smaller)
            clock.advance(2)
        assert len(taken) == most
        larger = {"rule": Limit(concurrency=3)}
        taken += [job_id for _ in range(4) for job_id in take(broker, lease=1000.0, limits=larger)]
        assert len(set(taken)) == len(taken) == 3

    def test_a_parked_job_can_be_moved(self, broker: Broker, clock: ManualClock) -> None:
        _, second = put_limited(broker, clock, 2)
        running = take_one(broker, limits=ONE)
        assert take(broker, limits=ONE) == []
        assert broker.move([second], Move(queue="other")) == [ChangeResult.DONE]
        assert [counts.waiting for counts in broker.counts(["q", "other"])] == [0, 1]
        assert take_soon(broker, "other", limits=ONE) == []
        assert settle(broker, running, ttl=100.0)
        assert take_soon(broker, "other", limits=ONE) == [second]

    def test_a_parked_job_can_be_requeued(self, broker: Broker, clock: ManualClock) -> None:
        job_id = bring_to(broker, clock, Status.RETRY, limit_keys=KEYS)
        put_limited(broker, clock, 1, priority=4)
        running = take_one(broker, limits=ONE)
        assert take(broker, limits=ONE) == []
        assert broker.requeue([job_id], Requeue(delay=5.0)) == [ChangeResult.DONE]
        assert settle(broker, running, ttl=100.0)
        assert take_soon(broker, limits=ONE) == []
        clock.advance(5)
        assert take_soon(broker, limits=ONE) == [job_id]

    # --- many at once --------------------------------------------------------------------------------

    @pytest.mark.parametrize("shared", [True, False], ids=["one broker", "a broker each"])
    def test_the_limit_is_exact_under_eight_claimers(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock, shared: bool
    ) -> None:
        limits = {"rule": Limit(concurrency=3)}
        ids = put_limited(broker, clock, 60)
        lock = threading.Lock()
        running: set[str] = set()
        done: list[str] = []
        peaks: list[int] = []

        def work(name: str) -> None:
            mine = broker if shared else broker_factory(clock)
            while len(done) < len(ids):
                for record in claim(mine, limit=2, worker=name, limits=limits).records:
                    with lock:
                        running.add(record.id)
                        peaks.append(len(running))
                    _end(mine, record)
            if not shared:
                mine.close()

        def _end(mine: Broker, record: JobRecord) -> None:
            with lock:
                running.discard(record.id)
            assert settle(mine, record, ttl=1000.0)
            done.append(record.id)

        run_in_threads(work, [(f"w{number}",) for number in range(THREADS)])
        assert max(peaks) <= 3
        assert sorted(done) == sorted(ids)

    def test_eight_claimers_at_once_take_as_many_as_the_limit(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_limited(broker, clock, 40)
        limits = {"rule": Limit(concurrency=5)}
        taken: list[str] = []
        run_in_threads(
            lambda name: taken.extend(take_soon(broker, limit=3, worker=name, limits=limits)),
            [(f"w{number}",) for number in range(THREADS)],
        )
        assert len(taken) == len(set(taken)) == 5


def _leave(broker: Broker, job_id: str, how: str) -> list[ChangeResult]:
    return broker.cancel([job_id], Cancel()) if how == "cancel" else broker.remove([job_id])
