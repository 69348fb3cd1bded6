"""What a worker says of its claims: renew, annotate, settle. All are guarded by the token."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from mrq_core import codec, lifecycle
from mrq_core.clock import Clock, after, from_ms
from mrq_core.embedded import rows, signals, uniques
from mrq_core.embedded.batch import Batch
from mrq_core.embedded.enqueueing import enqueue_records
from mrq_core.job import JobRecord, Status
from mrq_core.messages import ClaimRef, Note, Settlement

_BY_IDS = "SELECT id, seq, record FROM jobs WHERE id IN (SELECT value FROM json_each(?))"

_T = TypeVar("_T", ClaimRef, Note)
_Stored = dict[str, tuple[int, JobRecord]]


def renew(
    connection: sqlite3.Connection, clock: Clock, claims: Sequence[ClaimRef], lease: float
) -> list[bool]:
    """See `Broker.renew`."""
    now_ms = clock.now_ms()
    until = after(from_ms(now_ms), lease)
    return _change_running(
        connection, now_ms, claims, lambda record, claim: replace(record, due_at=until, lease_until=until)
    )


def annotate(connection: sqlite3.Connection, clock: Clock, notes: Sequence[Note]) -> list[bool]:
    """See `Broker.annotate`."""
    now_ms = clock.now_ms()
    now = from_ms(now_ms)
    return _change_running(
        connection,
        now_ms,
        notes,
        lambda record, note: replace(record, progress=note.progress, updated_at=now),
    )


def settle(connection: sqlite3.Connection, clock: Clock, settlements: Sequence[Settlement]) -> list[bool]:
    """See `Broker.settle`. Follow-ups are enqueued in the same transaction, so nothing is left to repair."""
    now_ms = clock.now_ms()
    now = from_ms(now_ms)
    stored = _stored(connection, [settlement.id for settlement in settlements])
    changed: dict[str, JobRecord] = {}
    followups: list[JobRecord] = []
    answers = []
    for settlement in settlements:
        if settlement.id not in stored:
            answers.append(False)
            continue
        record = changed.get(settlement.id) or stored[settlement.id][1]
        if record.token != settlement.token or record.status is not Status.STARTED:
            answers.append(lifecycle.was_settled_by(record, settlement.token))
            continue
        outcome = settlement.outcome
        changed[record.id] = ended = lifecycle.settled(record, outcome, now)
        if ended.status is outcome.status:  # and not cancelled instead
            followups.extend(outcome.followups)
        answers.append(True)
    batch = Batch(now_ms)
    for job_id, record in changed.items():
        seq, before = stored[job_id]
        batch.replace(seq, before, record)
        if record.unique_key is not None and record.is_ended:
            uniques.released(connection, record)
        if record.cancel_requested:
            signals.answered(connection, record)
    batch.flush(connection)
    if followups:
        enqueue_records(connection, clock, followups)
    return answers


def _change_running(
    connection: sqlite3.Connection,
    now_ms: int,
    claims: Sequence[_T],
    change: Callable[[JobRecord, _T], JobRecord],
) -> list[bool]:
    stored = _stored(connection, [claim.id for claim in claims])
    changed: dict[str, JobRecord] = {}
    answers = []
    for claim in claims:
        record = stored[claim.id][1] if claim.id in stored else None
        valid = record is not None and record.status is Status.STARTED and record.token == claim.token
        if valid:
            assert record is not None
            changed[claim.id] = change(changed.get(claim.id, record), claim)
        answers.append(valid)
    batch = Batch(now_ms)
    for job_id, record in changed.items():
        batch.replace(*stored[job_id], record)
    batch.flush(connection)
    return answers


def _stored(connection: sqlite3.Connection, ids: Sequence[str]) -> _Stored:
    found = connection.execute(_BY_IDS, (codec.encode(list(ids)).decode(),)).fetchall()
    return {job_id: (seq, rows.decode(record)) for job_id, seq, record in found}
