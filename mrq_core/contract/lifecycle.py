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
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import (
    Action,
    Cancel,
    ChangeResult,
    ClaimRequest,
    Edit,
    Move,
    Outcome,
    Remove,
    Requeue,
)
from mrq_core.contract.record import CANCELLABLE, HISTORY_LIMIT, Attempt, JobRecord, Status, is_legal
from mrq_core.contract.terms import MOST_KEYS, error_group
from mrq_core.ids import derived_id

_CLAIM_LOST = "mrq_core.errors.ClaimLost"
DAMAGED = "mrq_core.errors.JobDamaged"
"""The exception of a job that was set aside, because its stored data cannot be read."""
RUN_AGAIN = frozenset({Status.RETRY, Status.INTERRUPT, Status.QUEUED})
"""Outcomes after which the job runs again; a cancel request turns them into `cancel`."""
SOLO_FROM = 2
"""From this number of claims lost in a row on, the job runs in a separate process."""
MOST_LOST_CLAIMS = 10
"""With this number of claims lost in a row, whatever lost them, the job fails."""


def claim_number(token: str) -> int:
    """The number of the claim that the token proves, which only grows. 0 for an invalid token."""
    number, separator, _ = token.partition(".")
    return int(number) if separator and number.isascii() and number.isdecimal() else 0


def make_token(number: int, nonce: str) -> str:
    """The token of the claim with this number. The nonce distinguishes it from a claim with the same number
    on a later job with the same id."""
    return f"{number}.{nonce}"


def claimed(record: JobRecord, *, now: datetime, worker: str, nonce: str, lease: float) -> JobRecord:
    """The record under a new claim. A claim that it replaces goes to the history as lost."""
    record = archived(record)
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


def runs_solo(record: JobRecord) -> bool:
    """Whether the job runs in a separate process because its claims were lost."""
    return record.lost_claims >= SOLO_FROM


def archived(record: JobRecord) -> JobRecord:
    """The record with its latest attempt moved to the history, and the fields of that attempt empty.

    An attempt that is still `started` was lost: its lease expired, and the end of the lease counts as the
    end of the attempt.
    """
    if record.started_at is None:
        return record
    lost = record.status is Status.STARTED
    return _archived(record, record.started_at, lost=lost, lost_claims=record.lost_claims + lost)


def _archived(record: JobRecord, started_at: datetime, *, lost: bool, lost_claims: int) -> JobRecord:
    attempt = Attempt(
        claim=record.claims,
        token=record.token or "",
        started_at=started_at,
        ended_at=record.ended_at or record.lease_until or record.updated_at,
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
        lost_claims=lost_claims,
        started_at=None,
        worker=None,
        token=None,
        lease_until=None,
        progress=0.0,
        result=None,
        exception_type=None,
        exception_message=None,
        error_group=None,
        traceback=None,
        original_traceback=None,
        total_time=None,
        greenlet_time=None,
        switches=None,
        memory_diff=None,
    )


def is_set_aside(record: JobRecord) -> bool:
    """Whether the record was made anew because it could not be read. A started job has the error in its
    history, during the attempt that ran when it was set aside."""
    if record.status is not Status.STARTED:
        return record.exception_type == DAMAGED
    latest = record.history[-1] if record.history else None
    return latest is not None and (latest.exception_type, latest.claim) == (DAMAGED, record.claims)


def has_expired(record: JobRecord, now: datetime) -> bool:
    """Whether the retention time of the record is over."""
    return record.expires_at is not None and record.expires_at <= now


def after_lost_claim(record: JobRecord, request: ClaimRequest, now: datetime) -> JobRecord | None:
    """The end of a started job whose lease ran out. None: the job may be claimed again.

    A requested cancel ends the job. So does the loss of an at_most_once job or of a job that was set aside,
    and the tenth loss in a row.
    """
    if record.cancel_requested:
        return cancelled(record, now=now, ttl=request.cancel_ttl)
    losses = record.lost_claims + 1
    kind, history, data = _CLAIM_LOST, record.history, ""
    if is_set_aside(record):
        why = f"the data of job {record.id} cannot be read"
        kind, history, data = DAMAGED, record.history[:-1], f"\n\n{record.history[-1].traceback}"
    elif record.at_most_once:
        why = "an at_most_once job is never started twice"
    elif losses >= MOST_LOST_CLAIMS:
        why = f"{losses} claims of it were lost in a row"
    else:
        return None
    message = f"the lease of worker {record.worker} ran out while it ran this job, and {why}"
    return replace(
        record,
        status=Status.FAILED,
        due_at=None,
        lease_until=None,
        token=None,  # a late settle must be refused, not taken for a repeated one
        lost_claims=losses,
        updated_at=now,
        ended_at=now,
        expires_at=after(now, request.failed_ttl),
        exception_type=kind,
        exception_message=message,
        error_group=error_group(record.path, kind),
        traceback=f"{kind}: {message}{data}",
        history=history,
    )


def settled(record: JobRecord, outcome: Outcome, now: datetime) -> JobRecord:
    """The record after its latest attempt ended with this outcome.

    A cancel request wins over an outcome that would run the job again. The token stays, so that
    a repeated settle can be distinguished from a late settle. An attempt that was lost, and after which the
    job runs again, goes to the history at once. Raises ValueError for an illegal outcome.
    """
    _check_outcome(outcome)
    status, delay, ttl = outcome.status, outcome.delay, outcome.ttl
    if record.cancel_requested and status in RUN_AGAIN:
        status, delay, ttl = Status.CANCEL, None, outcome.cancel_ttl
    ended = delay is None
    lost_claims, solo_deaths = _losses_after(record, outcome)
    after_it = replace(
        record,
        status=status,
        queue=record.queue if outcome.queue is None or ended else outcome.queue,
        due_at=None if delay is None else after(now, delay),
        waits_from=record.waits_from if delay is None else after(now, delay),
        lease_until=None,
        updated_at=now,
        ended_at=now if ended else None,
        expires_at=None if delay is not None or ttl is None else after(now, ttl),
        retry_count=record.retry_count + (outcome.is_retry and not ended),
        result=outcome.result,
        exception_type=outcome.exception_type,
        exception_message=outcome.exception_message,
        error_group=outcome.error_group,
        traceback=outcome.traceback,
        original_traceback=outcome.original_traceback,
        total_time=outcome.total_time,
        greenlet_time=outcome.greenlet_time,
        switches=outcome.switches,
        memory_diff=outcome.memory_diff,
        progress=1.0 if status is Status.SUCCESS else record.progress,
        lost_claims=lost_claims,
        solo_deaths=solo_deaths,
    )
    if outcome.lost and outcome.delay is not None:
        return _archived(after_it, record.started_at or now, lost=True, lost_claims=lost_claims)
    return after_it


def _losses_after(record: JobRecord, outcome: Outcome) -> tuple[int, int]:
    """The claims lost in a row, and the deaths of the job's own process among them, after the outcome.

    A finished attempt ends the row. An interrupted attempt, and a claim that was given back unstarted, leave
    it.
    """
    if outcome.lost:
        return record.lost_claims + 1, record.solo_deaths + 1
    is_finished = outcome.is_retry or outcome.status not in (Status.INTERRUPT, Status.QUEUED)
    return (0, 0) if is_finished else (record.lost_claims, record.solo_deaths)


def _check_outcome(outcome: Outcome) -> None:
    """Raises ValueError unless status and delay agree. Only `interrupt` allows both, for at_most_once
    jobs. A lost attempt ends as queued or failed."""
    runs_again = outcome.delay is not None
    if outcome.status is Status.STARTED or not is_legal(Status.STARTED, outcome.status):
        raise ValueError(f"an attempt cannot end as {outcome.status}")
    if outcome.status is not Status.INTERRUPT and runs_again is outcome.status.is_ended:
        raise ValueError(f"an attempt that ends as {outcome.status} cannot have the delay {outcome.delay}")
    if outcome.lost and outcome.status not in (Status.QUEUED, Status.FAILED):
        raise ValueError(f"a lost attempt cannot end as {outcome.status}")


def was_admitted_by(record: JobRecord, token: str) -> bool:
    """Whether the claim of a parameter was admitted earlier: the answer to a repeated admit."""
    return record.token == token or any(attempt.token == token for attempt in record.history)


def was_settled_by(record: JobRecord, token: str) -> bool:
    """Whether a settle with this token was accepted earlier: the answer to a repeated settle."""
    if not token:
        return False
    if record.token == token:
        return record.status is not Status.STARTED
    return any(attempt.token == token and attempt.status is not Status.STARTED for attempt in record.history)


def requeued(
    record: JobRecord, *, now: datetime, queue: str | None, reset_retries: bool, delay: float = 0.0
) -> JobRecord:
    """The record after a requeue. Its latest attempt goes to the history."""
    return replace(
        archived(record),
        status=Status.QUEUED,
        queue=queue or record.queue,
        queued_at=now,
        due_at=after(now, delay),
        waits_from=after(now, delay) if delay else None,
        updated_at=now,
        ended_at=None,
        expires_at=None,
        cancel_requested=False,
        retry_count=0 if reset_retries else record.retry_count,
        lost_claims=0,
        solo_deaths=0,
    )


def cancelled(record: JobRecord, *, now: datetime, ttl: float) -> JobRecord:
    """The record after a cancel. Its latest attempt goes to the history."""
    return replace(
        archived(record),
        status=Status.CANCEL,
        due_at=None,
        lease_until=None,
        updated_at=now,
        ended_at=now,
        expires_at=after(now, ttl),
    )


def followup_id(parent: str, token: str, index: int, at: datetime) -> str:
    """The id of a follow-up: the follow-up with this index of the attempt under this token.

    `at` is the time of the outcome, which the worker chooses once and sends with each repetition of the
    settle. So a repetition names the same jobs, and a later attempt of the parent names others. Follow-ups
    of an attempt are in the order of their indexes.
    """
    return derived_id(at.timestamp(), "followup", parent, token, index=index)


# --- changes by operators and rules -----------------------------------------------------------------


def changed(record: JobRecord, action: Action, now: datetime) -> tuple[ChangeResult, JobRecord | None]:
    """What an action makes of a job: the answer, and the record after it. None: the job is deleted.

    A REFUSED or UNCHANGED action returns the record itself. The caller reserves the unique key of a requeued
    job again, and refuses the requeue (HELD) where another job holds the key.
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


def with_keys(record: JobRecord, keys: JsonObject) -> JobRecord | None:
    """The record with these search keys added. A name that the record has keeps its value. None: nothing to
    add, or the record would have more than `MOST_KEYS`."""
    merged = {**keys, **record.search_keys}
    if len(merged) == len(record.search_keys) or len(merged) > MOST_KEYS:
        return None
    return replace(record, search_keys=merged)


def edited(record: JobRecord, edit: Edit, now: datetime) -> JobRecord | None:
    """The record after an edit. None: the job does not wait, or was claimed or edited since it was read.

    Without a new due time a parked job stays parked. `updated_at` stays, as in a move.
    """
    if not record.status.is_waiting or record.is_ended:
        return None
    if (record.claims, record.edits) != (edit.claims, edit.edits):
        return None
    after_it = replace(
        record,
        priority=record.priority if edit.priority is None else edit.priority,
        due_at=_edited_due_at(record, edit, now),
        edits=record.edits + 1,
    )
    if edit.params is None:
        return after_it
    return replace(after_it, params=edit.params, search_keys=edit.search_keys)


def _edited_due_at(record: JobRecord, edit: Edit, now: datetime) -> datetime | None:
    if edit.delay is not None:
        return after(now, edit.delay)
    return record.due_at if edit.due_at is None else edit.due_at


def is_rescheduled(before: JobRecord, after: JobRecord) -> bool:
    """Whether an edit between the two records gave the job a new due time."""
    return before.edits != after.edits and before.due_at != after.due_at


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
    if record.queue == how.queue:
        return ChangeResult.UNCHANGED, record
    # updated_at stays: for a job that waits to be retried it says when its attempt ended
    return ChangeResult.DONE, replace(record, queue=how.queue)
