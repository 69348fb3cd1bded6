"""Unique keys: reserved with the job, held while queued, until done, or for a period.

`record_keys` has those that are held as long as the record exists.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, ChangeResult, Enqueued, Move, NewJob, Requeue, Unique
from mrq_core.contract.record import Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    LEASE,
    Contract,
    lose,
    new_job,
    record_of,
    settle,
    take,
    take_one,
)

QUEUED = Unique(key="k", until="queued")
DONE = Unique(key="k", until="done")
PERIOD = Unique(key="k", until="period", period=600.0)
ENDS = [Status.SUCCESS, Status.FAILED, Status.ABORT, Status.TIMEOUT, Status.MAXRETRIES, Status.CANCEL]


def is_free(broker: Broker, clock: ManualClock, key: str = "k") -> bool:
    """Whether the key is free; takes it if so."""
    [answer] = broker.enqueue([new_job(clock, "other", unique=Unique(key=key, until="done"))])
    return answer.created


def put_unique(broker: Broker, clock: ManualClock, unique: Unique) -> str:
    job = new_job(clock, unique=unique)
    assert broker.enqueue([job]) == [Enqueued(id=job.record.id, created=True)]
    return job.record.id


class UniqueContract(Contract):
    """What enqueue, claim, settle and requeue promise about unique keys."""

    @pytest.fixture(autouse=True)
    def _needs_unique_keys(self) -> None:
        if not self.supports_unique:
            pytest.skip("this driver has no unique keys")

    @pytest.mark.parametrize("unique", [QUEUED, DONE, PERIOD], ids=lambda unique: unique.until)
    def test_while_a_job_holds_the_key_nothing_is_stored_and_the_holder_is_the_answer(
        self, broker: Broker, clock: ManualClock, unique: Unique
    ) -> None:
        holder = put_unique(broker, clock, unique)
        second = new_job(clock, unique=unique)
        assert broker.enqueue([second]) == [Enqueued(id=holder, created=False)]
        assert broker.get([second.record.id]) == [None]
        assert take(broker) == [holder]

    def test_of_two_jobs_with_the_same_key_in_one_call_the_first_is_created(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        jobs = [new_job(clock, unique=DONE), new_job(clock), new_job(clock, unique=DONE)]
        first, free, _ = (job.record.id for job in jobs)
        assert broker.enqueue(jobs) == [
            Enqueued(id=first, created=True),
            Enqueued(id=free, created=True),
            Enqueued(id=first, created=False),
        ]

    def test_the_record_shows_the_key(self, broker: Broker, clock: ManualClock) -> None:
        assert record_of(broker, put_unique(broker, clock, DONE)).unique_key == "k"

    def test_enqueueing_the_holder_again_answers_with_its_id(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job = new_job(clock, unique=DONE)
        broker.enqueue([job])
        assert broker.enqueue([job]) == [Enqueued(id=job.record.id, created=False)]

    @pytest.mark.parametrize("key", ["", "k2", "K", "k ", "k%", "*", "$k", "k.k", "ключ", "k'", "k" * 500])
    def test_other_keys_are_other_keys(self, broker: Broker, clock: ManualClock, key: str) -> None:
        put_unique(broker, clock, DONE)
        assert is_free(broker, clock, key)
        assert not is_free(broker, clock, key)

    def test_keys_are_shared_by_all_queues(self, broker: Broker, clock: ManualClock) -> None:
        put_unique(broker, clock, DONE)
        assert not is_free(broker, clock)

    def test_a_key_held_while_queued_is_free_once_the_job_is_claimed(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_unique(broker, clock, QUEUED)
        take_one(broker)
        assert is_free(broker, clock)

    def test_a_key_held_while_queued_is_not_taken_back_by_a_retry(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_unique(broker, clock, QUEUED)
        settle(broker, take_one(broker), Status.RETRY, delay=5.0, is_retry=True)
        assert is_free(broker, clock)

    @pytest.mark.parametrize("status", ENDS)
    def test_a_key_held_until_done_is_free_once_the_job_has_ended(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        put_unique(broker, clock, DONE)
        record = take_one(broker)
        assert not is_free(broker, clock)
        settle(broker, record, status, ttl=100.0)
        assert is_free(broker, clock)

    @pytest.mark.parametrize("status", [Status.RETRY, Status.INTERRUPT, Status.QUEUED])
    def test_a_key_held_until_done_is_held_while_the_job_is_to_run_again(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        put_unique(broker, clock, DONE)
        settle(broker, take_one(broker), status, delay=0.0)
        assert not is_free(broker, clock)

    def test_a_key_held_until_done_is_held_over_a_lost_claim(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_unique(broker, clock, DONE)
        take_one(broker)
        lose(clock)
        assert not is_free(broker, clock)
        take_one(broker)
        assert not is_free(broker, clock)

    def test_a_condemned_job_lets_its_key_go(self, broker: Broker, clock: ManualClock) -> None:
        broker.enqueue([new_job(clock, unique=DONE, at_most_once=True)])
        take_one(broker)
        lose(clock)
        assert take(broker) == []
        assert is_free(broker, clock)

    @pytest.mark.parametrize("unique", [QUEUED, DONE], ids=lambda unique: unique.until)
    def test_a_cancelled_job_lets_its_key_go(
        self, broker: Broker, clock: ManualClock, unique: Unique
    ) -> None:
        job_id = put_unique(broker, clock, unique)
        broker.cancel([job_id], Cancel())
        assert is_free(broker, clock)

    def test_a_key_held_for_a_period_is_held_that_long_whatever_becomes_of_the_job(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_unique(broker, clock, PERIOD)
        settle(broker, take_one(broker), ttl=10_000.0)
        clock.advance(599)
        assert not is_free(broker, clock)
        clock.advance(1)
        assert is_free(broker, clock)

    def test_the_end_of_a_period_does_not_end_the_job(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put_unique(broker, clock, PERIOD)
        clock.advance(600)
        assert is_free(broker, clock)
        assert take(broker) == [job_id]

    def test_an_earlier_job_does_not_let_go_a_key_that_another_holds_by_now(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_unique(broker, clock, QUEUED)
        record = take_one(broker)
        put_unique(broker, clock, DONE)
        settle(broker, record, ttl=100.0)
        assert broker.remove([record.id]) == [ChangeResult.DONE]
        assert not is_free(broker, clock)

    @pytest.mark.parametrize("unique", [QUEUED, DONE, PERIOD], ids=lambda unique: unique.until)
    def test_a_removed_job_takes_its_key_along(
        self, broker: Broker, clock: ManualClock, unique: Unique
    ) -> None:
        job_id = put_unique(broker, clock, unique)
        assert broker.remove([job_id]) == [ChangeResult.DONE]
        assert is_free(broker, clock)

    def test_a_moved_job_keeps_its_key(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put_unique(broker, clock, QUEUED)
        assert broker.move([job_id], Move(queue="elsewhere")) == [ChangeResult.DONE]
        assert not is_free(broker, clock)
        take_one(broker, "elsewhere")
        assert is_free(broker, clock)

    def test_requeue_into_a_key_that_another_job_holds_is_refused(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = put_unique(broker, clock, DONE)
        settle(broker, take_one(broker), Status.FAILED, ttl=10_000.0)
        holder = put_unique(broker, clock, DONE)
        before = record_of(broker, job_id)
        assert broker.requeue([job_id], Requeue()) == [ChangeResult.HELD]
        assert record_of(broker, job_id) == before
        assert take(broker) == [holder]

    @pytest.mark.parametrize("unique", [QUEUED, DONE], ids=lambda unique: unique.until)
    def test_requeue_takes_the_key_again(self, broker: Broker, clock: ManualClock, unique: Unique) -> None:
        job_id = put_unique(broker, clock, unique)
        settle(broker, take_one(broker), Status.FAILED, ttl=10_000.0)
        assert broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]
        assert not is_free(broker, clock)
        settle(broker, take_one(broker), ttl=10_000.0)
        assert is_free(broker, clock)

    def test_requeue_into_a_period_of_its_own_is_done(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put_unique(broker, clock, PERIOD)
        settle(broker, take_one(broker), Status.FAILED, ttl=10_000.0)
        assert broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]

    def test_a_period_counts_from_the_enqueue_and_is_not_begun_again_by_requeue(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = put_unique(broker, clock, PERIOD)
        settle(broker, take_one(broker), Status.FAILED, ttl=10_000.0)
        clock.advance(600)
        assert broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]
        assert is_free(broker, clock)

    def test_a_pruned_job_does_not_end_the_period_of_its_key(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_unique(broker, clock, PERIOD)
        settle(broker, take_one(broker), ttl=1.0)
        clock.advance(LEASE)
        assert broker.prune() == 1
        assert not is_free(broker, clock)

    def test_of_two_jobs_with_one_key_requeued_in_one_call_the_first_is_done(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = []
        for _ in range(2):
            ids.append(put_unique(broker, clock, DONE))
            settle(broker, take_one(broker), Status.FAILED, ttl=10_000.0)
        assert broker.requeue(ids, Requeue()) == [ChangeResult.DONE, ChangeResult.HELD]

    def test_a_pruned_job_leaves_no_key(self, broker: Broker, clock: ManualClock) -> None:
        put_unique(broker, clock, DONE)
        settle(broker, take_one(broker), ttl=1.0)
        clock.advance(LEASE)
        assert broker.prune() == 1
        assert is_free(broker, clock)

    def test_the_id_comes_before_the_key(self, broker: Broker, clock: ManualClock) -> None:
        holder = put_unique(broker, clock, DONE)
        other = new_job(clock)
        broker.enqueue([other])
        again = NewJob(record=replace(other.record, unique_key="k"), unique=DONE)
        assert broker.enqueue([again]) == [Enqueued(id=other.record.id, created=False)]
        assert not is_free(broker, clock)
        assert holder != other.record.id
