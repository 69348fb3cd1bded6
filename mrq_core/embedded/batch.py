"""What one transaction changes: gathered first, then written with few statements.

Row, indexes, totals and slots of limit keys change together. Totals are summed up here and written
once, so that a batch of fifty jobs of one kind costs four counter updates and not two hundred.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from msgspec.structs import replace

from mrq_core import codec, failpoints
from mrq_core.clock import from_ms, to_ms
from mrq_core.embedded import heads, rows, slots
from mrq_core.job import JobRecord

_INSERT = """
INSERT INTO jobs (id, queue, path, status, worker, exception_type, schedule, queued_ms, expires_ms,
                  rank, due_ms, unique_until, record, params)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
# SQLite rewrites every index that has a column of the SET list, changed or not: so the two frequent
# changes, a first claim and a settle, have statements without the columns that they leave alone.
_CLAIM = (
    "UPDATE jobs SET status = ?, worker = ?, rank = ?, due_ms = ?, turn_ms = NULL, record = ? WHERE seq = ?"
)
_SETTLE = (
    "UPDATE jobs SET status = ?, worker = ?, rank = ?, due_ms = ?, expires_ms = ?, record = ? WHERE seq = ?"
)
_RENEW = "UPDATE jobs SET due_ms = ?, record = ? WHERE seq = ?"
_PUSH_BACK = "UPDATE jobs SET due_ms = ?, turn_ms = ?, record = ? WHERE seq = ?"
_SUSPECT = "UPDATE jobs SET due_ms = ? WHERE seq = ?"
_LINE = "UPDATE jobs SET rank = ?, due_ms = ?, record = ? WHERE seq = ?"
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

_Place = tuple[str, str, str, str | None]
"""Queue, path, status, and what its entry is: what a job is counted under."""


class Batch:
    """The changes of one transaction. Nothing is written before `flush`."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        self._touched: set[str] = set()
        """Subqueues whose entries change."""
        self._inserts: list[tuple[object, ...]] = []
        self._claims: list[tuple[object, ...]] = []
        self._settles: list[tuple[object, ...]] = []
        self._renews: list[tuple[object, ...]] = []
        self._pushed_back: list[tuple[object, ...]] = []
        self._lines: list[tuple[object, ...]] = []
        self._suspects: list[tuple[object, ...]] = []
        self._changes: list[tuple[object, ...]] = []
        self._deletes: list[tuple[int]] = []
        self._numbers: dict[tuple[_Place | None, _Place | None], int] = {}
        self._queues: set[str] = set()
        self._slots: slots.SlotChanges | None = None

    def insert(self, record: JobRecord, unique_until: str | None) -> None:
        """Adds a new record. Raises ValueError for a naive time: nobody has checked it before."""
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
            rows.rank(record),
            None if record.due_at is None else to_ms(record.due_at),
            unique_until,
            rows.encode(record),
            codec.encode(record.params),
        )
        self._inserts.append(row)
        self._count(None, _place(record))
        self._queues.add(record.queue)
        self._touch(record)
        self._change_slots(None, record)

    def replace(self, seq: int, before: JobRecord, after: JobRecord) -> None:
        """Writes the record in place of what it was."""
        if after.queue is not before.queue or heads.is_in_tree(after.queue):
            self._touch(before)
            self._touch(after)
        if after.limit_keys:
            self._change_slots(before, after)
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
        self._count(_place(before), _place(after))

    def park(self, seq: int, before: JobRecord, key: str) -> None:
        """Takes a waiting job out of its line, and lists it under the limit key that has no room for it."""
        after = replace(before, due_at=None)
        self._lines.append((None, None, rows.encode(after), seq))
        self._touch(before)
        self._slots = self._slots or slots.SlotChanges()
        self._slots.park(before, key, self._now_ms)

    def let_go(self, parked: slots.Parked) -> None:
        """Puts a parked job back to its place in its line, where it is due at once."""
        after = replace(parked.record, due_at=from_ms(parked.due_ms))
        self._lines.append((rows.rank(after), parked.due_ms, rows.encode(after), parked.seq))
        self._touch(after)
        self._change_slots(parked.record, after)

    def push_back(self, seq: int, before: JobRecord, turn_ms: int) -> None:
        """Moves a waiting job to the turn that a rate has given to it."""
        after = replace(before, due_at=from_ms(turn_ms))
        self._pushed_back.append((turn_ms, turn_ms, rows.encode(after), seq))
        self._touch(after)

    def look_again(self, seq: int, suspect: JobRecord, due_ms: int) -> None:
        """Leaves a suspect, whose record stays as it is, out of the claims before that time."""
        self._suspects.append((due_ms, seq))
        self._touch(suspect)

    def delete(self, seq: int, record: JobRecord) -> None:
        """Takes the record away."""
        self._deletes.append((seq,))
        self._count(_place(record), None)
        self._touch(record)
        self._change_slots(record, None)

    def flush(self, connection: sqlite3.Connection) -> None:
        """Writes everything, once. Each row is changed at most once in a batch."""
        for statement, values in (
            (_DELETE, self._deletes),
            (_INSERT, self._inserts),
            (_CLAIM, self._claims),
            (_SETTLE, self._settles),
            (_RENEW, self._renews),
            (_PUSH_BACK, self._pushed_back),
            (_LINE, self._lines),
            (_SUSPECT, self._suspects),
            (_CHANGE, self._changes),
        ):
            if values:
                connection.executemany(statement, values)
        failpoints.reach("batch.rows")
        if self._queues:
            connection.executemany(_ADD_QUEUE, [(name,) for name in self._queues])
        if self._numbers:
            connection.executemany(_ADD_TOTAL, self._totals())
        if self._touched:
            heads.refresh(connection, self._touched, self._now_ms)
        failpoints.reach("batch.totals")
        if self._slots is not None:
            let_go(connection, self._slots.write(connection), self._now_ms)

    def _touch(self, record: JobRecord) -> None:
        if heads.is_in_tree(record.queue):
            self._touched.add(record.queue)

    def _change_slots(self, before: JobRecord | None, after: JobRecord | None) -> None:
        record = after or before
        if record is not None and record.limit_keys:
            self._slots = self._slots or slots.SlotChanges()
            self._slots.change(before, after)

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


def let_go(connection: sqlite3.Connection, freed: Mapping[str, int], now_ms: int) -> int:
    """Lets so many of the jobs that are parked under each key be due at once; answers with their number."""
    batch = Batch(now_ms)
    number = 0
    for parked in slots.first_parked(connection, freed):
        batch.let_go(parked)
        number += 1
    if number:
        batch.flush(connection)
    return number


def _place(record: JobRecord) -> _Place:
    return record.queue, record.path, _text(record.status), rows.counted_as(record)


def _keys(place: _Place) -> list[tuple[str, str, str]]:
    queue, path, status, entry = place
    keys = [("queue", queue, status), ("path", path, status)]
    if entry is not None:
        keys.append(("entry", queue, entry))
    return keys
