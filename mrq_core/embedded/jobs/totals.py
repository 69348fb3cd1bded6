"""Totals of jobs, counts of queues, and the names of queues."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec.structs import replace

from mrq_core.clock import Clock
from mrq_core.contract import codec
from mrq_core.contract.messages import JobFilter, QueueCounts, Totals
from mrq_core.contract.naming import BEHIND_NAMES
from mrq_core.contract.record import Status
from mrq_core.contract.terms import type_terms, wanted_terms
from mrq_core.embedded.jobs import records, trees
from mrq_core.embedded.jobs.conditions import LISTED

MAX_DUE = 10_000
"""The largest number of due jobs that is counted."""

_TOTALS = "SELECT kind, name, status, n FROM totals WHERE kind IN ('queue', 'path', 'group') AND n > 0"
_SUM = "SELECT {group}, sum(n) FROM totals WHERE kind = ? AND {names} AND {statuses} GROUP BY 1"
_TYPES = "SELECT DISTINCT name FROM totals WHERE kind = 'type'"
_KINDS = {"path": "path", "queue": "queue", "exception_type": "type", "error_group": "group"}
"""The kinds of totals by the field that they group."""
_ENTRIES = "SELECT status, n FROM totals WHERE kind = 'entry' AND name = ?"
_DUE = """
SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_entries
                      WHERE queue = ? AND rank = ? AND due_ms <= ? LIMIT ?)"""
_KNOWN = "SELECT name FROM queues WHERE name > ? AND name >= ? AND name < ? ORDER BY name LIMIT ?"


def totals(connection: sqlite3.Connection) -> Totals:
    """See `Broker.totals`."""
    found: dict[str, dict[str, dict[Status, int]]] = {"queue": {}, "path": {}, "group": {}}
    for kind, name, status, number in connection.execute(_TOTALS):
        found[kind].setdefault(name, {})[Status(status)] = number
    return Totals(by_queue=found["queue"], by_path=found["path"], by_error_group=found["group"])


def count(connection: sqlite3.Connection, wanted: JobFilter, group_by: str | None) -> dict[str, int] | None:
    """The totals that answer `Broker.count`, expired jobs included. None: totals do not answer it.

    They do for a filter by statuses and one of path, queue, type of exception and error group, grouped by
    one of the two.
    """
    if replace(wanted, statuses=(), paths=(), queues=(), exception_types=(), error_groups=()) != JobFilter():
        return None
    named = {
        "path": wanted.paths,
        "queue": wanted.queues,
        "exception_type": wanted.exception_types,
        "error_group": _values(JobFilter(error_groups=wanted.error_groups)),
    }
    fields = {field for field, names in named.items() if names} | ({group_by} - {None, "status"})
    if len(fields) > 1 or not fields <= _KINDS.keys() or any(name.endswith("/") for name in wanted.queues):
        return None
    field = next(iter(fields), "path")
    names, statuses = list(named[field or ""]), [status.value for status in wanted.statuses]
    if wanted.exception_types:
        names = _types(connection, wanted.exception_types)
        if not names:
            return {}
    sql = _SUM.format(
        group={None: "''", "status": "status"}.get(group_by, "name"),
        names=f"name {LISTED}" if names else "1",
        statuses=f"status {LISTED}" if statuses else "1",
    )
    values = [codec.encode([*listed]).decode() for listed in (names, statuses) if listed]
    return dict(connection.execute(sql, (_KINDS[field or ""], *values)).fetchall())


def _types(connection: sqlite3.Connection, wanted: Sequence[str]) -> list[str]:
    """The full names of the types with one of these full or short names."""
    [terms] = wanted_terms(JobFilter(exception_types=tuple(wanted)))
    return [name for (name,) in connection.execute(_TYPES) if type_terms(name) & terms]


def _values(wanted: JobFilter) -> list[str]:
    return [term.value for part in wanted_terms(wanted) for term in part]


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
    values = (after, prefix, prefix + BEHIND_NAMES, limit)
    return [name for (name,) in connection.execute(_KNOWN, values)]
