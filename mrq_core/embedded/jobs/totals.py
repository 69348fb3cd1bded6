"""Totals of jobs, counts of queues, and the names of queues."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mrq_core.clock import Clock
from mrq_core.contract.messages import QueueCounts, Totals
from mrq_core.contract.record import Status
from mrq_core.embedded.jobs import records, trees

MAX_DUE = 10_000
"""Up to here due jobs are counted one by one."""

_TOTALS = "SELECT kind, name, status, n FROM totals WHERE kind IN ('queue', 'path') AND n > 0"
_ENTRIES = "SELECT status, n FROM totals WHERE kind = 'entry' AND name = ?"
_DUE = """
SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_entries
                      WHERE queue = ? AND rank = ? AND due_ms <= ? LIMIT ?)"""
_KNOWN = "SELECT name FROM queues WHERE name > ? AND name >= ? AND name < ? ORDER BY name LIMIT ?"
_LAST_CHARACTER = "\U0010ffff"


def totals(connection: sqlite3.Connection) -> Totals:
    """See `Broker.totals`."""
    found: dict[str, dict[str, dict[Status, int]]] = {"queue": {}, "path": {}}
    for kind, name, status, number in connection.execute(_TOTALS):
        found[kind].setdefault(name, {})[Status(status)] = number
    return Totals(by_queue=found["queue"], by_path=found["path"])


def counts(connection: sqlite3.Connection, clock: Clock, queues: Sequence[str]) -> list[QueueCounts]:
    """See `Broker.counts`. Costs a few look-ups a queue, and up to 10,000 index entries for what is due."""
    now_ms = clock.now_ms()
    return [_counts(connection, queue, now_ms) for queue in queues]


def _counts(connection: sqlite3.Connection, queue: str, now_ms: int) -> QueueCounts:
    entries = dict(connection.execute(_ENTRIES, (queue,)).fetchall())
    due, suspects, oldest_ms = 0, 0, None
    for level in trees.levels(connection, queue):
        if level.due_ms > now_ms:
            continue
        oldest_ms = level.due_ms if oldest_ms is None else min(oldest_ms, level.due_ms)
        (number,) = connection.execute(_DUE, (queue, level.rank, now_ms, MAX_DUE)).fetchone()
        due += number
        if level.is_claimed:  # an expired lease: no worker holds the job
            suspects = number
    return QueueCounts(
        queue=queue,
        waiting=entries.get("waiting", 0) + suspects,
        due=min(due, MAX_DUE),
        claimed=entries.get("claimed", 0) - suspects,
        oldest_due=records.moment(oldest_ms),
    )


def queue_names(connection: sqlite3.Connection, prefix: str, after: str, limit: int) -> list[str]:
    """See `Broker.queue_names`."""
    values = (after, prefix, prefix + _LAST_CHARACTER, limit)
    return [name for (name,) in connection.execute(_KNOWN, values)]
