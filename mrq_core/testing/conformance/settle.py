"""Settling: what an outcome writes, repetitions, follow-ups."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract import lifecycle
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, ChangeResult, NewJob, Requeue, Settlement, Unique
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import HISTORY_LIMIT, JobRecord, Status
from mrq_core.ids import seconds_of
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
    settlement,
    started,
    status_of,
    take,
    take_one,
)

ENDS = [Status.SUCCESS, Status.FAILED, Status.ABORT, Status.TIMEOUT, Status.MAXRETRIES, Status.CANCEL]
GOES_ON = [Status.RETRY, Status.INTERRUPT, Status.QUEUED]


def followup(
    clock: ManualClock,
    parent: JobRecord,
    queue: str = "next",
    *,
    delay: float | None = None,
    unique: Unique | None = None,
    **fields: Any,
) -> NewJob:
    job = new_job(clock, queue, parents=(parent.id,), params={"after": parent.id}, **fields)
    return replace(job, delay=delay, unique=unique)


class SettleContract(Contract):
    """What settle promises."""

    # --- the end of a job ------------------------------------------------------------------------

    @pytest.mark.parametrize("status", ENDS)
    def test_an_ended_job_leaves_the_queue_and_is_kept_for_its_ttl(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        record = started(broker, clock)
        clock.advance(5)
        assert settle(broker, record, status, ttl=100.0, total_time=4.5)
        stored = record_of(broker, record.id)
        assert (stored.status, stored.total_time) == (status, 4.5)
        assert (stored.ended_at, stored.updated_at) == (clock.now(), clock.now())
        assert stored.expires_at == after(clock.now(), 100.0)
        assert (stored.due_at, stored.lease_until) == (None, None)
        clock.advance(LEASE * 2)
        assert claim(broker).next_due is None
        [counts] = broker.counts(["q"])
        assert (counts.waiting, counts.claimed) == (0, 0)

    def test_a_job_waits_from_the_time_at_which_it_is_due_again(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock)
        assert record.waits_from is None
        for delay in (30.0, 0.0, 5.0):
            assert settle(broker, record, Status.RETRY, delay=delay, is_retry=True)
            due_at = after(clock.now(), delay)
            assert record_of(broker, record.id).waits_from == due_at
            clock.advance(delay + 10)
            record = take_one(broker)
            assert record.waits_from == due_at
        clock.advance(LEASE)
        again = take_one(broker)
        assert (again.waits_from, again.history[-1].lost) == (due_at, True)
        settle(broker, again, Status.FAILED, ttl=100.0)
        for delay in (40.0, 0.0):
            assert broker.requeue([again.id], Requeue(delay=delay)) == [ChangeResult.DONE]
            due_again = after(clock.now(), delay) if delay else None
            assert record_of(broker, again.id).waits_from == due_again
            broker.cancel([again.id], Cancel())

    def test_a_result_is_stored(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        settle(broker, record, result={"found": [1, None, "x"]}, ttl=100.0)
        stored = record_of(broker, record.id)
        assert stored.result == {"found": [1, None, "x"]}
        assert stored.progress == 1.0

    @pytest.mark.parametrize("limit_keys", [(), ("k",)])
    def test_a_result_of_4_mib_is_stored_whatever_its_values(
        self, broker: Broker, clock: ManualClock, limit_keys: tuple[str, ...]
    ) -> None:
        zeros = {"zeros": [0] * 2_000_000, "$ref": "c", "a.b": "ü\0"}
        record = started(broker, clock, limit_keys=limit_keys)
        assert settle(broker, record, ttl=100.0, result=zeros)
        assert record_of(broker, record.id).result == zeros
        assert broker.requeue([record.id], Requeue()) == [ChangeResult.DONE]
        assert record_of(broker, record.id).result is None
        assert settle(broker, take_one(broker), ttl=100.0, result=[0])
        assert record_of(broker, record.id).result == [0]

    def test_a_failure_is_stored_with_its_traceback(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        settle(
            broker,
            record,
            Status.FAILED,
            ttl=100.0,
            exception_type="builtins.KeyError",
            traceback="Traceback: 'ü'",
            original_traceback="the first",
            greenlet_time=0.5,
            switches=7,
            memory_diff=-1024,
        )
        stored = record_of(broker, record.id)
        assert (stored.exception_type, stored.traceback) == ("builtins.KeyError", "Traceback: 'ü'")
        assert stored.original_traceback == "the first"
        assert (stored.greenlet_time, stored.switches, stored.memory_diff) == (0.5, 7, -1024)

    def test_without_a_ttl_an_ended_job_is_kept(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        settle(broker, record)
        clock.advance(10_000_000)
        assert broker.prune() == 0
        assert record_of(broker, record.id).expires_at is None

    # --- going on ----------------------------------------------------------------------------------

    @pytest.mark.parametrize("status", GOES_ON)
    def test_a_job_that_goes_on_is_due_again_after_the_delay(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        record = started(broker, clock)
        assert settle(broker, record, status, delay=10.0)
        stored = record_of(broker, record.id)
        assert (stored.status, stored.due_at) == (status, after(clock.now(), 10.0))
        assert (stored.ended_at, stored.expires_at) == (None, None)
        clock.advance(9.999)
        assert take(broker) == []
        clock.advance(0.001)
        assert take_one(broker).claims == 2

    @pytest.mark.parametrize("status", GOES_ON)
    def test_without_a_delay_the_job_is_due_again_at_once(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        record = started(broker, clock)
        settle(broker, record, status, delay=0.0)
        assert take(broker) == [record.id]

    def test_only_what_is_a_retry_counts_as_one(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        settle(broker, record, Status.INTERRUPT, delay=0.0)
        assert record_of(broker, record.id).retry_count == 0
        settle(broker, take_one(broker), Status.RETRY, delay=0.0, is_retry=True)
        stored = record_of(broker, record.id)
        assert (stored.retry_count, stored.lost_claims) == (1, 0)

    def test_a_job_can_go_on_in_another_queue(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        settle(broker, record, Status.RETRY, delay=0.0, is_retry=True, queue="retries")
        assert record_of(broker, record.id).queue == "retries"
        assert take(broker, "q") == []
        assert take(broker, "retries") == [record.id]

    def test_an_ended_job_stays_in_its_queue(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        settle(broker, record, ttl=100.0, queue="elsewhere")
        assert record_of(broker, record.id).queue == "q"

    def test_a_new_attempt_starts_with_empty_fields(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        settle(broker, record, Status.RETRY, delay=0.0, exception_type="E", traceback="T", total_time=1.0)
        second = take_one(broker)
        assert (second.exception_type, second.traceback, second.total_time) == (None, None, None)
        [first] = second.history
        assert (first.status, first.exception_type, first.traceback) == (Status.RETRY, "E", "T")

    def test_the_history_keeps_the_last_attempts(self, broker: Broker, clock: ManualClock) -> None:
        put(broker, clock)
        for _ in range(HISTORY_LIMIT + 3):
            settle(broker, take_one(broker), Status.RETRY, delay=0.0, is_retry=True)
        record = take_one(broker)
        numbers = [attempt.claim for attempt in record.history]
        assert numbers == list(range(4, HISTORY_LIMIT + 4))

    def test_an_interrupted_at_most_once_job_has_ended(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock, at_most_once=True)
        assert settle(broker, record, Status.INTERRUPT, ttl=100.0)
        stored = record_of(broker, record.id)
        assert (stored.status, stored.is_ended) == (Status.INTERRUPT, True)
        assert stored.expires_at == after(clock.now(), 100.0)
        clock.advance(99)
        answer = claim(broker)
        assert (answer.records, answer.ended, answer.next_due) == ((), (), None)

    # --- cancel requests ---------------------------------------------------------------------------

    @pytest.mark.parametrize("status", GOES_ON)
    def test_a_cancel_request_wins_over_an_outcome_that_would_run_the_job_again(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        record = started(broker, clock)
        broker.cancel([record.id], Cancel())
        assert settle(broker, record, status, delay=0.0, queue="other", cancel_ttl=30.0, is_retry=True)
        stored = record_of(broker, record.id)
        assert (stored.status, stored.queue, stored.retry_count) == (Status.CANCEL, "q", 0)
        assert stored.expires_at == after(clock.now(), 30.0)
        assert take(broker, "q", "other") == []

    @pytest.mark.parametrize("status", ENDS)
    def test_a_cancel_request_does_not_change_how_a_job_ended(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        record = started(broker, clock)
        broker.cancel([record.id], Cancel())
        assert settle(broker, record, status, ttl=100.0)
        assert status_of(broker, record.id) is status

    # --- repetition --------------------------------------------------------------------------------

    def test_a_repeated_settle_gives_its_first_answer(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        assert settle(broker, record, result=1, ttl=100.0)
        before = record_of(broker, record.id)
        clock.advance(1)
        assert settle(broker, record, result=1, ttl=100.0)
        assert record_of(broker, record.id) == before

    def test_a_repeated_settle_in_one_call_is_written_once(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        retry = settlement(record, Status.RETRY, delay=5.0, is_retry=True)
        assert broker.settle([retry, retry]) == [True, True]
        assert record_of(broker, record.id).retry_count == 1

    def test_a_repeated_settle_gives_its_first_answer_after_a_later_claim(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock)
        assert settle(broker, record, Status.RETRY, delay=0.0, is_retry=True)
        second = take_one(broker)
        assert settle(broker, record, Status.RETRY, delay=0.0, is_retry=True)
        assert record_of(broker, record.id) == second
        assert settle(broker, second, ttl=100.0)
        assert settle(broker, record, Status.RETRY, delay=0.0, is_retry=True)
        assert status_of(broker, record.id) is Status.SUCCESS

    @pytest.mark.parametrize("change", ["requeue", "cancel"])
    def test_a_repeated_settle_gives_its_first_answer_after_a_change(
        self, broker: Broker, clock: ManualClock, change: str
    ) -> None:
        record = started(broker, clock)
        settle(broker, record, Status.FAILED, ttl=100.0)
        if change == "requeue":
            assert broker.requeue([record.id], Requeue()) == [ChangeResult.DONE]
        else:
            assert broker.cancel([record.id], Cancel()) == [ChangeResult.DONE]
        before = record_of(broker, record.id)
        assert settle(broker, record, Status.FAILED, ttl=100.0)
        assert record_of(broker, record.id) == before

    def test_a_refused_settle_stays_refused(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        clock.advance(LEASE)
        second = take_one(broker)
        for _ in range(2):
            assert not settle(broker, record, ttl=100.0)
        settle(broker, second, ttl=100.0)
        assert not settle(broker, record, ttl=100.0)

    def test_answers_line_up_with_the_settlements(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 3)
        first, second, third = claim(broker).records
        wrong = Settlement(
            id=second.id, token="1.0000000000000000", outcome=settlement(second, ttl=9.0).outcome
        )
        unknown = Settlement(id="0" * 24, token="1.00", outcome=wrong.outcome)
        answers = broker.settle([settlement(first, ttl=9.0), wrong, unknown, settlement(third, ttl=9.0)])
        assert answers == [True, False, False, True]
        assert [status_of(broker, record.id) for record in (first, second, third)] == [
            Status.SUCCESS,
            Status.STARTED,
            Status.SUCCESS,
        ]

    def test_the_token_of_another_claim_proves_nothing(self, broker: Broker, clock: ManualClock) -> None:
        first, second = started(broker, clock), started(broker, clock)
        assert first.token is not None
        stolen = Settlement(id=second.id, token=first.token, outcome=settlement(second, ttl=9.0).outcome)
        assert broker.settle([stolen]) == [False]
        assert status_of(broker, second.id) is Status.STARTED

    @pytest.mark.parametrize("token", ["", "1", "1.", ".", "x", "1.%", "1.*", "2.0000000000000000"])
    def test_what_is_no_token_proves_nothing(self, broker: Broker, clock: ManualClock, token: str) -> None:
        record = started(broker, clock)
        forged = Settlement(id=record.id, token=token, outcome=settlement(record, ttl=9.0).outcome)
        assert broker.settle([forged]) == [False]
        queued = put(broker, clock, "other")
        assert broker.settle([Settlement(id=queued, token=token, outcome=forged.outcome)]) == [False]
        assert [status_of(broker, job_id) for job_id in (record.id, queued)] == [
            Status.STARTED,
            Status.QUEUED,
        ]

    def test_a_removed_job_that_comes_back_does_not_know_its_old_tokens(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job = new_job(clock)
        broker.enqueue([job])
        old = take_one(broker)
        settle(broker, old, ttl=100.0)
        broker.remove([old.id])
        assert not settle(broker, old, ttl=100.0)
        broker.enqueue([job])
        new = take_one(broker)
        assert not settle(broker, old, Status.FAILED, ttl=100.0)
        assert record_of(broker, new.id) == new

    # --- follow-ups ----------------------------------------------------------------------------------

    def test_follow_ups_are_enqueued_by_an_accepted_settle(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        nexts = (followup(clock, record), followup(clock, record))
        assert settle(broker, record, ttl=100.0, followups=nexts)
        assert take(broker, "next") == [following.record.id for following in nexts]
        assert record_of(broker, nexts[0].record.id).parents == (record.id,)
        assert record_of(broker, nexts[0].record.id).params == {"after": record.id}

    def test_ids_of_follow_ups_embed_the_time_of_the_outcome_and_keep_their_order(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        now = int(clock.now().timestamp())
        parent = started(broker, clock, id=f"{now:08x}{'f' * 16}")
        clock.advance(5.0)
        ids = [lifecycle.followup_id(parent.id, parent.token or "", n, clock.now()) for n in range(20)]
        assert [seconds_of(job_id) for job_id in ids] == [now + 5] * 20
        children = tuple(followup(clock, parent, id=job_id) for job_id in ids)
        for _ in range(2):
            assert settle(broker, parent, ttl=1000.0, followups=children)
        found = broker.find(JobFilter(), order=Order.OLDEST_FIRST).records
        assert [record.id for record in found] == [parent.id, *ids]
        since = broker.find(JobFilter(since=clock.now()), order=Order.OLDEST_FIRST).records
        assert [record.id for record in since] == ids
        assert take(broker, "next", limit=100) == ids
        broker.requeue([parent.id], Requeue())
        again = take_one(broker)
        later = [lifecycle.followup_id(again.id, again.token or "", n, clock.now()) for n in range(20)]
        assert not set(later) & set(ids)

    def test_a_repeated_settle_enqueues_no_follow_up_twice(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        following = followup(clock, record)
        for _ in range(2):
            assert settle(broker, record, ttl=100.0, followups=(following,))
        assert settle(broker, take_one(broker, "next"), ttl=100.0)
        assert settle(broker, record, ttl=100.0, followups=(following,))
        assert status_of(broker, following.record.id) is Status.SUCCESS
        assert take(broker, "next") == []

    def test_a_refused_settle_enqueues_no_follow_up(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        clock.advance(LEASE)
        take_one(broker)
        following = followup(clock, record)
        assert not settle(broker, record, ttl=100.0, followups=(following,))
        assert broker.get([following.record.id]) == [None]

    def test_the_delay_of_a_follow_up_counts_from_the_settle(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock)
        following = followup(clock, record, delay=30.0)
        clock.advance(5.0)
        assert settle(broker, record, ttl=100.0, followups=(following,))
        assert take(broker, "next") == []
        clock.advance(29.9)
        assert take(broker, "next") == []
        clock.advance(0.1)
        assert take(broker, "next") == [following.record.id]

    def test_a_follow_up_whose_unique_key_another_job_holds_is_dropped(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        if not self.supports_unique:
            pytest.skip("this driver has no unique keys")
        unique = Unique(key="k")
        holder = replace(new_job(clock, "held"), unique=unique)
        broker.enqueue([holder])
        record = started(broker, clock)
        following, free = followup(clock, record, unique=unique), followup(clock, record)
        assert settle(broker, record, ttl=100.0, followups=(following, free))
        assert take(broker, "next") == [free.record.id]
        assert broker.get([following.record.id]) == [None]
        assert take(broker, "held") == [holder.record.id]

    def test_a_follow_up_holds_its_unique_key(self, broker: Broker, clock: ManualClock) -> None:
        if not self.supports_unique:
            pytest.skip("this driver has no unique keys")
        record = started(broker, clock)
        unique = Unique(key="k", until="period", period=60.0)
        following = followup(clock, record, unique=unique)
        assert settle(broker, record, ttl=100.0, followups=(following,))
        assert record_of(broker, following.record.id).unique_key == "k"
        again = replace(new_job(clock, "next"), unique=unique)
        [answer] = broker.enqueue([again])
        assert (answer.id, answer.created) == (following.record.id, False)
        clock.advance(60.0)
        [answer] = broker.enqueue([again])
        assert (answer.id, answer.created) == (again.record.id, True)

    def test_a_follow_up_takes_over_the_unique_key_of_its_parent(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        if not self.supports_unique:
            pytest.skip("this driver has no unique keys")
        unique = Unique(key="k")
        parent = replace(new_job(clock), unique=unique)
        broker.enqueue([parent])
        record = take_one(broker)
        following = followup(clock, record, unique=unique)
        assert settle(broker, record, ttl=100.0, followups=(following,))
        assert take(broker, "next") == [following.record.id]
        [answer] = broker.enqueue([replace(new_job(clock), unique=unique)])
        assert (answer.id, answer.created) == (following.record.id, False)
