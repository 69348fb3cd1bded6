"""The transitions of a job, as pure functions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from mrq_core.clock import after, from_ms
from mrq_core.contract.lifecycle import (
    after_lost_claim,
    archived,
    cancelled,
    claim_number,
    claimed,
    make_token,
    requeued,
    runs_solo,
    settled,
    was_settled_by,
)
from mrq_core.contract.messages import ClaimRequest, Outcome
from mrq_core.contract.record import ENDED, HISTORY_LIMIT, TRANSITIONS, WAITING, JobRecord, Status, is_legal

NOW = from_ms(1_750_000_000_000)
LATER = after(NOW, 10)


def record(**fields: Any) -> JobRecord:
    values: dict[str, Any] = {
        "id": "0" * 24,
        "path": "p",
        "params": {"a": 1},
        "queue": "q",
        "queued_at": NOW,
        "updated_at": NOW,
        "due_at": NOW,
        **fields,
    }
    return JobRecord(**values)


def claim(before: JobRecord, *, now: datetime = NOW, nonce: str = "n1", worker: str = "w") -> JobRecord:
    return claimed(before, now=now, worker=worker, nonce=nonce, lease=60.0)


def retry(before: JobRecord, *, now: datetime = NOW) -> JobRecord:
    return settled(before, Outcome(status=Status.RETRY, delay=0.0, is_retry=True), now)


# --- the table ----------------------------------------------------------------------------------


def test_every_status_has_its_row() -> None:
    assert set(TRANSITIONS) == {None, *Status}


def test_a_status_waits_or_has_ended_or_is_started() -> None:
    assert WAITING.isdisjoint(ENDED)
    assert WAITING | ENDED | {Status.STARTED} == set(Status)


@pytest.mark.parametrize("status", list(Status))
def test_the_properties_of_a_status_follow_the_sets(status: Status) -> None:
    assert status.is_waiting is (status in WAITING)
    assert status.is_ended is (status in ENDED)


@pytest.mark.parametrize("status", list(Status))
def test_what_waits_can_be_claimed_and_what_ended_can_be_requeued(status: Status) -> None:
    assert is_legal(status, Status.STARTED) is (status in WAITING or status is Status.STARTED)
    assert is_legal(status, Status.QUEUED) is (status is not Status.QUEUED)


def test_success_and_cancel_cannot_be_cancelled() -> None:
    refused = {status for status in Status if not is_legal(status, Status.CANCEL)}
    assert refused == {Status.SUCCESS, Status.CANCEL}


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        TRANSITIONS[None] = frozenset()  # type: ignore[index]


def test_statuses_print_as_lower_case_words() -> None:
    assert [str(status) for status in Status] == [status.name.lower() for status in Status]


# --- tokens -------------------------------------------------------------------------------------


@given(st.integers(min_value=1, max_value=10**9))
def test_a_token_contains_its_claim_number(number: int) -> None:
    assert claim_number(make_token(number, "abc")) == number


@pytest.mark.parametrize("text", ["", "1", ".", ".a", "x.a", "-1.a", "1 .a"])
def test_what_is_no_token_has_the_number_zero(text: str) -> None:
    assert claim_number(text) == 0


# --- claimed --------------------------------------------------------------------------------------


def test_a_claim_starts_the_job_under_a_token() -> None:
    after_claim = claim(record(), now=LATER)
    assert after_claim.status is Status.STARTED
    assert (after_claim.started_at, after_claim.updated_at) == (LATER, LATER)
    assert after_claim.lease_until == after_claim.due_at == after(LATER, 60.0)
    assert (after_claim.worker, after_claim.token, after_claim.claims) == ("w", "1.n1", 1)
    assert after_claim.history == ()
    assert after_claim.params == {"a": 1}


def test_a_second_claim_writes_down_the_lost_one() -> None:
    first = claim(record(), worker="w1")
    second = claim(first, now=after(NOW, 100), nonce="n2", worker="w2")
    [attempt] = second.history
    assert (attempt.claim, attempt.token, attempt.worker) == (1, "1.n1", "w1")
    assert (attempt.status, attempt.lost) == (Status.STARTED, True)
    assert attempt.ended_at == first.lease_until
    assert (second.claims, second.token, second.lost_claims, second.solo_deaths) == (2, "2.n2", 1, 0)


def test_a_job_runs_solo_from_its_second_lost_claim_in_a_row_on() -> None:
    job = claim(record())
    solo = []
    for _ in range(4):
        solo.append(runs_solo(job))
        job = claim(job)
    assert solo == [False, False, True, True]


def test_a_claim_after_a_retry_is_no_lost_one() -> None:
    second = claim(retry(claim(record())))
    assert (second.lost_claims, second.retry_count) == (0, 1)
    assert second.history[0].status is Status.RETRY


# --- archived -------------------------------------------------------------------------------------


def test_a_job_that_never_ran_has_nothing_to_archive() -> None:
    before = record()
    assert archived(before) is before


def test_archiving_empties_the_fields_of_the_attempt() -> None:
    failed = settled(
        claim(record()),
        Outcome(
            status=Status.FAILED,
            result=1,
            exception_type="E",
            traceback="T",
            original_traceback="O",
            total_time=1.0,
            greenlet_time=0.5,
            switches=3,
            memory_diff=7,
        ),
        LATER,
    )
    emptied = archived(replace(failed, progress=0.5))
    never_ran = record()
    for field in (
        *("started_at", "worker", "token", "lease_until", "progress", "result"),
        *("exception_type", "traceback", "original_traceback"),
        *("total_time", "greenlet_time", "switches", "memory_diff"),
    ):
        assert getattr(emptied, field) == getattr(never_ran, field), field
    [attempt] = emptied.history
    assert (attempt.exception_type, attempt.traceback, attempt.original_traceback) == ("E", "T", "O")
    assert (attempt.started_at, attempt.ended_at, attempt.lost) == (NOW, LATER, False)
    assert archived(emptied) is emptied


def test_the_history_forgets_the_oldest_first() -> None:
    job = record()
    for _ in range(HISTORY_LIMIT + 5):
        job = retry(claim(job))
    numbers = [attempt.claim for attempt in job.attempts]
    assert numbers == [*range(5, HISTORY_LIMIT + 5), HISTORY_LIMIT + 5]


# --- attempts --------------------------------------------------------------------------------------


def test_attempts_are_those_that_are_over() -> None:
    job = claim(record())
    assert job.attempts == ()
    job = retry(job, now=LATER)
    [attempt] = job.attempts
    assert (attempt.status, attempt.ended_at, attempt.token) == (Status.RETRY, LATER, "1.n1")
    assert claim(job).attempts == (attempt,)


# --- a lost claim -----------------------------------------------------------------------------------

REQUEST = ClaimRequest(worker="w", wanted=(), limit=1, lease=60.0, failed_ttl=100.0)


def test_the_tenth_loss_in_a_row_ends_a_job() -> None:
    job = claim(record())
    for losses in range(1, 10):
        assert after_lost_claim(job, REQUEST, LATER) is None, losses
        job = claim(job)
    assert job.lost_claims == 9
    assert after_lost_claim(job, REQUEST, LATER) is not None


def test_the_deaths_of_a_jobs_own_process_count_among_the_ten() -> None:
    job = record()
    for _ in range(9):
        job = settled(claim(job), DEATH, NOW)
    assert (job.lost_claims, job.solo_deaths) == (9, 9)
    assert after_lost_claim(claim(job), REQUEST, LATER) is not None


def test_a_finished_attempt_begins_a_new_row_of_ten() -> None:
    job = replace(claim(record()), lost_claims=9, solo_deaths=3)
    again = claim(retry(job))
    assert (again.lost_claims, again.solo_deaths) == (0, 0)
    assert after_lost_claim(again, REQUEST, LATER) is None


def test_an_at_most_once_job_ends_with_its_first_loss() -> None:
    assert after_lost_claim(claim(record(at_most_once=True)), REQUEST, LATER) is not None


@pytest.mark.parametrize("at_most_once", [True, False])
def test_a_job_that_must_not_run_again_fails_with_claim_lost(at_most_once: bool) -> None:
    earlier = 0 if at_most_once else 9
    started = claim(record(at_most_once=at_most_once, lost_claims=earlier))
    job = after_lost_claim(started, REQUEST, LATER)
    assert job is not None
    assert (job.status, job.exception_type) == (Status.FAILED, "mrq_core.errors.ClaimLost")
    assert (job.ended_at, job.expires_at) == (LATER, after(LATER, 100.0))
    assert (job.due_at, job.lease_until) == (None, None)
    assert (job.lost_claims, job.solo_deaths) == (earlier + 1, 0)
    assert ("at_most_once" in (job.traceback or "")) is at_most_once
    assert job.is_ended
    assert not was_settled_by(job, "1.n1")


@pytest.mark.parametrize("at_most_once", [True, False])
def test_a_requested_cancel_ends_a_lost_job_as_cancelled(at_most_once: bool) -> None:
    started = replace(claim(record(at_most_once=at_most_once)), cancel_requested=True)
    job = after_lost_claim(started, replace(REQUEST, cancel_ttl=7.0), LATER)
    assert job is not None
    assert (job.status, job.expires_at) == (Status.CANCEL, after(LATER, 7.0))
    assert [attempt.lost for attempt in job.history] == [True]


# --- settled ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", sorted(ENDED))
def test_an_outcome_without_delay_ends_the_job(status: Status) -> None:
    job = settled(claim(record()), Outcome(status=status, ttl=5.0, result=[1], total_time=2.0), LATER)
    assert (job.status, job.result, job.total_time) == (status, [1], 2.0)
    assert (job.ended_at, job.expires_at, job.due_at) == (LATER, after(LATER, 5.0), None)
    assert job.lease_until is None
    assert job.is_ended


@pytest.mark.parametrize("status", sorted(WAITING))
def test_an_outcome_with_a_delay_goes_on(status: Status) -> None:
    outcome = Outcome(status=status, delay=3.0, ttl=5.0, queue="r")
    job = settled(claim(record()), outcome, LATER)
    assert (job.status, job.due_at, job.queue) == (status, after(LATER, 3.0), "r")
    assert (job.ended_at, job.expires_at) == (None, None)
    assert not job.is_ended


def test_only_success_is_complete() -> None:
    half = replace(claim(record()), progress=0.5)
    assert settled(half, Outcome(status=Status.SUCCESS), NOW).progress == 1.0
    assert settled(half, Outcome(status=Status.FAILED), NOW).progress == 0.5


@pytest.mark.parametrize("status", sorted(WAITING))
def test_a_cancel_request_wins_over_going_on(status: Status) -> None:
    running = replace(claim(record()), cancel_requested=True)
    job = settled(running, Outcome(status=status, delay=3.0, queue="r", ttl=9.0, cancel_ttl=5.0), LATER)
    assert (job.status, job.queue, job.due_at) == (Status.CANCEL, "q", None)
    assert (job.ended_at, job.expires_at) == (LATER, after(LATER, 5.0))


@pytest.mark.parametrize("status", sorted(ENDED))
def test_a_cancel_request_does_not_change_an_end(status: Status) -> None:
    running = replace(claim(record()), cancel_requested=True)
    assert settled(running, Outcome(status=status), NOW).status is status


def test_an_attempt_cannot_end_as_started() -> None:
    with pytest.raises(ValueError, match="cannot end"):
        settled(claim(record()), Outcome(status=Status.STARTED), NOW)


# --- losses in a row ----------------------------------------------------------------------------------

DEATH = Outcome(status=Status.QUEUED, delay=0.0, lost=True, exception_type="E", traceback="killed by SIGKILL")
LOST_TWICE = {"lost_claims": 2, "solo_deaths": 1}


@pytest.mark.parametrize("status", sorted(ENDED - {Status.INTERRUPT}))
def test_an_attempt_that_ends_its_job_ends_the_row(status: Status) -> None:
    job = settled(claim(record(**LOST_TWICE)), Outcome(status=status), LATER)
    assert (job.lost_claims, job.solo_deaths) == (0, 0)


@pytest.mark.parametrize("status", [Status.RETRY, Status.QUEUED])
def test_a_retry_ends_the_row(status: Status) -> None:
    job = settled(claim(record(**LOST_TWICE)), Outcome(status=status, delay=0.0, is_retry=True), LATER)
    assert (job.lost_claims, job.solo_deaths) == (0, 0)


@pytest.mark.parametrize(("status", "delay"), [("interrupt", 0.0), ("interrupt", None), ("queued", 0.0)])
def test_an_interrupt_and_a_claim_given_back_leave_the_row(status: str, delay: float | None) -> None:
    job = settled(claim(record(**LOST_TWICE)), Outcome(status=Status(status), delay=delay), LATER)
    assert (job.lost_claims, job.solo_deaths) == (2, 1)


def test_a_lost_attempt_goes_to_the_history_at_once() -> None:
    job = settled(claim(record(**LOST_TWICE)), DEATH, LATER)
    assert (job.status, job.due_at, job.claims) == (Status.QUEUED, LATER, 1)
    assert (job.lost_claims, job.solo_deaths) == (3, 2)
    for field in ("started_at", "worker", "token", "lease_until", "exception_type", "traceback"):
        assert getattr(job, field) is None, field
    [attempt] = job.history
    assert (attempt.claim, attempt.token, attempt.worker) == (1, "1.n1", "w")
    assert (attempt.status, attempt.lost) == (Status.QUEUED, True)
    assert (attempt.started_at, attempt.ended_at) == (NOW, LATER)
    assert (attempt.exception_type, attempt.traceback) == (DEATH.exception_type, DEATH.traceback)
    assert job.attempts == (attempt,)
    assert len(claim(job).history) == 1


def test_a_lost_attempt_that_fails_its_job_stays_the_latest() -> None:
    outcome = Outcome(status=Status.FAILED, lost=True, ttl=5.0, exception_type="E")
    job = settled(claim(record()), outcome, LATER)
    assert (job.status, job.exception_type, job.token) == (Status.FAILED, "E", "1.n1")
    assert (job.lost_claims, job.solo_deaths, job.history) == (1, 1, ())


def test_a_cancel_request_ends_a_job_whose_process_died() -> None:
    job = settled(replace(claim(record()), cancel_requested=True), replace(DEATH, cancel_ttl=5.0), LATER)
    assert (job.status, job.ended_at, job.expires_at) == (Status.CANCEL, LATER, after(LATER, 5.0))
    assert [attempt.lost for attempt in job.history] == [True]


@pytest.mark.parametrize("status", sorted(set(Status) - {Status.QUEUED, Status.FAILED, Status.STARTED}))
def test_a_lost_attempt_ends_as_queued_or_failed(status: Status) -> None:
    delay = 0.0 if status in WAITING else None
    with pytest.raises(ValueError, match="a lost attempt cannot end"):
        settled(claim(record()), Outcome(status=status, delay=delay, lost=True), NOW)


# --- was_settled_by -----------------------------------------------------------------------------------


def test_a_settle_is_remembered_by_its_token() -> None:
    running = claim(record())
    assert not was_settled_by(running, "1.n1")
    waiting = retry(running)
    assert was_settled_by(waiting, "1.n1")
    again = claim(waiting, nonce="n2")
    assert was_settled_by(again, "1.n1")
    assert not was_settled_by(again, "2.n2")
    assert not was_settled_by(again, "1.other")


def test_a_lost_attempt_that_was_settled_is_remembered() -> None:
    waiting = settled(claim(record()), DEATH, LATER)
    assert was_settled_by(waiting, "1.n1")
    assert not was_settled_by(waiting, "1.other")
    assert not was_settled_by(waiting, "")
    assert was_settled_by(claim(waiting, nonce="n2"), "1.n1")


def test_a_lost_claim_was_not_settled() -> None:
    assert not was_settled_by(claim(claim(record()), nonce="n2"), "1.n1")


# --- requeued and cancelled ------------------------------------------------------------------------------


def failed_job() -> JobRecord:
    return settled(
        replace(claim(record()), retry_count=2, lost_claims=3, solo_deaths=2, cancel_requested=True),
        Outcome(status=Status.FAILED, lost=True, ttl=9.0, exception_type="E"),
        NOW,
    )


def test_a_requeued_job_starts_over() -> None:
    job = requeued(failed_job(), now=LATER, queue=None, reset_retries=True)
    assert (job.status, job.queue, job.queued_at, job.due_at) == (Status.QUEUED, "q", LATER, LATER)
    assert (job.ended_at, job.expires_at, job.exception_type) == (None, None, None)
    assert (job.retry_count, job.cancel_requested, job.claims) == (0, False, 1)
    assert (failed_job().lost_claims, failed_job().solo_deaths) == (4, 3)
    assert (job.lost_claims, job.solo_deaths) == (0, 0)
    assert [attempt.status for attempt in job.history] == [Status.FAILED]
    assert was_settled_by(job, "1.n1")


def test_a_requeue_may_name_queue_and_delay_and_keep_the_retries() -> None:
    job = requeued(failed_job(), now=LATER, queue="r", reset_retries=False, delay=4.0)
    assert (job.queue, job.due_at, job.retry_count) == ("r", after(LATER, 4.0), 2)


def test_a_cancelled_job_keeps_its_attempt_in_the_history() -> None:
    job = cancelled(failed_job(), now=LATER, ttl=7.0)
    assert (job.status, job.due_at, job.lease_until) == (Status.CANCEL, None, None)
    assert (job.ended_at, job.expires_at) == (LATER, after(LATER, 7.0))
    assert [attempt.status for attempt in job.history] == [Status.FAILED]
    assert was_settled_by(job, "1.n1")


def test_a_cancelled_lost_job_refuses_its_late_settle() -> None:
    job = cancelled(claim(record()), now=LATER, ttl=7.0)
    assert [attempt.lost for attempt in job.history] == [True]
    assert not was_settled_by(job, "1.n1")


# --- any history -----------------------------------------------------------------------------------------


STEPS = ["claim", "lose", "die", "interrupt", "retry", "fail", "requeue", "cancel"]


@given(st.lists(st.sampled_from(STEPS), max_size=30))
def test_whatever_happens_each_claim_is_in_the_record_once(steps: list[str]) -> None:
    job = record()
    row = 0
    for number, step in enumerate(steps):
        now = after(NOW, number)
        before = job
        if (step == "claim" and job.status.is_waiting) or (step == "lose" and job.status is Status.STARTED):
            job = claim(job, now=now, nonce=str(number))
            row += step == "lose"
        elif step == "die" and job.status is Status.STARTED:
            job = settled(job, DEATH, now)
            row += 1
        elif step == "interrupt" and job.status is Status.STARTED:
            job = settled(job, Outcome(status=Status.INTERRUPT, delay=0.0), now)
        elif step == "retry" and job.status is Status.STARTED:
            job = retry(job, now=now)
        elif step == "fail" and job.status is Status.STARTED:
            job = settled(job, Outcome(status=Status.FAILED, ttl=9.0), now)
        elif step == "requeue" and job.status not in (Status.QUEUED, Status.STARTED):
            job = requeued(job, now=now, queue=None, reset_retries=True)
        elif step == "cancel" and job.status not in (Status.SUCCESS, Status.CANCEL, Status.STARTED):
            job = cancelled(job, now=now, ttl=5.0)
        if step in ("retry", "fail", "requeue") and job is not before:
            row = 0
        running = [job.claims] if job.status is Status.STARTED else []
        numbers = [attempt.claim for attempt in job.attempts] + running
        assert numbers == list(range(1, job.claims + 1))[-len(numbers) :] if numbers else job.claims == 0
        assert job.lost_claims == row
        assert job.solo_deaths <= row
        assert row <= sum(attempt.lost for attempt in job.history) or len(job.history) == HISTORY_LIMIT
        assert (job.due_at is None) == job.is_ended
        assert (job.lease_until is not None) == (job.status is Status.STARTED)
        assert job.is_ended == (job.status in ENDED)
