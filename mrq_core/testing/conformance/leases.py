"""Leases: renewal, late settles, redelivery, suspects, poison jobs, at_most_once."""

from __future__ import annotations

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.lifecycle import claim_number
from mrq_core.contract.messages import Cancel, ChangeResult, ClaimRef, Note, Wanted
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
    settlement,
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
        assert (record.claims, record.lost_claims) == (1, 0)

    # --- suspects ------------------------------------------------------------------------------

    def test_suspects_are_claimed_beside_waiting_jobs_up_to_their_limit(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        lost = _lost(broker, clock, 4)
        waiting = put_many(broker, clock, 6)
        assert take(broker, worker="w2", limit=5, lost_limit=2) == [*lost[:2], *waiting[:3]]
        assert take(broker, worker="w2", limit=2, lost_limit=0) == waiting[3:5]

    def test_no_more_suspects_are_claimed_than_their_limit(self, broker: Broker, clock: ManualClock) -> None:
        lost = _lost(broker, clock, 4)
        assert take(broker, worker="w2", lost_limit=3) == lost[:3]
        assert take(broker, worker="w2", lost_limit=0) == []
        assert take(broker, worker="w2", limit=1, lost_limit=5) == lost[3:]

    def test_suspects_are_claimed_in_the_order_of_the_queues_and_of_their_leases(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_many(broker, clock, 3)
        third, first, second = (take_one(broker, lease=lease).id for lease in (3.0, 1.0, 2.0))
        other = started(broker, clock, "other").id
        clock.advance(LEASE)
        assert take(broker, "q", "other", limit=2, lost_limit=2) == [first, second]
        assert take(broker, "other", "q", limit=2, lost_limit=2) == [other, third]

    def test_the_suspects_of_a_tree_are_claimed(self, broker: Broker, clock: ManualClock) -> None:
        put(broker, clock, "main/a")
        put(broker, clock, "main/b")
        lost = set(take(broker, "main/"))
        lose(clock)
        waiting = put(broker, clock, "main/c")
        assert set(take(broker, "main/", worker="w2", lost_limit=2)) == {*lost, waiting}

    def test_suspects_do_not_count_for_a_quota(self, broker: Broker, clock: ManualClock) -> None:
        lost = _lost(broker, clock, 2)
        waiting = put_many(broker, clock, 3)
        assert take(broker, Wanted(name="q", quota=1), lost_limit=1, limit=2) == [lost[0], waiting[0]]

    def test_many_suspects_are_claimed_in_a_few_calls(self, broker: Broker, clock: ManualClock) -> None:
        lost = _lost(broker, clock, 50)
        taken: list[str] = []
        for _ in range(10):
            answer = claim(broker, worker="w2", limit=100, lost_limit=100)
            taken += [record.id for record in answer.records]
            if answer.next_due is None or answer.next_due > answer.now:
                break
        assert sorted(taken) == sorted(lost)

    def test_suspects_are_due_for_a_worker_that_may_claim_them(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        _lost(broker, clock, 3)
        answer = claim(broker, worker="w2", limit=1, lost_limit=2)
        assert len(answer.records) == 1
        assert answer.next_due is not None
        assert answer.next_due <= answer.now
        for lost_limit, number in ((1, 1), (0, 0)):
            answer = claim(broker, worker="w2", lost_limit=lost_limit)
            assert len(answer.records) == number
            assert answer.next_due is None or answer.next_due > answer.now

    def test_a_settled_job_is_no_suspect(self, broker: Broker, clock: ManualClock) -> None:
        settle(broker, started(broker, clock), Status.RETRY, delay=5.0, is_retry=True)
        clock.advance(LEASE * 2)
        again = take_one(broker)
        assert (again.claims, again.lost_claims, again.retry_count) == (2, 0, 1)

    # --- losses in a row -----------------------------------------------------------------------

    def test_lost_claims_in_a_row_are_counted_until_an_attempt_is_finished(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put(broker, clock)
        for losses in range(3):
            record = take_one(broker)
            assert record.lost_claims == losses
            lose(clock)
        record = take_one(broker)
        assert settle(broker, record, Status.RETRY, delay=0.0, is_retry=True)
        again = take_one(broker)
        assert (again.lost_claims, [attempt.lost for attempt in again.attempts]) == (0, [True] * 3 + [False])
        lose(clock)
        last = take_one(broker)
        assert last.lost_claims == 1
        assert settle(broker, last, ttl=100.0)
        assert record_of(broker, last.id).lost_claims == 0

    @pytest.mark.parametrize("status", [Status.INTERRUPT, Status.QUEUED])
    def test_an_unfinished_attempt_does_not_end_the_row(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        record = started(broker, clock)
        lose(clock)
        assert settle(broker, take_one(broker), status, delay=0.0)
        assert settle(broker, take_one(broker), Status.QUEUED, delay=0.0, lost=True)
        assert settle(broker, take_one(broker), status, delay=0.0)
        stored = record_of(broker, record.id)
        assert (stored.lost_claims, stored.solo_deaths) == (2, 1)

    def test_the_tenth_lost_claim_in_a_row_fails_a_job(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        for attempt in range(1, 11):
            assert take_one(broker).claims == attempt
            lose(clock)
        answer = claim(broker, failed_ttl=500.0)
        assert answer.records == ()
        assert [record.id for record in answer.ended] == [job_id]
        stored = record_of(broker, job_id)
        assert answer.ended == (stored,)
        assert stored.status is Status.FAILED
        assert stored.exception_type == "mrq_core.errors.ClaimLost"
        assert stored.lost_claims == 10
        assert stored.ended_at == clock.now()
        assert stored.expires_at == after(clock.now(), 500.0)
        assert take(broker) == []

    def test_ten_lost_claims_that_are_not_in_a_row_fail_no_job(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = put(broker, clock)
        for attempt in range(1, 13):
            record = take_one(broker)
            if attempt == 7:
                assert settle(broker, record, Status.RETRY, delay=0.0, is_retry=True)
            else:
                lose(clock)
        assert take(broker) == [job_id]

    def test_a_lost_attempt_is_archived_and_the_job_is_due_at_once(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock)
        clock.advance(1)
        died = {"exception_type": "mrq_core.errors.ProcessDied", "traceback": "killed by SIGKILL"}
        assert settle(broker, record, Status.QUEUED, delay=0.0, lost=True, **died)
        stored = record_of(broker, record.id)
        assert (stored.status, stored.due_at, stored.started_at) == (Status.QUEUED, clock.now(), None)
        assert (stored.lost_claims, stored.solo_deaths, stored.exception_type) == (1, 1, None)
        [attempt] = stored.attempts
        assert (attempt.lost, attempt.status, attempt.ended_at) == (True, Status.QUEUED, clock.now())
        assert (attempt.exception_type, attempt.traceback) == tuple(died.values())
        second = take_one(broker)
        assert (second.id, second.claims, second.lost_claims) == (record.id, 2, 1)

    def test_a_lost_attempt_is_settled_once(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        lost = settlement(record, Status.QUEUED, delay=0.0, lost=True, exception_type="E")
        assert [broker.settle([lost]) for _ in range(2)] == [[True], [True]]
        assert record_of(broker, record.id).lost_claims == 1
        assert settle(broker, take_one(broker), Status.QUEUED, delay=0.0, lost=True)
        assert broker.settle([lost]) == [True]
        assert record_of(broker, record.id).lost_claims == 2

    def test_a_lost_attempt_that_fails_its_job_counts(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        assert settle(broker, record, Status.FAILED, lost=True, ttl=100.0, exception_type="E")
        stored = record_of(broker, record.id)
        assert (stored.status, stored.exception_type) == (Status.FAILED, "E")
        assert (stored.lost_claims, stored.solo_deaths) == (1, 1)
        assert take(broker) == []

    def test_a_lost_attempt_of_a_cancelled_job_cancels_it(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        broker.cancel([record.id], Cancel())
        assert settle(broker, record, Status.QUEUED, delay=0.0, lost=True, cancel_ttl=100.0)
        stored = record_of(broker, record.id)
        assert (stored.status, [attempt.lost for attempt in stored.history]) == (Status.CANCEL, [True])
        assert take(broker) == []

    def test_a_late_lost_attempt_is_refused(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        lose(clock)
        second = take_one(broker)
        assert not settle(broker, record, Status.QUEUED, delay=0.0, lost=True)
        assert record_of(broker, record.id) == second

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


def _lost(broker: Broker, clock: ManualClock, number: int) -> list[str]:
    """Jobs whose leases expire one after the other."""
    put_many(broker, clock, number)
    lost = [take_one(broker, lease=LEASE + n * 0.001).id for n in range(number)]
    clock.advance(LEASE + 1)
    return lost
