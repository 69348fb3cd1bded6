"""Leases: renewal, late settles, redelivery, suspects, poison jobs, at_most_once."""

from __future__ import annotations

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import Cancel, ChangeResult, ClaimRef, Note
from mrq_core.contract.record import Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    LEASE,
    SECOND_BEFORE_LEASE_ENDS,
    Contract,
    claim,
    lose,
    put,
    put_many,
    record_of,
    ref,
    settle,
    started,
    status_of,
    take,
    take_one,
)


class LeaseContract(Contract):
    """What renew, annotate and claim promise about leases."""

    # --- renewal -------------------------------------------------------------------------------

    def test_renewing_moves_the_end_of_the_lease(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        clock.advance(30)
        assert broker.renew([ref(record)], 100.0) == [True]
        assert record_of(broker, record.id).lease_until == after(clock.now(), 100.0)
        clock.advance(99.999)
        assert take(broker) == []
        clock.advance(0.001)
        assert take(broker) == [record.id]

    def test_a_renewed_claim_keeps_its_token(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        broker.renew([ref(record)], LEASE)
        assert record_of(broker, record.id).token == record.token
        assert settle(broker, record, ttl=10.0)

    def test_a_job_that_is_busy_for_three_leases_runs_once(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        for _ in range(9):
            clock.advance(LEASE / 3)
            assert take(broker, worker="w2") == []
            assert broker.renew([ref(record)], LEASE) == [True]
        assert settle(broker, record, ttl=10.0)
        assert record_of(broker, record.id).claims == 1

    def test_a_lease_that_ran_out_is_renewed_while_nobody_claimed_the_job(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock)
        clock.advance(LEASE * 5)
        assert broker.renew([ref(record)], LEASE) == [True]
        assert take(broker) == []

    def test_renewing_is_refused_after_a_new_claim(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        lose(clock)
        second = take_one(broker, worker="w2")
        assert broker.renew([ref(record), ref(second)], LEASE) == [False, True]

    @pytest.mark.parametrize("status", [Status.SUCCESS, Status.RETRY])
    def test_renewing_is_refused_after_the_settle(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        record = started(broker, clock)
        settle(broker, record, status, delay=5.0 if status is Status.RETRY else None, ttl=100.0)
        before = record_of(broker, record.id)
        assert broker.renew([ref(record)], LEASE) == [False]
        assert record_of(broker, record.id) == before

    def test_renewals_line_up_with_the_claims(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 3)
        records = claim(broker).records
        wrong = ClaimRef(id=records[1].id, token="1.0000000000000000")
        unknown = ClaimRef(id="0" * 24, token="1.0000000000000000")
        answers = broker.renew([ref(records[0]), wrong, unknown, ref(records[2])], LEASE)
        assert answers == [True, False, False, True]

    # --- progress ------------------------------------------------------------------------------

    def test_progress_is_written_under_the_token(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        assert broker.annotate([Note(id=record.id, token=ref(record).token, progress=0.25)]) == [True]
        assert record_of(broker, record.id).progress == 0.25

    def test_progress_of_an_older_claim_is_refused(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        lose(clock)
        second = take_one(broker)
        notes = [Note(id=record.id, token=ref(held).token, progress=0.5) for held in (record, second)]
        assert broker.annotate([notes[0]]) == [False]
        assert record_of(broker, record.id).progress == 0.0
        assert broker.annotate([*notes, Note(id="0" * 24, token="x", progress=1.0)]) == [False, True, False]

    # --- late settles --------------------------------------------------------------------------

    def test_a_late_settle_is_accepted_while_nobody_claimed_the_job(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock)
        clock.advance(LEASE * 10)
        assert settle(broker, record, result=42, ttl=100.0)
        stored = record_of(broker, record.id)
        assert (stored.status, stored.result, stored.lost_claims) == (Status.SUCCESS, 42, 0)
        assert take(broker) == []

    def test_a_late_settle_is_refused_after_a_new_claim(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        lose(clock)
        second = take_one(broker, worker="w2")
        assert not settle(broker, record, result="late", ttl=100.0)
        assert record_of(broker, record.id) == second
        assert settle(broker, second, result="second", ttl=100.0)
        assert not settle(broker, record, result="later", ttl=100.0)
        assert record_of(broker, record.id).result == "second"

    # --- redelivery ----------------------------------------------------------------------------

    def test_a_lost_job_is_claimed_again_with_a_greater_number(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock)
        lose(clock)
        second = take_one(broker, worker="w2")
        assert second.id == record.id
        assert claim_number(ref(second).token) > claim_number(ref(record).token)
        assert (second.claims, second.lost_claims) == (2, 1)

    def test_the_record_shows_both_attempts(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        clock.advance(LEASE + 5)
        second = take_one(broker, worker="w2")
        settle(broker, second, ttl=100.0)
        first, latest = record_of(broker, record.id).attempts
        assert (first.claim, first.worker, first.lost) == (1, "w1", True)
        assert first.started_at == record.started_at
        assert first.ended_at == record.lease_until
        assert (latest.claim, latest.worker, latest.lost) == (2, "w2", False)
        assert latest.status is Status.SUCCESS

    def test_a_job_that_waits_long_is_not_lost(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        clock.advance(LEASE * 1000)
        assert record_of(broker, job_id).status is Status.QUEUED
        record = take_one(broker)
        assert (record.lost_claims, record.alone) == (0, False)

    # --- suspects ------------------------------------------------------------------------------

    def test_a_suspect_is_not_given_to_a_worker_that_is_not_idle(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock)
        lose(clock)
        answer = claim(broker, worker="w2", idle=False)
        assert answer.records == ()
        assert answer.suspects_due
        assert record_of(broker, record.id).claims == 1

    def test_a_worker_that_is_not_idle_is_given_the_other_jobs(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        started(broker, clock)
        lose(clock)
        others = put_many(broker, clock, 2)
        answer = claim(broker, worker="w2", idle=False)
        assert [record.id for record in answer.records] == others
        assert answer.suspects_due

    def test_without_suspects_nobody_is_told_of_any(self, broker: Broker, clock: ManualClock) -> None:
        started(broker, clock)
        put(broker, clock)
        assert not claim(broker, idle=False).suspects_due
        lose(clock)
        assert not claim(broker, "other", idle=False).suspects_due

    def test_a_suspect_is_claimed_alone(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 3)
        suspects = set(take(broker))
        lose(clock)
        put_many(broker, clock, 3)
        met: set[str] = set()
        for _ in range(6):
            records = claim(broker, worker="w2").records
            if any(record.id in suspects for record in records):
                assert len(records) == 1
                assert records[0].alone
            for record in records:
                assert record.alone is (record.id in suspects)
                settle(broker, record, ttl=100.0)
            met |= {record.id for record in records} & suspects
        assert met == suspects

    def test_a_suspect_of_a_tree_is_claimed_alone_too(self, broker: Broker, clock: ManualClock) -> None:
        put(broker, clock, "main/a")
        put(broker, clock, "main/b")
        assert len(take(broker, "main/")) == 2
        lose(clock)
        assert claim(broker, "main/", idle=False).suspects_due
        assert len(take(broker, "main/", worker="w2")) == 1
        assert len(take(broker, "main/", worker="w3")) == 1

    def test_a_settled_job_is_no_suspect(self, broker: Broker, clock: ManualClock) -> None:
        settle(broker, started(broker, clock), Status.RETRY, delay=5.0, is_retry=True)
        clock.advance(LEASE * 2)
        answer = claim(broker, idle=False)
        assert len(answer.records) == 1
        assert not answer.suspects_due

    # --- condemned -----------------------------------------------------------------------------

    def test_a_poison_job_is_failed_after_it_was_lost_alone_so_often(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = put(broker, clock)
        for attempt in range(1, 4):
            record = take_one(broker, max_lost_claims=2)
            assert (record.claims, record.alone) == (attempt, attempt > 1)
            lose(clock)
        answer = claim(broker, max_lost_claims=2, failed_ttl=500.0)
        assert answer.records == ()
        assert [record.id for record in answer.ended] == [job_id]
        stored = record_of(broker, job_id)
        assert answer.ended == (stored,)
        assert stored.status is Status.FAILED
        assert stored.exception_type == "mrq_core.errors.ClaimLost"
        assert stored.lost_claims == 3
        assert stored.ended_at == clock.now()
        assert stored.expires_at == after(clock.now(), 500.0)
        assert take(broker, max_lost_claims=2) == []

    def test_a_claim_lost_beside_others_does_not_condemn(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        take_one(broker, max_lost_claims=1)
        lose(clock)
        assert take(broker, max_lost_claims=1) == [job_id]

    def test_an_at_most_once_job_is_failed_when_its_lease_runs_out(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock, at_most_once=True)
        lose(clock)
        answer = claim(broker, worker="w2")
        assert answer.records == ()
        [ended] = answer.ended
        assert (ended.id, ended.status) == (record.id, Status.FAILED)
        assert ended.exception_type == "mrq_core.errors.ClaimLost"
        assert record_of(broker, record.id).claims == 1

    def test_a_settle_after_the_condemnation_is_refused(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock, at_most_once=True)
        lose(clock)
        claim(broker)
        assert not settle(broker, record, ttl=100.0)
        assert broker.renew([ref(record)], LEASE) == [False]
        assert status_of(broker, record.id) is Status.FAILED

    def test_an_at_most_once_job_settled_late_is_not_failed(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock, at_most_once=True)
        clock.advance(LEASE * 3)
        assert settle(broker, record, ttl=100.0)
        assert claim(broker).ended == ()
        assert status_of(broker, record.id) is Status.SUCCESS

    def test_a_lost_job_whose_cancellation_was_requested_is_cancelled(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock)
        assert broker.cancel([record.id], Cancel()) == [ChangeResult.REQUESTED]
        clock.advance(SECOND_BEFORE_LEASE_ENDS)
        assert claim(broker).ended == ()
        clock.advance(1)
        answer = claim(broker, cancel_ttl=50.0)
        assert answer.records == ()
        [ended] = answer.ended
        assert (ended.id, ended.status) == (record.id, Status.CANCEL)
        assert ended.expires_at == after(clock.now(), 50.0)
        assert not settle(broker, record, ttl=100.0)
        [attempt] = record_of(broker, record.id).history
        assert attempt.lost
