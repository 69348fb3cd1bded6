"""How one record becomes the next: the transitions of a job as pure functions.

A driver that can read and write a record inside one transaction applies these; a driver whose
server computes the change (Lua, an update pipeline) does the same there, and is held to it by
the tests. Every function takes the server's time and returns a new record. The caller guards the
token and, but for `changed`, the status.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.messages import (
    Action,
    Cancel,
    ChangeResult,
    ClaimRequest,
    Move,
    Outcome,
    Remove,
    Requeue,
)
from mrq_core.contract.record import CANCELLABLE, HISTORY_LIMIT, Attempt, JobRecord, Status, is_legal

RUN_AGAIN = frozenset({Status.RETRY, Status.INTERRUPT, Status.QUEUED})
"""Outcomes after which the job runs again; a cancel request turns them into `cancel`."""


def claim_number(token: str) -> int:
    """The number of the claim that the token proves, which only grows. 0 for an invalid token."""
    number, separator, _ = token.partition(".")
    return int(number) if separator and number.isascii() and number.isdecimal() else 0


def make_token(number: int, nonce: str) -> str:
    """The token of the claim with this number. The nonce distinguishes it from a claim with the same number
    on a later job with the same id."""
    return f"{number}.{nonce}"


def claimed(
    record: JobRecord, *, now: datetime, worker: str, nonce: str, lease: float, alone: bool
) -> JobRecord:
    """The record under a new claim. A claim that it replaces goes to the history as lost."""
    record = archived(record, now)
    number = record.claims + 1
    until = after(now, lease)
    return replace(
        record,
        status=Status.STARTED,
        started_at=now,
        updated_at=now,
        due_at=until,
        lease_until=until,
        worker=worker,
        token=make_token(number, nonce),
        claims=number,
        alone=alone,
        progress=0.0,
    )


def admitted(record: JobRecord, *, job_id: str, token: str, now: datetime, lease: float) -> JobRecord:
    """The record of a job that starts claimed, because its parameter was claimed from a raw queue."""
    until = after(now, lease)
    return replace(
        record,
        id=job_id,
        token=token,
        claims=claim_number(token),
        status=Status.STARTED,
        queued_at=now,
        started_at=now,
        updated_at=now,
        due_at=until,
        lease_until=until,
    )


def archived(record: JobRecord, now: datetime) -> JobRecord:
    """The record with its latest attempt moved to the history, and the fields of that attempt empty.

    An attempt that is still `started` was lost: its lease expired, and the end of the lease counts as the
    end of the attempt.
    """
    if record.started_at is None:
        return record
    lost = record.status is Status.STARTED
    attempt = Attempt(
        claim=record.claims,
        token=record.token or "",
        started_at=record.started_at,
        ended_at=(record.lease_until if lost else record.ended_at or record.updated_at) or now,
        worker=record.worker or "",
        status=record.status,
        lost=lost,
        exception_type=record.exception_type,
        traceback=record.traceback,
        original_traceback=record.original_traceback,
    )
    return replace(
        record,
        history=(*record.history, attempt)[-HISTORY_LIMIT:],
        lost_claims=record.lost_claims + lost,
        lost_alone=record.lost_alone + (lost and record.alone),
        started_at=None,
        worker=None,
        token=None,
        lease_until=None,
        alone=False,
        progress=0.0,
        result=None,
        exception_type=None,
        traceback=None,
        original_traceback=None,
        total_time=None,
        greenlet_time=None,
        switches=None,
        memory_diff=None,
    )


def has_expired(record: JobRecord, now: datetime) -> bool:
    """Whether the retention time of the record is over."""
    return record.expires_at is not None and record.expires_at <= now


def after_lost_claim(record: JobRecord, request: ClaimRequest, now: datetime) -> JobRecord | None:
    """The end of a started job whose lease ran out. None: the job may be claimed again.

    A requested cancel ends the job. So does the loss of an at_most_once job, and of a poison job, which was
    lost `request.max_lost_claims` times, this time included, while it was the only job in its worker.
    """
    if record.cancel_requested:
        return cancelled(record, now=now, ttl=request.cancel_ttl)
    losses_alone = record.lost_alone + record.alone
    if record.at_most_once:
        why = "an at_most_once job is never started twice"
    elif losses_alone >= request.max_lost_claims:
        why = f"it was lost {losses_alone} times while it ran alone in its worker"
    else:
        return None
    return replace(
        record,
        status=Status.FAILED,
        due_at=None,
        lease_until=None,
        token=None,  # a late settle must be refused, not taken for a repeated one
        lost_claims=record.lost_claims + 1,
        lost_alone=losses_alone,
        updated_at=now,
        ended_at=now,
        expires_at=after(now, request.failed_ttl),
        exception_type="mrq_core.errors.ClaimLost",
        traceback=(
            f"mrq_core.errors.ClaimLost: the lease of worker {record.worker} ran out while it ran this job, "
            f"and {why}"
        ),
    )


def settled(record: JobRecord, outcome: Outcome, now: datetime) -> JobRecord:
    """The record after its latest attempt ended with this outcome.

    A cancel request wins over an outcome that would run the job again. The token stays, so that
    a repeated settle can be distinguished from a late settle. Raises ValueError for an illegal outcome.
    """
    _check_outcome(outcome)
    status, delay, ttl = outcome.status, outcome.delay, outcome.ttl
    if record.cancel_requested and status in RUN_AGAIN:
        status, delay, ttl = Status.CANCEL, None, outcome.cancel_ttl
    ended = delay is None
    return replace(
        record,
        status=status,
        queue=record.queue if outcome.queue is None or ended else outcome.queue,
        due_at=None if delay is None else after(now, delay),
        lease_until=None,
        updated_at=now,
        ended_at=now if ended else None,
        expires_at=None if delay is not None or ttl is None else after(now, ttl),
        retry_count=record.retry_count + outcome.is_retry,
        result=outcome.result,
        exception_type=outcome.exception_type,
        traceback=outcome.traceback,
        original_traceback=outcome.original_traceback,
        total_time=outcome.total_time,
        greenlet_time=outcome.greenlet_time,
        switches=outcome.switches,
        memory_diff=outcome.memory_diff,
        progress=1.0 if status is Status.SUCCESS else record.progress,
    )


def _check_outcome(outcome: Outcome) -> None:
    """Raises ValueError unless status and delay agree. Only `interrupt` allows both, for at_most_once
    jobs."""
    runs_again = outcome.delay is not None
    if outcome.status is Status.STARTED or not is_legal(Status.STARTED, outcome.status):
        raise ValueError(f"an attempt cannot end as {outcome.status}")
    if outcome.status is not Status.INTERRUPT and runs_again is outcome.status.is_ended:
        raise ValueError(f"an attempt that ends as {outcome.status} cannot have the delay {outcome.delay}")


def was_admitted_by(record: JobRecord, token: str) -> bool:
    """Whether the claim of a parameter was admitted earlier: the answer to a repeated admit."""
    return record.token == token or any(attempt.token == token for attempt in record.history)


def was_settled_by(record: JobRecord, token: str) -> bool:
    """Whether a settle with this token was accepted earlier: the answer to a repeated settle."""
    if not token:
        return False
    if record.token == token:
        return record.status is not Status.STARTED
    return any(attempt.token == token and not attempt.lost for attempt in record.history)


def requeued(
    record: JobRecord, *, now: datetime, queue: str | None, reset_retries: bool, delay: float = 0.0
) -> JobRecord:
    """The record after a requeue. Its latest attempt goes to the history."""
    return replace(
        archived(record, now),
        status=Status.QUEUED,
        queue=queue or record.queue,
        queued_at=now,
        due_at=after(now, delay),
        updated_at=now,
        ended_at=None,
        expires_at=None,
        cancel_requested=False,
        retry_count=0 if reset_retries else record.retry_count,
        lost_alone=0,
    )


def cancelled(record: JobRecord, *, now: datetime, ttl: float) -> JobRecord:
    """The record after a cancel. Its latest attempt goes to the history."""
    return replace(
        archived(record, now),
        status=Status.CANCEL,
        due_at=None,
        lease_until=None,
        updated_at=now,
        ended_at=now,
        expires_at=after(now, ttl),
    )


# --- changes by operators and rules -----------------------------------------------------------------


def changed(record: JobRecord, action: Action, now: datetime) -> tuple[ChangeResult, JobRecord | None]:
    """What an action makes of a job: the answer, and the record after it. None: the job is deleted.

    A refused action returns the record unchanged. The caller reserves the unique key of a requeued job
    again, and refuses the requeue (HELD) where another job holds the key.
    """
    match action:
        case Requeue():
            return _requeue(record, action, now)
        case Cancel():
            return _cancel(record, action, now)
        case Move():
            return _move(record, action)
        case Remove():
            refused = record.status is Status.STARTED
            return (ChangeResult.REFUSED, record) if refused else (ChangeResult.DONE, None)


def _requeue(record: JobRecord, how: Requeue, now: datetime) -> tuple[ChangeResult, JobRecord]:
    if record.status in (Status.QUEUED, Status.STARTED):
        return ChangeResult.REFUSED, record
    again = requeued(record, now=now, queue=how.queue, reset_retries=how.reset_retries, delay=how.delay)
    return ChangeResult.DONE, again


def _cancel(record: JobRecord, how: Cancel, now: datetime) -> tuple[ChangeResult, JobRecord]:
    if record.status is Status.STARTED:
        return ChangeResult.REQUESTED, replace(record, cancel_requested=True, updated_at=now)
    if record.status not in CANCELLABLE:
        return ChangeResult.REFUSED, record
    return ChangeResult.DONE, cancelled(record, now=now, ttl=how.ttl)


def _move(record: JobRecord, how: Move) -> tuple[ChangeResult, JobRecord]:
    if not record.status.is_waiting or record.is_ended:
        return ChangeResult.REFUSED, record
    # updated_at stays: for a job that waits to be retried it says when its attempt ended
    return ChangeResult.DONE, replace(record, queue=how.queue)
