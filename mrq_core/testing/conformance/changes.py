"""Changes by people and rules: requeue, cancel, move, remove; and every legal transition."""

from __future__ import annotations

from itertools import product

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, ChangeResult, Move, RawItem, Remove, Requeue
from mrq_core.contract.queries import JobFilter, LogLine
from mrq_core.contract.record import TRANSITIONS, WAITING, Status, is_legal
from mrq_core.errors import JobNotFound
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    LEASE,
    Contract,
    bring_to,
    lose,
    new_job,
    put,
    put_many,
    record_of,
    settle,
    started,
    status_of,
    take,
    take_one,
)

UNKNOWN_ID = "0" * 24
LEGAL = [(before, now) for before in Status for now in sorted(TRANSITIONS[before])]


class ChangeContract(Contract):
    """What requeue, cancel, move and remove promise."""

    # --- the table -------------------------------------------------------------------------------

    @pytest.mark.parametrize(("before", "now"), LEGAL)
    def test_every_legal_transition_works(
        self, broker: Broker, clock: ManualClock, before: Status, now: Status
    ) -> None:
        job_id = bring_to(broker, clock, before)
        record = record_of(broker, job_id)
        if now is Status.STARTED:
            if before is Status.STARTED:
                lose(clock)
            assert take(broker) == [job_id]
        elif before is Status.STARTED:
            goes_on = now in WAITING
            assert settle(broker, record, now, delay=0.0 if goes_on else None, ttl=None if goes_on else 100.0)
        elif now is Status.CANCEL:
            assert broker.cancel([job_id], Cancel()) == [ChangeResult.DONE]
        else:
            assert broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]
        assert status_of(broker, job_id) is now

    def test_every_illegal_transition_is_refused(self, broker: Broker, clock: ManualClock) -> None:
        for number, (before, now) in enumerate(
            pair for pair in product(Status, Status) if not is_legal(*pair)
        ):
            queue = f"from-{before}-to-{now}-{number}"
            job_id = bring_to(broker, clock, before, queue)
            record = record_of(broker, job_id)
            case = f"{before} -> {now}"
            if now is Status.STARTED:
                assert take(broker, queue) == [], case
            elif now is Status.CANCEL:
                assert broker.cancel([job_id], Cancel()) == [ChangeResult.REFUSED], case
            elif now is Status.QUEUED:
                assert broker.requeue([job_id], Requeue()) == [ChangeResult.REFUSED], case
            elif record.token is not None:
                # The attempt is over: this is a repetition, which changes nothing.
                assert settle(broker, record, now, delay=0.0 if now in WAITING else None), case
            assert record_of(broker, job_id) == record, case

    def test_a_new_job_is_queued_by_enqueue_and_started_by_admit(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        assert TRANSITIONS[None] == {Status.QUEUED, Status.STARTED}
        assert status_of(broker, put(broker, clock)) is Status.QUEUED
        if self.supports_raw:
            raw = broker.raw("some_set")
            raw.push([RawItem(param="a")])
            [taken] = raw.claim(1, LEASE, "w1")
            record = new_job(clock, "q", id=taken.job_id).record
            assert raw.admit([(taken, record)], LEASE) == [True]
            assert status_of(broker, taken.job_id) is Status.STARTED

    # --- requeue -----------------------------------------------------------------------------------

    def test_a_requeued_job_is_queued_as_new(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock, params={"a": 1}, priority=2)
        settle(broker, take_one(broker), Status.FAILED, ttl=100.0, exception_type="E", traceback="T")
        clock.advance(10)
        assert broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]
        record = record_of(broker, job_id)
        assert (record.status, record.queue, record.priority) == (Status.QUEUED, "q", 2)
        assert (record.queued_at, record.due_at) == (clock.now(), clock.now())
        assert (record.ended_at, record.expires_at, record.started_at) == (None, None, None)
        assert (record.exception_type, record.worker) == (None, None)
        [attempt] = record.history
        assert (attempt.status, attempt.exception_type) == (Status.FAILED, "E")
        again = take_one(broker)
        assert (again.id, again.params, again.claims) == (job_id, {"a": 1}, 2)

    def test_a_requeued_job_does_not_expire(self, broker: Broker, clock: ManualClock) -> None:
        job_id = bring_to(broker, clock, Status.FAILED)
        broker.requeue([job_id], Requeue())
        clock.advance(10_000_000)
        assert broker.prune() == 0
        assert take(broker) == [job_id]

    def test_requeue_counts_retries_from_zero(self, broker: Broker, clock: ManualClock) -> None:
        job_id = bring_to(broker, clock, Status.RETRY)
        assert record_of(broker, job_id).retry_count == 1
        broker.requeue([job_id], Requeue())
        assert record_of(broker, job_id).retry_count == 0

    def test_requeue_keeps_the_retries_if_asked(self, broker: Broker, clock: ManualClock) -> None:
        job_id = bring_to(broker, clock, Status.RETRY)
        broker.requeue([job_id], Requeue(reset_retries=False))
        assert record_of(broker, job_id).retry_count == 1

    def test_requeue_can_name_a_queue_and_a_delay(self, broker: Broker, clock: ManualClock) -> None:
        job_id = bring_to(broker, clock, Status.SUCCESS)
        broker.requeue([job_id], Requeue(queue="other", delay=5.0))
        assert record_of(broker, job_id).due_at == after(clock.now(), 5.0)
        clock.advance(5)
        assert take(broker, "q") == []
        assert take(broker, "other") == [job_id]

    def test_requeue_forgets_a_cancel_request(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        broker.cancel([record.id], Cancel())
        settle(broker, record, Status.FAILED, ttl=100.0)
        broker.requeue([record.id], Requeue())
        settle(broker, take_one(broker), Status.RETRY, delay=0.0, is_retry=True)
        assert status_of(broker, record.id) is Status.RETRY

    def test_requeueing_a_poison_job_gives_it_new_chances(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        for _ in range(9):
            take_one(broker)
            lose(clock)
        assert settle(broker, take_one(broker), Status.FAILED, lost=True, ttl=100.0)
        assert broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]
        again = take_one(broker)
        assert (again.lost_claims, again.solo_deaths) == (0, 0)
        lose(clock)
        assert take(broker) == [job_id]

    def test_a_job_requeued_twice_in_one_call_is_queued_once(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = bring_to(broker, clock, Status.FAILED)
        assert broker.requeue([job_id, job_id], Requeue()) == [ChangeResult.DONE, ChangeResult.REFUSED]
        assert take(broker) == [job_id]

    def test_an_interrupted_at_most_once_job_can_be_requeued(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock, at_most_once=True)
        settle(broker, record, Status.INTERRUPT, ttl=100.0)
        assert broker.requeue([record.id], Requeue()) == [ChangeResult.DONE]
        assert take(broker) == [record.id]

    # --- cancel ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("status", [Status.QUEUED, Status.RETRY, Status.INTERRUPT])
    def test_a_cancelled_job_is_never_claimed(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = bring_to(broker, clock, status)
        assert broker.cancel([job_id], Cancel(ttl=50.0)) == [ChangeResult.DONE]
        record = record_of(broker, job_id)
        assert (record.status, record.ended_at) == (Status.CANCEL, clock.now())
        assert record.expires_at == after(clock.now(), 50.0)
        assert take(broker) == []
        assert broker.counts(["q"])[0].waiting == 0

    def test_cancelling_a_started_job_only_marks_it(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        assert broker.cancel([record.id], Cancel()) == [ChangeResult.REQUESTED]
        stored = record_of(broker, record.id)
        assert (stored.status, stored.cancel_requested) == (Status.STARTED, True)
        assert stored.token == record.token
        assert settle(broker, record, ttl=100.0)

    @pytest.mark.parametrize("status", [Status.FAILED, Status.TIMEOUT, Status.MAXRETRIES, Status.ABORT])
    def test_cancelling_an_unsuccessful_job_keeps_its_attempt_in_the_history(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = bring_to(broker, clock, status)
        assert broker.cancel([job_id], Cancel()) == [ChangeResult.DONE]
        [attempt] = record_of(broker, job_id).history
        assert attempt.status is status

    # --- move --------------------------------------------------------------------------------------

    def test_a_moved_job_keeps_due_time_and_priority(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock, priority=3, delay=5.0)
        before = record_of(broker, job_id)
        clock.advance(1)
        assert broker.move([job_id], Move(queue="other")) == [ChangeResult.DONE]
        record = record_of(broker, job_id)
        assert (record.queue, record.due_at, record.priority) == ("other", before.due_at, 3)
        assert record.queued_at == before.queued_at
        clock.advance(4)
        assert take(broker, "q") == []
        assert take(broker, "other") == [job_id]

    @pytest.mark.parametrize("status", list(Status))
    def test_only_waiting_jobs_are_moved(self, broker: Broker, clock: ManualClock, status: Status) -> None:
        job_id = bring_to(broker, clock, status)
        expected = ChangeResult.DONE if status in WAITING else ChangeResult.REFUSED
        assert broker.move([job_id], Move(queue="other")) == [expected]
        assert record_of(broker, job_id).queue == ("other" if expected is ChangeResult.DONE else "q")

    def test_an_interrupted_at_most_once_job_is_not_moved(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock, at_most_once=True)
        settle(broker, record, Status.INTERRUPT, ttl=100.0)
        assert broker.move([record.id], Move(queue="other")) == [ChangeResult.REFUSED]
        assert take(broker, "q", "other") == []

    @pytest.mark.parametrize("status", sorted(WAITING))
    def test_a_job_that_is_moved_to_its_own_queue_is_unchanged(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = bring_to(broker, clock, status)
        other = put(broker, clock, queue="other")
        before = record_of(broker, job_id)
        clock.advance(1)
        answers = broker.move([job_id, other, other], Move(queue="q"))
        assert answers == [ChangeResult.UNCHANGED, ChangeResult.DONE, ChangeResult.UNCHANGED]
        assert record_of(broker, job_id) == before

    def test_a_bulk_move_tells_the_jobs_that_are_in_the_queue_apart(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        for queue in ("q", "other", "other"):
            put(broker, clock, queue=queue)
        applied = broker.apply(JobFilter(), Move(queue="other"))
        assert applied.changes == {ChangeResult.DONE: 1, ChangeResult.UNCHANGED: 2}
        assert applied.matched == 3

    def test_moving_a_retried_job_does_not_change_when_its_attempt_ended(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = bring_to(broker, clock, Status.RETRY)
        ended_at = clock.now()
        clock.advance(5)
        broker.move([job_id], Move(queue="other"))
        [attempt] = take_one(broker, "other").history
        assert attempt.ended_at == ended_at

    # --- remove ------------------------------------------------------------------------------------

    @pytest.mark.parametrize("status", [status for status in Status if status is not Status.STARTED])
    def test_a_removed_job_is_gone_with_its_entry_and_logs(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = bring_to(broker, clock, status)
        line = LogLine(job_id=job_id, attempt=1, seq=0, at=clock.now(), level="INFO", message="m")
        broker.append_logs([line], 1000)
        assert broker.remove([job_id]) == [ChangeResult.DONE]
        assert broker.get([job_id]) == [None]
        assert take(broker) == []
        assert broker.totals().by_status() == {}
        assert broker.find(JobFilter()).records == ()
        assert broker.counts(["q"])[0].waiting == 0
        with pytest.raises(JobNotFound):
            broker.read_logs(job_id)

    def test_a_started_job_is_not_removed(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        assert broker.remove([record.id]) == [ChangeResult.REFUSED]
        assert record_of(broker, record.id) == record

    # --- all ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("action", [Requeue(), Cancel(), Move(queue="other"), Remove()], ids=str)
    def test_answers_line_up_and_an_unknown_id_is_unknown(
        self, broker: Broker, clock: ManualClock, action: Requeue | Cancel | Move | Remove
    ) -> None:
        if isinstance(action, Requeue):
            ids = [bring_to(broker, clock, Status.FAILED) for _ in range(2)]
        else:
            ids = put_many(broker, clock, 2)
        asked = [ids[0], UNKNOWN_ID, "no id at all", ids[1]]
        if isinstance(action, Requeue):
            answers = broker.requeue(asked, action)
        elif isinstance(action, Cancel):
            answers = broker.cancel(asked, action)
        elif isinstance(action, Move):
            answers = broker.move(asked, action)
        else:
            answers = broker.remove(asked)
        assert answers == [ChangeResult.DONE, ChangeResult.UNKNOWN, ChangeResult.UNKNOWN, ChangeResult.DONE]
