"""What one transaction changes: gathered first, then written with few statements.

Row, indexes and totals change together. Totals are summed up here and written once, so that a
batch of fifty jobs of one kind costs four counter updates and not two hundred.
"""

from __future__ import annotations

import sqlite3

from mrq_core import codec
from mrq_core.clock import to_ms
from mrq_core.embedded import rows
from mrq_core.job import JobRecord

_INSERT = """
INSERT INTO jobs (id, queue, path, status, worker, exception_type, schedule, queued_ms, expires_ms,
                  rank, due_ms, unique_until, record, params)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
# SQLite rewrites every index that has a column of the SET list, changed or not: so the two frequent
# changes, a first claim and a settle, have statements without the columns that they leave alone.
_CLAIM = "UPDATE jobs SET status = ?, worker = ?, rank = ?, due_ms = ?, record = ? WHERE seq = ?"
_SETTLE = (
    "UPDATE jobs SET status = ?, worker = ?, rank = ?, due_ms = ?, expires_ms = ?, record = ? WHERE seq = ?"
)
_RENEW = "UPDATE jobs SET due_ms = ?, record = ? WHERE seq = ?"
_CHANGE = """
UPDATE jobs SET queue = ?, status = ?, worker = ?, exception_type = ?, queued_ms = ?, expires_ms = ?,
                rank = ?, due_ms = ?, record = ? WHERE seq = ?"""
_DELETE = "DELETE FROM jobs WHERE seq = ?"
_ADD_TOTAL = """
INSERT INTO totals VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""
_ADD_QUEUE = "INSERT OR IGNORE INTO queues VALUES (?)"

_text = str.__str__
"""The plain string of a status, for SQLite and as a key: faster than `.value`, and than hashing the enum."""

_Place = tuple[str, str, str, int | None]
"""Queue, path, status and rank: what a job is counted under."""


class Batch:
    """The changes of one transaction. Nothing is written before `flush`."""

    def __init__(self) -> None:
        self._inserts: list[tuple[object, ...]] = []
        self._claims: list[tuple[object, ...]] = []
        self._settles: list[tuple[object, ...]] = []
        self._renews: list[tuple[object, ...]] = []
        self._changes: list[tuple[object, ...]] = []
        self._deletes: list[tuple[int]] = []
        self._numbers: dict[tuple[_Place | None, _Place | None], int] = {}
        self._queues: set[str] = set()

    def insert(self, record: JobRecord, unique_until: str | None) -> None:
        """Adds a new record. Raises ValueError for a naive time: nobody has checked it before."""
        rank = rows.rank(record)
        row = (
            record.id,
            record.queue,
            record.path,
            _text(record.status),
            record.worker,
            record.exception_type,
            record.schedule,
            to_ms(record.queued_at),
            rows.ms(record.expires_at),
            rank,
            None if record.due_at is None else to_ms(record.due_at),
            unique_until,
            rows.encode(record),
            codec.encode(record.params),
        )
        self._inserts.append(row)
        self._count(None, (record.queue, record.path, _text(record.status), rank))
        self._queues.add(record.queue)

    def replace(self, seq: int, before: JobRecord, after: JobRecord) -> None:
        """Writes the record in place of what it was."""
        rank, status, data = rows.rank(after), _text(after.status), rows.encode(after)
        due_ms = rows.ms(after.due_at)
        # What a transition leaves alone is the same object, so identity is enough: what is equal
        # but another object is merely written again.
        if (
            after.exception_type is not before.exception_type
            or after.queue is not before.queue
            or after.queued_at is not before.queued_at
        ):
            self._queues.add(after.queue)
            times = (rows.ms(after.queued_at), rows.ms(after.expires_at))
            row = (after.queue, status, after.worker, after.exception_type, *times, rank, due_ms, data, seq)
            self._changes.append(row)
        elif after.expires_at is not before.expires_at:
            self._settles.append((status, after.worker, rank, due_ms, rows.ms(after.expires_at), data, seq))
        elif after.status is not before.status or after.worker is not before.worker:
            self._claims.append((status, after.worker, rank, due_ms, data, seq))
        else:
            self._renews.append((due_ms, data, seq))
            return
        self._count(
            (before.queue, before.path, _text(before.status), rows.rank(before)),
            (after.queue, after.path, status, rank),
        )

    def delete(self, seq: int, record: JobRecord) -> None:
        """Takes the record away."""
        self._deletes.append((seq,))
        self._count((record.queue, record.path, _text(record.status), rows.rank(record)), None)

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

    def _count(self, before: _Place | None, after: _Place | None) -> None:
        key = (before, after)
        self._numbers[key] = self._numbers.get(key, 0) + 1

    def _totals(self) -> list[tuple[str, str, str, int]]:
        sums: dict[tuple[str, str, str], int] = {}
        for (before, after), number in self._numbers.items():
            for place, sign in ((before, -1), (after, 1)):
                for key in () if place is None else _keys(place):
                    sums[key] = sums.get(key, 0) + sign * number
        return [(*key, number) for key, number in sums.items() if number]


def _keys(place: _Place) -> list[tuple[str, str, str]]:
    queue, path, status, rank = place
    keys = [("queue", queue, status), ("path", path, status)]
    if rank is not None:
        keys.append(("entry", queue, "claimed" if rank == rows.CLAIMED_RANK else "waiting"))
    return keys
