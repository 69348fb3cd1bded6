"""What a worker says of its claims: renew, annotate, settle. All are guarded by the token."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from msgspec.structs import replace

from mrq_core.clock import Clock, from_ms
from mrq_core.contract import codec, lifecycle
from mrq_core.contract.messages import ClaimRef, NewJob, Note, Settlement
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers import encoding
from mrq_core.embedded import rows, signals, uniques
from mrq_core.embedded.batch import Batch
from mrq_core.embedded.enqueueing import enqueue

_HEADS = """
SELECT id, seq, queue, path, status, token, is_plain, started_ms IS NOT NULL FROM jobs
WHERE id IN (SELECT value FROM json_each(?))"""
_BY_IDS = f"SELECT id, seq, {rows.COLUMNS} FROM jobs WHERE id IN (SELECT value FROM json_each(?))"

_T = TypeVar("_T", ClaimRef, Note)
_Stored = dict[str, tuple[int, JobRecord]]


class _Head(NamedTuple):
    """What tells whether a claim is valid, and whether a change of the job can do without its record."""

    seq: int
    queue: str
    path: str
    status: str
    token: str | None
    is_plain: int
    is_beside: int
    """Whether the claim stands beside the record."""

    def proves(self, claim: ClaimRef | Settlement) -> bool:
        """Whether the claim is the latest one, and the job plain."""
        return bool(self.is_plain) and self.status == "started" and self.token == claim.token


def renew(
    connection: sqlite3.Connection, clock: Clock, claims: Sequence[ClaimRef], lease: float
) -> list[bool]:
    """See `Broker.renew`."""
    now_ms = clock.now_ms()
    until_ms = now_ms + round(lease * 1000)
    until = from_ms(until_ms)
    heads = _heads(connection, [claim.id for claim in claims])
    batch = Batch(now_ms)
    answers = [True] * len(claims)
    others: list[tuple[int, ClaimRef]] = []
    for place, claim in enumerate(claims):
        head = heads.get(claim.id)
        if head is not None and head.is_beside and head.proves(claim):
            batch.prolong(head.seq, head.queue, until_ms)
        else:
            others.append((place, claim))
    batch.flush(connection)
    changed = _change_running(
        connection,
        now_ms,
        [claim for _, claim in others],
        lambda record, claim: replace(record, due_at=until, lease_until=until),
    )
    for (place, _), answer in zip(others, changed, strict=True):
        answers[place] = answer
    return answers


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
    heads = _heads(connection, [settlement.id for settlement in settlements])
    batch = Batch(now_ms)
    followups: list[NewJob] = []
    answers = [True] * len(settlements)
    others: list[tuple[int, Settlement]] = []
    for place, settlement in enumerate(settlements):
        # Taken out: a second settlement of the same job is compared with what the first has written.
        head = heads.pop(settlement.id, None)
        outcome = settlement.outcome
        if head is not None and encoding.is_plain_success(outcome) and head.proves(settlement):
            batch.succeed(head.seq, head.queue, head.path, outcome)
            followups.extend(outcome.followups)
        else:
            others.append((place, settlement))
    batch.flush(connection)
    if others:
        settled = _settle_in_full(connection, now_ms, [settlement for _, settlement in others], followups)
        for (place, _), answer in zip(others, settled, strict=True):
            answers[place] = answer
    if followups:
        enqueue(connection, clock, followups)
    return answers


def _settle_in_full(
    connection: sqlite3.Connection,
    now_ms: int,
    settlements: Sequence[Settlement],
    followups: list[NewJob],
) -> list[bool]:
    """Reads, changes and writes the records. Adds to `followups` what is to be enqueued."""
    now = from_ms(now_ms)
    stored = _stored(connection, [settlement.id for settlement in settlements])
    changed: dict[str, JobRecord] = {}
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


def _heads(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, _Head]:
    found = connection.execute(_HEADS, (codec.encode(list(ids)).decode(),)).fetchall()
    return {job_id: _Head(*head) for job_id, *head in found}


def _stored(connection: sqlite3.Connection, ids: Sequence[str]) -> _Stored:
    found = connection.execute(_BY_IDS, (codec.encode(list(ids)).decode(),)).fetchall()
    return {job_id: (seq, rows.read(*columns)) for job_id, seq, *columns in found}
