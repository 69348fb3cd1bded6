"""What one transaction changes: gathered first, then written with few statements.

Row, indexes and totals change together. Totals are summed up here and written once, so that a
batch of fifty jobs of one kind costs four counter updates and not two hundred.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from mrq_core import codec
from mrq_core.embedded import rows
from mrq_core.job import JobRecord, Status

_INSERT = """
INSERT INTO jobs (id, queue, path, status, worker, exception_type, schedule, queued_ms, expires_ms,
                  rank, due_ms, unique_until, record, params)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
# SQLite rewrites every index that has a column of the SET list, changed or not: so the two frequent
# changes, a first claim and a settle, have statements without the columns that they leave alone.
_CLAIM = "UPDATE jobs SET status = ?, worker = ?, rank = ?, due_ms = ?, record = ? WHERE seq = ?"
_SETTLE = "UPDATE jobs SET status = ?, worker = ?, rank = ?, due_ms = ?, expires_ms = ?, record = ? WHERE seq = ?"
_RENEW = "UPDATE jobs SET due_ms = ?, record = ? WHERE seq = ?"
_CHANGE = """
UPDATE jobs SET queue = ?, status = ?, worker = ?, exception_type = ?, queued_ms = ?, expires_ms = ?,
                rank = ?, due_ms = ?, record = ? WHERE seq = ?"""
_DELETE = "DELETE FROM jobs WHERE seq = ?"
_ADD_TOTAL = """
INSERT INTO totals VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""
_ADD_QUEUE = "INSERT OR IGNORE INTO queues VALUES (?)"

_Kind = tuple[str, str, Status, int | None]


class Batch:
    """The changes of one transaction. Nothing is written before `flush`."""

    def __init__(self) -> None:
        self._inserts: list[tuple[object, ...]] = []
        self._claims: list[tuple[object, ...]] = []
        self._settles: list[tuple[object, ...]] = []
        self._renews: list[tuple[object, ...]] = []
        self._changes: list[tuple[object, ...]] = []
        self._deletes: list[tuple[int]] = []
        self._numbers: dict[_Kind, int] = {}
        self._queues: set[str] = set()

    def insert(self, record: JobRecord, unique_until: str | None) -> None:
        """Adds a new record."""
        rank = rows.rank(record)
        row = (
            record.id,
            record.queue,
            record.path,
            record.status.value,
            record.worker,
            record.exception_type,
            record.schedule,
            rows.ms(record.queued_at),
            rows.ms(record.expires_at),
            rank,
            rows.ms(record.due_at),
            unique_until,
            rows.encode(record),
            codec.encode(record.params),
        )
        self._inserts.append(row)
        self._count((record.queue, record.path, record.status, rank), 1)
        self._queues.add(record.queue)

    def replace(self, seq: int, before: JobRecord, after: JobRecord) -> None:
        """Writes the record in place of what it was."""
        rank, data, due_ms = rows.rank(after), rows.encode(after), rows.ms(after.due_at)
        if (
            after.exception_type != before.exception_type
            or after.queue != before.queue
            or after.queued_at != before.queued_at
        ):
            self._queues.add(after.queue)
            self._changes.append(
                (
                    after.queue,
                    after.status.value,
                    after.worker,
                    after.exception_type,
                    rows.ms(after.queued_at),
                    rows.ms(after.expires_at),
                    rank,
                    due_ms,
                    data,
                    seq,
                )
            )
        elif after.expires_at != before.expires_at:
            expires_ms = rows.ms(after.expires_at)
            self._settles.append((after.status.value, after.worker, rank, due_ms, expires_ms, data, seq))
        elif after.status is not before.status or after.worker != before.worker:
            self._claims.append((after.status.value, after.worker, rank, due_ms, data, seq))
        else:
            self._renews.append((due_ms, data, seq))
            return
        self._count((before.queue, before.path, before.status, rows.rank(before)), -1)
        self._count((after.queue, after.path, after.status, rank), 1)

    def delete(self, seq: int, record: JobRecord) -> None:
        """Takes the record away."""
        self._deletes.append((seq,))
        self._count((record.queue, record.path, record.status, rows.rank(record)), -1)

    def flush(self, connection: sqlite3.Connection) -> None:
        """Writes everything, once. Each row is changed at most once in a batch."""
        for statement, values in (
            (_DELETE, self._deletes),
            (_INSERT, self._inserts),
            (_CLAIM, self._claims),
            (_SETTLE, self._settles),
            (_RENEW, self._renews),
            (_CHANGE, self._changes),
        ):
            if values:
                connection.executemany(statement, values)
        if self._queues:
            connection.executemany(_ADD_QUEUE, [(name,) for name in self._queues])
        if self._numbers:
            connection.executemany(_ADD_TOTAL, self._totals())

    def _count(self, kind: _Kind, number: int) -> None:
        self._numbers[kind] = self._numbers.get(kind, 0) + number

    def _totals(self) -> Iterable[tuple[str, str, str, int]]:
        sums: dict[tuple[str, str, str], int] = {}
        for (queue, path, status, rank), number in self._numbers.items():
            keys = [("queue", queue, status.value), ("path", path, status.value)]
            if rank is not None:
                keys.append(("entry", queue, "claimed" if rank == rows.CLAIMED_RANK else "waiting"))
            for key in keys:
                sums[key] = sums.get(key, 0) + number
        return [(*key, number) for key, number in sums.items() if number]
