"""Renewing: extends leases and writes progress, guarded by the token."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec.structs import replace

from mrq_core.clock import Clock, from_ms
from mrq_core.contract.messages import ClaimRef, Note
from mrq_core.contract.record import JobRecord, Status
from mrq_core.embedded.jobs.batch import Batch
from mrq_core.embedded.jobs.settling import heads_of, stored_jobs

_T = TypeVar("_T", ClaimRef, Note)


def renew(
    connection: sqlite3.Connection, clock: Clock, claims: Sequence[ClaimRef], lease: float
) -> list[bool]:
    """See `Broker.renew`."""
    now_ms = clock.now_ms()
    until_ms = now_ms + round(lease * 1000)
    until = from_ms(until_ms)
    heads = heads_of(connection, [claim.id for claim in claims])
    batch = Batch(now_ms)
    answers = [True] * len(claims)
    others: list[tuple[int, ClaimRef]] = []
    for index, claim in enumerate(claims):
        head = heads.get(claim.id)
        if head is not None and head.is_beside and head.proves(claim):
            batch.prolong(head.seq, head.queue, until_ms)
        else:
            others.append((index, claim))
    batch.flush(connection)
    changed = _change_running(
        connection,
        now_ms,
        [claim for _, claim in others],
        lambda record, claim: replace(record, due_at=until, lease_until=until),
    )
    for (index, _), answer in zip(others, changed, strict=True):
        answers[index] = answer
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


def _change_running(
    connection: sqlite3.Connection,
    now_ms: int,
    claims: Sequence[_T],
    change: Callable[[JobRecord, _T], JobRecord],
) -> list[bool]:
    stored = stored_jobs(connection, [claim.id for claim in claims])
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
