"""When a raw queue, or one of a tree of them, has something to claim."""

from __future__ import annotations

import math
import sqlite3

from mrq_core.contract.naming import RawKind, raw_kind
from mrq_core.embedded.subqueues import MAX_STEPS, end_of

_FIRST = """
SELECT (SELECT min(score) FROM raw_waiting INDEXED BY raw_lines WHERE queue = ?1),
       (SELECT min(until_ms) FROM raw_leased INDEXED BY raw_leases WHERE queue = ?1)"""
_NAMES = """
WITH RECURSIVE names (name, step) AS (
    SELECT (SELECT min(queue) FROM {table} WHERE queue > :tree AND queue < :end), 1
    UNION ALL
    SELECT (SELECT min(queue) FROM {table} WHERE queue > name AND queue < :end), step + 1 FROM names
    WHERE name IS NOT NULL AND step < :steps
)
SELECT name FROM names WHERE name IS NOT NULL"""
_TABLES = ("raw_waiting", "raw_leased")


def next_due(connection: sqlite3.Connection, wanted: str) -> int | None:
    """The earliest time at which the raw queue or tree has something to claim; None for regular queues.

    Steps over some subqueues of a tree only; those behind them are met when the ones before are empty.
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
    score, until_ms = connection.execute(_FIRST, (name,)).fetchone()
    times = [] if until_ms is None else [until_ms]
    if score is not None:
        times.append(math.ceil(min(score, 1e12) * 1000) if kind is RawKind.TIMED_SET else 0)
    return times
