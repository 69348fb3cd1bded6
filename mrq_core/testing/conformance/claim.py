"""Claiming: the order, the quotas, trees, and what a claim writes."""

from __future__ import annotations

from collections import Counter

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import Wanted
from mrq_core.contract.record import PRIORITY_MAX, PRIORITY_MIN, Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    LEASE,
    Contract,
    claim,
    new_job,
    put,
    put_many,
    record_of,
    settle,
    started,
    take,
    take_one,
)

SUBQUEUES_A_CALL = 32


class ClaimContract(Contract):
    """What claim promises where no lease has run out."""

    # --- order -------------------------------------------------------------------------------

    def test_larger_priority_comes_first(self, broker: Broker, clock: ManualClock) -> None:
        ids = {priority: put(broker, clock, priority=priority) for priority in (0, 4, -4, 2, -1)}
        assert take(broker) == [ids[priority] for priority in (4, 2, 0, -1, -4)]

    def test_every_priority_can_be_claimed(self, broker: Broker, clock: ManualClock) -> None:
        levels = range(PRIORITY_MIN, PRIORITY_MAX + 1)
        ids = [put(broker, clock, priority=priority) for priority in levels]
        assert take(broker) == ids[::-1]

    def test_within_a_priority_the_earlier_due_time_comes_first(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = {delay: put(broker, clock, delay=delay) for delay in (3.0, 1.0, 0.001, 2.0)}
        clock.advance(5)
        assert take(broker) == [ids[delay] for delay in (0.001, 1.0, 2.0, 3.0)]

    def test_priority_comes_before_due_time(self, broker: Broker, clock: ManualClock) -> None:
        early = put(broker, clock)
        late = put(broker, clock, delay=5.0, priority=1)
        clock.advance(5)
        assert take(broker) == [late, early]

    def test_within_a_due_time_the_smaller_id_comes_first(self, broker: Broker, clock: ManualClock) -> None:
        jobs = [new_job(clock) for _ in range(5)]
        broker.enqueue(jobs[::-1])
        assert take(broker) == [job.record.id for job in jobs]

    def test_reverse_turns_due_time_and_id_around_but_not_priority(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        first, second = put_many(broker, clock, 2)
        later = put(broker, clock, delay=1.0)
        urgent = put(broker, clock, priority=1)
        clock.advance(1)
        assert take(broker, Wanted(name="q", reverse=True)) == [urgent, later, second, first]

    def test_one_at_a_time_gives_the_same_order(self, broker: Broker, clock: ManualClock) -> None:
        low = put(broker, clock, priority=-1)
        first, second = put_many(broker, clock, 2)
        high = put(broker, clock, priority=3)
        assert [take_one(broker).id for _ in range(4)] == [high, first, second, low]

    # --- due times -----------------------------------------------------------------------------

    def test_a_delayed_job_is_never_early(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock, delay=10.0)
        assert take(broker) == []
        clock.advance(9.999)
        assert take(broker) == []
        clock.advance(0.001)
        assert take(broker) == [job_id]

    def test_a_job_that_is_not_due_does_not_stand_in_the_way(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put(broker, clock, delay=10.0, priority=4)
        job_id = put(broker, clock, priority=-4)
        assert take(broker, limit=1) == [job_id]

    def test_next_due_is_none_where_nothing_is(self, broker: Broker, clock: ManualClock) -> None:
        put(broker, clock, "other")
        assert claim(broker).next_due is None

    def test_next_due_is_the_earliest_due_time_of_the_wanted_queues(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        for queue, delay in (("a", 30.0), ("a", 10.0), ("b/x", 20.0), ("other", 1.0)):
            put(broker, clock, queue, delay=delay)
        assert claim(broker, "a", "b/").next_due == after(clock.now(), 10.0)
        assert claim(broker, "b/").next_due == after(clock.now(), 20.0)

    def test_next_due_is_not_later_than_now_where_more_is_due(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_many(broker, clock, 3)
        answer = claim(broker, limit=2)
        assert answer.next_due is not None
        assert answer.next_due <= answer.now

    def test_next_due_leaves_excluded_queues_out(self, broker: Broker, clock: ManualClock) -> None:
        put(broker, clock, "a/x", delay=10.0)
        assert claim(broker, Wanted(name="a/", exclude=frozenset({"a/x"}))).next_due is None

    def test_the_answer_tells_the_brokers_time(self, broker: Broker, clock: ManualClock) -> None:
        assert claim(broker).now == clock.now()

    # --- what a claim writes -------------------------------------------------------------------

    def test_a_claimed_job_is_started_under_a_token(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock, params={"a": 1})
        clock.advance(2)
        record = take_one(broker, worker="w7")
        assert (record.id, record.status, record.worker) == (job_id, Status.STARTED, "w7")
        assert record.params == {"a": 1}
        assert (record.started_at, record.updated_at) == (clock.now(), clock.now())
        assert record.lease_until == after(clock.now(), LEASE)
        assert record.claims == 1
        assert record.token is not None
        assert claim_number(record.token) == 1
        assert record_of(broker, job_id) == record

    def test_a_claimed_job_is_not_claimed_again_while_its_lease_lasts(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        started(broker, clock)
        clock.advance(LEASE - 0.001)
        assert take(broker, worker="w2") == []

    def test_each_claim_has_a_greater_number_and_another_token(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put(broker, clock)
        tokens = []
        for _ in range(3):
            record = take_one(broker)
            tokens.append(record.token or "")
            settle(broker, record, Status.RETRY, delay=0.0, is_retry=True)
        assert [claim_number(token) for token in tokens] == [1, 2, 3]

    def test_a_claim_changes_no_other_job(self, broker: Broker, clock: ManualClock) -> None:
        first, second = put_many(broker, clock, 2)
        before = record_of(broker, second)
        assert take(broker, limit=1) == [first]
        assert record_of(broker, second) == before

    # --- limits and quotas ---------------------------------------------------------------------

    def test_no_more_than_the_limit_is_taken(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 5)
        assert take(broker, limit=0) == []
        assert take(broker, limit=3) == ids[:3]
        assert take(broker, limit=3) == ids[3:]

    def test_queues_are_taken_in_the_order_of_wanted(self, broker: Broker, clock: ManualClock) -> None:
        in_a = put(broker, clock, "a", priority=4)
        in_b = put_many(broker, clock, 2, "b")
        assert take(broker, "b", "a") == [*in_b, in_a]

    def test_each_queue_is_taken_from_up_to_its_quota(self, broker: Broker, clock: ManualClock) -> None:
        in_a, in_b = put_many(broker, clock, 3, "a"), put_many(broker, clock, 3, "b")
        wanted = (Wanted(name="a", quota=2), Wanted(name="b", quota=1), Wanted(name="c", quota=5))
        assert take(broker, *wanted) == [*in_a[:2], in_b[0]]

    def test_the_limit_holds_over_all_quotas(self, broker: Broker, clock: ManualClock) -> None:
        in_a, in_b = put_many(broker, clock, 3, "a"), put_many(broker, clock, 3, "b")
        wanted = (Wanted(name="a", quota=2), Wanted(name="b", quota=2))
        assert take(broker, *wanted, limit=3) == [*in_a[:2], in_b[0]]

    def test_other_queues_are_left_alone(self, broker: Broker, clock: ManualClock) -> None:
        for name in ("qq", "Q", "q/", "q/x", "p"):
            put(broker, clock, name)
        assert take(broker, "q") == []

    def test_an_excluded_queue_is_left_alone(self, broker: Broker, clock: ManualClock) -> None:
        put(broker, clock, "a")
        in_b = put(broker, clock, "b")
        exclude = frozenset({"a"})
        wanted = (Wanted(name="a", exclude=exclude), Wanted(name="b", exclude=exclude))
        assert take(broker, *wanted) == [in_b]

    # --- trees ---------------------------------------------------------------------------------

    def test_a_tree_means_all_its_subqueues(self, broker: Broker, clock: ManualClock) -> None:
        inside = {put(broker, clock, name) for name in ("main/a", "main/b", "main/b/c")}
        for name in ("main", "mainly/a", "mai/a", "other/main/a"):
            put(broker, clock, name)
        assert set(take(broker, "main/")) == inside

    def test_excluded_subqueues_and_trees_are_left_out(self, broker: Broker, clock: ManualClock) -> None:
        for name in ("main/a", "main/b/x", "main/b/y"):
            put(broker, clock, name)
        left = {put(broker, clock, name) for name in ("main/ab", "main/bb", "main/c")}
        wanted = Wanted(name="main/", exclude=frozenset({"main/a", "main/b/"}))
        assert set(take(broker, wanted)) == left

    def test_an_excluded_tree_is_left_out_as_a_whole(self, broker: Broker, clock: ManualClock) -> None:
        put(broker, clock, "main/a")
        assert take(broker, Wanted(name="main/", exclude=frozenset({"main/"}))) == []

    def test_within_a_subqueue_the_order_is_that_of_a_queue(self, broker: Broker, clock: ManualClock) -> None:
        first, second = put_many(broker, clock, 2, "main/a")
        urgent = put(broker, clock, "main/a", priority=2)
        assert take(broker, "main/") == [urgent, first, second]

    def test_a_tree_keeps_to_its_quota(self, broker: Broker, clock: ManualClock) -> None:
        for name in ("main/a", "main/b", "main/c"):
            put_many(broker, clock, 3, name)
        assert len(take(broker, Wanted(name="main/", quota=4), limit=100)) == 4

    def test_all_jobs_of_a_hundred_subqueues_are_found(self, broker: Broker, clock: ManualClock) -> None:
        ids = {put(broker, clock, f"main/{number:03}") for number in range(100)}
        taken: list[str] = []
        for _ in range(10):
            taken += take(broker, "main/", limit=100)
        assert Counter(taken) == Counter(ids)

    def test_a_call_takes_from_no_more_than_32_subqueues(self, broker: Broker, clock: ManualClock) -> None:
        for number in range(100):
            put(broker, clock, f"main/{number:03}")
        queues = {record.queue for record in claim(broker, "main/", limit=100).records}
        assert 0 < len(queues) <= SUBQUEUES_A_CALL

    def test_each_subqueue_gets_its_turn_beside_a_flooded_one(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_many(broker, clock, 500, "main/000", priority=4)
        quiet = {put(broker, clock, f"main/{number:03}", priority=-4) for number in range(1, 100)}
        for _ in range(250):
            quiet -= set(take(broker, "main/", limit=1))
        assert quiet == set()

    @pytest.mark.parametrize("name", ["a%/", "a_/", "a*/", "a./", "a$/", "a'/", "ä/"])
    def test_a_tree_is_a_prefix_and_no_pattern(self, broker: Broker, clock: ManualClock, name: str) -> None:
        inside = put(broker, clock, f"{name}x")
        for other in ("a/x", "ab/x", "abc/x", "a%b/x"):
            put(broker, clock, other)
        assert take(broker, name) == [inside]
