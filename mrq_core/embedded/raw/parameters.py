"""The waiting parameters of raw queues: pushed, listed, removed, counted; and when one is due."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence

from mrq_core.contract.messages import RawItem
from mrq_core.contract.naming import RawKind, raw_kind
from mrq_core.embedded.jobs.trees import MAX_STEPS, end_of
from mrq_core.embedded.raw.claiming import add_to_size

_FIRST = """
SELECT (SELECT min(score) FROM raw_waiting INDEXED BY raw_order WHERE queue = ?),
       (SELECT min(until_ms) FROM raw_leased INDEXED BY raw_leases WHERE queue = ?)"""
_NAMES = """
WITH RECURSIVE names (name, step) AS (
    SELECT (SELECT min(queue) FROM {table} WHERE queue >= :tree AND queue < :end), 1
    UNION ALL
    SELECT (SELECT min(queue) FROM {table} WHERE queue > name AND queue < :end), step + 1 FROM names
    WHERE name IS NOT NULL AND step < :steps
)
SELECT name FROM names WHERE name IS NOT NULL"""
_TABLES = ("raw_waiting", "raw_leased")
_SAME = "SELECT seq FROM raw_waiting INDEXED BY raw_params WHERE queue = ? AND param = ? ORDER BY seq LIMIT 1"
_ADD = "INSERT INTO raw_waiting (queue, param, score) VALUES (?, ?, ?)"
_SCORE = "UPDATE raw_waiting SET score = ? WHERE seq = ?"
_DROP = "DELETE FROM raw_waiting WHERE seq = ?"
_KNOWN = "INSERT OR IGNORE INTO queues VALUES (?)"
_PEEK = """
SELECT param, score FROM raw_waiting INDEXED BY raw_order
WHERE queue = ? ORDER BY score, seq LIMIT ? OFFSET ?"""
_SIZE = "SELECT n FROM totals WHERE kind = 'raw' AND name = ? AND status = 'waiting'"
_HISTOGRAM = """
SELECT min(CAST((score - :start) / (:stop - :start) * :buckets AS INTEGER), :buckets - 1), count(*)
FROM raw_waiting INDEXED BY raw_order
WHERE queue = :queue AND score >= :start AND score < :stop GROUP BY 1"""


def push(
    connection: sqlite3.Connection, queue: str, kind: RawKind, items: Sequence[RawItem], now: float
) -> list[bool]:
    """See `RawParameters.push`. `now` is Unix time."""
    answers = []
    for item in items:
        score = _score(kind, item, now)
        same = None if kind is RawKind.LIST else _first_row(connection, queue, item.param)
        if same is None:
            connection.execute(_ADD, (queue, item.param, score))
        elif has_scores(kind):
            connection.execute(_SCORE, (score, same))
        answers.append(same is None)
    if answers:
        connection.execute(_KNOWN, (queue,))
    add_to_size(connection, queue, sum(answers))
    return answers


def peek(connection: sqlite3.Connection, queue: str, kind: RawKind, limit: int, offset: int) -> list[RawItem]:
    """See `RawParameters.peek`."""
    found = connection.execute(_PEEK, (queue, limit, offset)).fetchall()
    return [RawItem(param=param, score=score if has_scores(kind) else None) for param, score in found]


def remove(connection: sqlite3.Connection, queue: str, params: Sequence[str]) -> list[bool]:
    """See `RawParameters.remove`."""
    answers = []
    for param in params:
        seq = _first_row(connection, queue, param)
        if seq is not None:
            connection.execute(_DROP, (seq,))
        answers.append(seq is not None)
    add_to_size(connection, queue, -sum(answers))
    return answers


def size(connection: sqlite3.Connection, queue: str) -> int:
    """See `RawParameters.size`."""
    row = connection.execute(_SIZE, (queue,)).fetchone()
    return 0 if row is None else int(row[0])


def histogram(
    connection: sqlite3.Connection, queue: str, kind: RawKind, start: float, stop: float, buckets: int
) -> list[int]:
    """See `RawParameters.histogram`. Reads the index entries between start and stop, because SQLite counts
    only rows that it reads."""
    numbers = [0] * buckets
    if has_scores(kind) and start < stop:
        values = {"queue": queue, "start": float(start), "stop": float(stop), "buckets": buckets}
        for part, number in connection.execute(_HISTOGRAM, values).fetchall():
            numbers[part] = number
    return numbers


def has_scores(kind: RawKind) -> bool:
    """Whether the parameters of this kind have a score."""
    return kind in (RawKind.SORTED_SET, RawKind.TIMED_SET)


def _first_row(connection: sqlite3.Connection, queue: str, param: str) -> int | None:
    """The first waiting row of the parameter."""
    row = connection.execute(_SAME, (queue, param)).fetchone()
    return None if row is None else int(row[0])


def _score(kind: RawKind, item: RawItem, now: float) -> float:
    if not has_scores(kind):
        return 0.0
    if item.score is None:
        return now if kind is RawKind.TIMED_SET else 0.0
    return float(item.score)


# --- due times --------------------------------------------------------------------------------------


def next_due(connection: sqlite3.Connection, wanted: str) -> int | None:
    """The earliest time at which the raw queue or tree has a parameter to claim. None: a regular queue.

    Visits a bounded number of subqueues of a tree; later subqueues follow once the earlier ones are empty.
    """
    kind = raw_kind(wanted)
    if kind is None:
        return None
    times = [time_ms for name in _names(connection, wanted) for time_ms in _times(connection, name, kind)]
    return min(times, default=None)


def _names(connection: sqlite3.Connection, wanted: str) -> set[str]:
    if not wanted.endswith("/"):
        return {wanted}
    values = {"tree": wanted, "end": end_of(wanted), "steps": MAX_STEPS}
    return {name for table in _TABLES for (name,) in connection.execute(_NAMES.format(table=table), values)}


def _times(connection: sqlite3.Connection, name: str, kind: RawKind) -> list[int]:
    score, until_ms = connection.execute(_FIRST, (name, name)).fetchone()
    times = [] if until_ms is None else [until_ms]
    if score is not None:
        times.append(math.ceil(min(score, 1e12) * 1000) if kind is RawKind.TIMED_SET else 0)
    return times
