"""The changes of one transaction: gathered first, then written with few statements.

Row, indexes, terms, totals and slots of limit keys change together. Totals are summed up here and written
once, so that a batch of fifty jobs of one kind costs four counter updates and not two hundred.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from msgspec.structs import replace

from mrq_core import failpoints
from mrq_core.clock import from_ms, to_ms
from mrq_core.contract import codec
from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import encoding
from mrq_core.embedded.jobs import limits, records, slots, trees
from mrq_core.embedded.jobs.terms import TermChanges

_INSERT = """
INSERT INTO jobs (id, queue, path, status, worker, exception_type, schedule, queued_ms, expires_ms,
                  rank, due_ms, unique_until, is_plain, token, record, params)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"""
_IN_FULL = "token = ?, started_ms = NULL, settled_ms = NULL, outcome = NULL, record = ?"
"""The columns of a record that is written in full: nothing is left to be applied to it."""
# SQLite rewrites every index that has a column of the SET list, changed or not: so the frequent changes
# have statements without the columns that they leave alone.
_TAKE = f"""
UPDATE jobs SET status = 'started', rank = {records.CLAIMED_RANK}, allowed_ms = NULL,
                worker = ?, due_ms = ?, token = ?, started_ms = ? WHERE seq = ?"""
_TAKE_AGAIN = _TAKE.replace("SET ", "SET exception_type = NULL, ")
"""After an attempt with an exception, which the new attempt does not have."""
_SUCCEED = """
UPDATE jobs SET status = 'success', rank = NULL, due_ms = NULL, expires_ms = ?, outcome = ?, settled_ms = ?
WHERE seq = ?"""
_PROLONG = "UPDATE jobs SET due_ms = ? WHERE seq = ?"
_SAME_STATUS = f"UPDATE jobs SET due_ms = ?, is_plain = ?, {_IN_FULL} WHERE seq = ?"
_PUSH_BACK = "UPDATE jobs SET due_ms = ?, allowed_ms = ?, record = ? WHERE seq = ?"
_LINE = "UPDATE jobs SET rank = ?, due_ms = ?, record = ? WHERE seq = ?"
_CHANGE = f"""
UPDATE jobs SET queue = ?, status = ?, worker = ?, exception_type = ?, queued_ms = ?, expires_ms = ?,
                rank = ?, due_ms = ?, is_plain = ?, {_IN_FULL} WHERE seq = ?"""
_EDIT = f"""
UPDATE jobs SET rank = ?, due_ms = ?, params = coalesce(?, params), {_IN_FULL},
                allowed_ms = CASE WHEN due_ms IS ? THEN allowed_ms END WHERE seq = ?"""
_DELETE = "DELETE FROM jobs WHERE seq = ?"
_ADD_TOTAL = """
INSERT INTO totals VALUES (?, ?, ?, ?)
ON CONFLICT DO UPDATE SET n = n + excluded.n"""
_ADD_QUEUE = "INSERT OR IGNORE INTO queues VALUES (?)"

_text = str.__str__
"""The plain string of a status, for SQLite and as a key: faster than `.value`, and than hashing the enum."""

_Cell = tuple[str, str, str, str | None]
"""Queue, path, status and kind of entry, under which totals count a job."""


class Batch:
    """The changes of one transaction. Nothing is written before `flush`."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms
        self._touched: set[str] = set()
        """Subqueues whose entries change."""
        self._statements: dict[str, list[tuple[object, ...]]] = {}
        """Rows of values for each statement."""
        self._numbers: dict[tuple[_Cell | None, _Cell | None], int] = {}
        self._queues: set[str] = set()
        self._slots: slots.SlotChanges | None = None
        self._terms: TermChanges | None = None

    def insert(self, record: JobRecord, unique_until: str | None) -> None:
        """Adds a new record. Raises ValueError for a naive time, because the broker is the first to check
        it."""
        row = (
            record.id,
            record.queue,
            record.path,
            _text(record.status),
            record.worker,
            record.exception_type,
            record.schedule,
            to_ms(record.queued_at),
            records.ms(record.expires_at),
            records.rank(record),
            None if record.due_at is None else to_ms(record.due_at),
            unique_until,
            encoding.is_plain(record),
            record.token,
            encoding.encode(record),
            codec.encode(record.params),
        )
        self._write(_INSERT, row)
        self._count(None, _cell(record))
        self._queues.add(record.queue)
        self._touch(record)
        self._change_slots(None, record)
        if record.search_keys or record.exception_type is not None:
            self._change_terms(None, record)

    def take(self, seq: int, before: JobRecord, after: JobRecord) -> None:
        """Writes the claim of a waiting job beside its record."""
        statement = _TAKE
        if before.exception_type is not None:
            statement = _TAKE_AGAIN
            self._change_terms(before, after)
        row = (after.worker, records.ms(after.due_at), after.token, records.ms(after.started_at), seq)
        self._write(statement, row)
        self._count(_cell(before), (after.queue, after.path, "started", "claimed"))
        self._touch(after)
        if after.limit_keys:
            self._change_slots(before, after)

    def succeed(self, seq: int, queue: str, path: str, outcome: Outcome) -> None:
        """Writes the success of a plain job beside its record."""
        expires_ms = None if outcome.ttl is None else self.now_ms + round(outcome.ttl * 1000)
        self._write(_SUCCEED, (expires_ms, encoding.encode_outcome(outcome), self.now_ms, seq))
        self._count((queue, path, "started", "claimed"), (queue, path, "success", None))
        if trees.is_in_tree(queue):
            self._touched.add(queue)

    def prolong(self, seq: int, queue: str, due_ms: int) -> None:
        """Moves the end of a lease whose claim stands beside the record."""
        self._write(_PROLONG, (due_ms, seq))
        if trees.is_in_tree(queue):
            self._touched.add(queue)

    def replace(self, seq: int, before: JobRecord, after: JobRecord) -> None:
        """Replaces the stored record by the new record in full."""
        self._touch(before)
        self._touch(after)
        if after.limit_keys or before.due_at is None:  # a job of a paused task is parked without limit keys
            self._change_slots(before, after)
        if (
            before.exception_type is not None
            or after.exception_type is not None
            or before.search_keys is not after.search_keys
        ):
            self._change_terms(before, after)
        due_ms, data = records.ms(after.due_at), encoding.encode(after)
        if after.status is before.status and after.worker is before.worker and after.queue is before.queue:
            self._write(_SAME_STATUS, (due_ms, encoding.is_plain(after), after.token, data, seq))
            return
        self._change(seq, before, after, data)

    def rewrite(self, seq: int, before: JobRecord, after: JobRecord) -> None:
        """Replaces a record that cannot be read: all columns and whatever follows from them."""
        self._touch(after)
        self._change_slots(before, after)
        self._change_terms(before, after)
        self._change(seq, before, after, encoding.encode(after))

    def _change(self, seq: int, before: JobRecord, after: JobRecord, data: bytes) -> None:
        times = (records.ms(after.queued_at), records.ms(after.expires_at))
        columns = (*times, records.rank(after), records.ms(after.due_at), encoding.is_plain(after))
        names = (after.queue, _text(after.status), after.worker, after.exception_type)
        self._write(_CHANGE, (*names, *columns, after.token, data, seq))
        self._queues.add(after.queue)
        self._count(_cell(before), _cell(after))

    def edit(self, seq: int, before: JobRecord, after: JobRecord) -> None:
        """Writes an edit of a waiting job. Its params stay if `after` has those of `before`. A new due time
        ends the time that its rates allowed."""
        self._touch(after)
        if before.due_at is None:
            self._change_slots(before, after)
        if before.search_keys is not after.search_keys:
            self._change_terms(before, after)
        due_ms = records.ms(after.due_at)
        params = None if after.params is before.params else codec.encode(after.params)
        row = (records.rank(after), due_ms, params, after.token, encoding.encode(after), due_ms, seq)
        self._write(_EDIT, row)

    def park(self, seq: int, before: JobRecord, key: str) -> None:
        """Parks a waiting job under the limit key that has no room for it."""
        after = replace(before, due_at=None)
        self._write(_LINE, (None, None, encoding.encode(after), seq))
        self._touch(before)
        self._slots = self._slots or slots.SlotChanges()
        self._slots.park(before, key, self.now_ms)

    def let_go(self, parked: slots.Parked) -> None:
        """Returns a parked job to its former position in the queue, where it is due at once."""
        after = replace(parked.record, due_at=from_ms(parked.due_ms))
        self._write(_LINE, (records.rank(after), parked.due_ms, encoding.encode(after), parked.seq))
        self._touch(after)
        self._change_slots(parked.record, after)

    def push_back(self, seq: int, before: JobRecord, allowed_ms: int) -> None:
        """Moves a waiting job to the time that its rates allow."""
        after = replace(before, due_at=from_ms(allowed_ms))
        self._write(_PUSH_BACK, (allowed_ms, allowed_ms, encoding.encode(after), seq))
        self._touch(after)

    def postpone(self, seq: int, suspect: JobRecord, due_ms: int) -> None:
        """Leaves a suspect out of claims until that time. Its record keeps the end of its lease."""
        row = (due_ms, encoding.is_plain(suspect), suspect.token, encoding.encode(suspect), seq)
        self._write(_SAME_STATUS, row)
        self._touch(suspect)

    def delete(self, seq: int, record: JobRecord) -> None:
        """Deletes the record."""
        self._write(_DELETE, (seq,))
        self._count(_cell(record), None)
        self._touch(record)
        self._change_slots(record, None)
        if record.search_keys or record.exception_type is not None:
            self._change_terms(record, None)

    def flush(self, connection: sqlite3.Connection) -> None:
        """Writes everything, once. Each row is changed at most once in a batch."""
        for statement, values in self._statements.items():
            connection.executemany(statement, values)
        failpoints.reach("batch.rows")
        if self._terms is not None:
            self._terms.write(connection)
            failpoints.reach("batch.terms")
        if self._queues:
            connection.executemany(_ADD_QUEUE, [(name,) for name in self._queues])
        if self._numbers:
            connection.executemany(_ADD_TOTAL, self._totals())
        if self._touched:
            trees.refresh(connection, self._touched, self.now_ms)
        failpoints.reach("batch.totals")
        if self._slots is not None:
            let_go_to_slots(connection, self._slots.write(connection), self.now_ms)

    def _write(self, statement: str, row: tuple[object, ...]) -> None:
        self._statements.setdefault(statement, []).append(row)

    def _touch(self, record: JobRecord) -> None:
        if trees.is_in_tree(record.queue):
            self._touched.add(record.queue)

    def _change_slots(self, before: JobRecord | None, after: JobRecord | None) -> None:
        record = after or before
        if record is not None and (record.limit_keys or (before is not None and encoding.is_parked(before))):
            self._slots = self._slots or slots.SlotChanges()
            self._slots.change(before, after)

    def _change_terms(self, before: JobRecord | None, after: JobRecord | None) -> None:
        self._terms = self._terms or TermChanges()
        self._terms.change(before, after)

    def _count(self, before: _Cell | None, after: _Cell | None) -> None:
        key = (before, after)
        self._numbers[key] = self._numbers.get(key, 0) + 1

    def _totals(self) -> list[tuple[str, str, str, int]]:
        sums: dict[tuple[str, str, str], int] = {}
        for (before, after), number in self._numbers.items():
            for cell, sign in ((before, -1), (after, 1)):
                for key in () if cell is None else _keys(cell):
                    sums[key] = sums.get(key, 0) + sign * number
        return [(*key, number) for key, number in sums.items() if number]


def let_go_to_slots(connection: sqlite3.Connection, freed: Mapping[str, int], now_ms: int) -> int:
    """Releases up to the given number of jobs parked under each key, and no more than its rate lets start
    within the horizon. Returns how many were released."""
    numbers = {}
    for key, number in freed.items():
        if slots.first_parked_under(connection, key) is not None:
            room = limits.rate_room(connection, key, now_ms)
            numbers[key] = number if room is None else min(room, number)
    return let_go(connection, numbers, now_ms) if numbers else 0


def let_go(connection: sqlite3.Connection, freed: Mapping[str, int], now_ms: int) -> int:
    """Releases the given number of jobs parked under each key. Returns how many were released."""
    batch = Batch(now_ms)
    number = 0
    for parked in slots.first_parked(connection, freed):
        batch.let_go(parked)
        number += 1
    if number:
        batch.flush(connection)
    return number


def _cell(record: JobRecord) -> _Cell:
    return record.queue, record.path, _text(record.status), records.counted_as(record)


def _keys(cell: _Cell) -> list[tuple[str, str, str]]:
    queue, path, status, entry = cell
    keys = [("queue", queue, status), ("path", path, status)]
    if entry is not None:
        keys.append(("entry", queue, entry))
    return keys
