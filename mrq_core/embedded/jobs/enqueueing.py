"""Storing new jobs with their entries."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec.structs import replace

from mrq_core.clock import Clock, after, from_ms
from mrq_core.contract import codec
from mrq_core.contract.messages import Enqueued, NewJob
from mrq_core.embedded.jobs import records, removing, uniques
from mrq_core.embedded.jobs.batch import Batch

_EXISTING = f"""
SELECT seq, coalesce(expires_ms <= ?, 0), {records.COLUMNS} FROM jobs
WHERE id IN (SELECT value FROM json_each(?))"""


def enqueue(connection: sqlite3.Connection, clock: Clock, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """See `Broker.enqueue`."""
    now_ms = clock.now_ms()
    now = from_ms(now_ms)
    batch = Batch(now_ms)
    existing = _existing(connection, [job.record.id for job in jobs], now_ms)
    answers = []
    for job in jobs:
        record = job.record
        holder = record.id
        if record.id in existing:
            answers.append(Enqueued(id=record.id, created=False))
            continue
        if job.unique is not None:
            holder = uniques.reserve(connection, record.id, job.unique, now_ms)
            if holder != record.id:
                answers.append(Enqueued(id=holder, created=False))
                continue
        existing.add(record.id)
        if job.delay is not None:
            record = replace(record, due_at=after(now, job.delay))
        elif record.due_at is None:
            record = replace(record, due_at=now)
        if job.unique is not None and record.unique_key is None:
            record = replace(record, unique_key=job.unique.key)
        batch.insert(record, None if job.unique is None else job.unique.until)
        answers.append(Enqueued(id=record.id, created=True))
    batch.flush(connection)
    return answers


def _existing(connection: sqlite3.Connection, ids: list[str], now_ms: int) -> set[str]:
    """The ids that are taken. An expired record does not count, and makes room."""
    taken = set()
    for seq, expired, *columns in connection.execute(
        _EXISTING, (now_ms, codec.encode(list(ids)).decode())
    ).fetchall():
        if expired:
            removing.delete(connection, [(seq, records.read(*columns))], now_ms)
        else:
            taken.add(columns[0])
    return taken
