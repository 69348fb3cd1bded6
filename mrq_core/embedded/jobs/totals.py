"""Totals of jobs, counts of queues, and the names of queues."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from mrq_core.clock import Clock
from mrq_core.contract import codec
from mrq_core.contract.naming import BEHIND_NAMES
from mrq_core.contract.queries import JobFilter, QueueCounts, Totals
from mrq_core.contract.record import Status
from mrq_core.contract.terms import type_terms, wanted_terms
from mrq_core.embedded.jobs import records
from mrq_core.embedded.jobs.conditions import LISTED, Condition, in_queues

MAX_DUE = 10_000
"""The largest number of due jobs that is counted."""
MOST_OTHERS = 1_000
"""The largest number of parked jobs, and of later jobs of a queue, that is counted."""

_TOTALS = "SELECT kind, name, status, n FROM totals WHERE kind IN ('queue', 'path', 'group') AND n > 0"
_SUM = "SELECT {group}, sum(n) FROM totals WHERE kind = ? AND {names} AND {statuses} GROUP BY 1"
_TYPES = "SELECT DISTINCT name FROM totals WHERE kind = 'type'"
_KINDS = {"path": "path", "queue": "queue", "exception_type": "type", "error_group": "group"}
"""The kinds of totals by the field that they group."""
_ENTRIES = f"SELECT name, status, n FROM totals WHERE kind = 'entry' AND name {LISTED}"
_LEVELS = """
SELECT listed.value, column1,
       (SELECT min(due_ms) FROM jobs INDEXED BY jobs_entries
        WHERE queue = listed.value AND rank = column1 AND rank IS NOT NULL) AS first_ms,
       (SELECT max(due_ms) FROM jobs INDEXED BY jobs_entries
        WHERE queue = listed.value AND rank = column1 AND rank IS NOT NULL)
FROM json_each(?) AS listed CROSS JOIN (VALUES (-4), (-3), (-2), (-1), (0), (1), (2), (3), (4), (9))
WHERE first_ms IS NOT NULL"""
_DUE = """
SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_entries
                      WHERE queue = ? AND rank = ? AND due_ms <= ? LIMIT ?)"""
_LATER = """
SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_entries
                      WHERE queue = ? AND rank = ? AND due_ms > ? LIMIT ?)"""
_PARKED = """
SELECT queue, count(*) FROM (SELECT job_id FROM parked LIMIT ?) CROSS JOIN jobs ON jobs.id = job_id
GROUP BY queue"""
_EXAMINED = "SELECT name FROM queues WHERE name > ? ORDER BY name LIMIT ?"
_FORGET = """
DELETE FROM queues WHERE name > ? AND name <= ?
AND NOT EXISTS (SELECT 1 FROM totals WHERE kind = 'queue' AND totals.name = queues.name AND n > 0)
AND NOT EXISTS (SELECT 1 FROM raw_waiting INDEXED BY raw_order WHERE queue = queues.name)
AND NOT EXISTS (SELECT 1 FROM raw_leased INDEXED BY raw_leases WHERE queue = queues.name)
RETURNING name"""
_DROP_TOTALS = "DELETE FROM totals WHERE kind IN ('queue', 'entry', 'raw') AND name = ? AND n = 0"
_WALKED = "SELECT value FROM state WHERE namespace = 'housekeeping' AND name = 'queues'"
_WALK = "INSERT OR REPLACE INTO state VALUES ('housekeeping', 'queues', ?, 0, NULL)"
_KNOWN = "SELECT name FROM queues WHERE name > ? AND name >= ? AND name < ? ORDER BY name LIMIT ?"


def totals(connection: sqlite3.Connection) -> Totals:
    """See `Broker.totals`."""
    found: dict[str, dict[str, dict[Status, int]]] = {"queue": {}, "path": {}, "group": {}}
    for kind, name, status, number in connection.execute(_TOTALS):
        found[kind].setdefault(name, {})[Status(status)] = number
    return Totals(by_queue=found["queue"], by_path=found["path"], by_error_group=found["group"])


def count(connection: sqlite3.Connection, wanted: JobFilter, group_by: str | None) -> dict[str, int] | None:
    """The totals that answer `Broker.count`, expired jobs included. None: totals do not answer it.

    They do for a filter by statuses and one of path, queue or tree, type of exception and error group,
    grouped by one of the two.
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
    if len(fields) > 1 or not fields <= _KINDS.keys():
        return None
    field = next(iter(fields), "path")
    names, statuses = list(named[field or ""]), [status.value for status in wanted.statuses]
    if wanted.exception_types:
        names = _types(connection, wanted.exception_types)
        if not names:
            return {}
    selected = in_queues("name", names) if field == "queue" and names else _listed("name", names)
    listed = _listed("status", statuses)
    sql = _SUM.format(
        group={None: "''", "status": "status"}.get(group_by, "name"), names=selected.sql, statuses=listed.sql
    )
    values = (_KINDS[field or ""], *selected.values, *listed.values)
    return dict(connection.execute(sql, values).fetchall())


def _listed(column: str, names: Sequence[str]) -> Condition:
    """Compares a column with a list. An empty list: any value."""
    if not names:
        return Condition("1", ())
    return Condition(f"{column} {LISTED}", (codec.encode([*names]).decode(),))


def _types(connection: sqlite3.Connection, wanted: Sequence[str]) -> list[str]:
    """The full names of the types with one of these full or short names."""
    [terms] = wanted_terms(JobFilter(exception_types=tuple(wanted)))
    return [name for (name,) in connection.execute(_TYPES) if type_terms(name) & terms]


def _values(wanted: JobFilter) -> list[str]:
    return [term.value for part in wanted_terms(wanted) for term in part]


class _Level(NamedTuple):
    """The entries of a queue with one priority, or its claimed entries, and the times of the first and the
    last."""

    queue: str
    rank: int
    first_ms: int
    last_ms: int


def counts(connection: sqlite3.Connection, clock: Clock, queues: Sequence[str]) -> list[QueueCounts]:
    """See `Broker.counts`.

    Totals have the number of waiting jobs. Those that are parked or due later are counted and subtracted, as
    long as they are few. In other queues, the due jobs are counted.
    """
    now_ms, listed = clock.now_ms(), codec.encode([*queues]).decode()
    entries: dict[str, dict[str, int]] = {}
    for queue, kind, number in connection.execute(_ENTRIES, (listed,)):
        entries.setdefault(queue, {})[kind] = number
    levels: dict[str, list[_Level]] = {}
    for level in map(_Level._make, connection.execute(_LEVELS, (listed,))):
        levels.setdefault(level.queue, []).append(level)
    found = connection.execute(_PARKED, (MOST_OTHERS,)).fetchall()
    parked = dict(found) if sum(number for _, number in found) < MOST_OTHERS else None
    return [
        _counts(connection, queue, entries.get(queue, {}), levels.get(queue, ()), parked, now_ms)
        for queue in queues
    ]


def _counts(
    connection: sqlite3.Connection,
    queue: str,
    entries: Mapping[str, int],
    levels: Sequence[_Level],
    parked: Mapping[str, int] | None,
    now_ms: int,
) -> QueueCounts:
    waiting = [level for level in levels if level.rank != records.CLAIMED_RANK]
    reached = [level for level in levels if level.first_ms <= now_ms]
    suspects = sum(  # expired leases: no worker holds the job
        _number(connection, _DUE, level, now_ms, MAX_DUE)
        for level in reached
        if level.rank == records.CLAIMED_RANK
    )
    due = suspects
    if any(level.rank != records.CLAIMED_RANK for level in reached):
        later = sum(
            _number(connection, _LATER, level, now_ms, MOST_OTHERS)
            for level in waiting
            if level.last_ms > now_ms
        )
        if parked is None or later >= MOST_OTHERS:
            due += sum(_number(connection, _DUE, level, now_ms, MAX_DUE) for level in waiting)
        else:
            due += entries.get("waiting", 0) - later - parked.get(queue, 0)
    return QueueCounts(
        queue=queue,
        waiting=entries.get("waiting", 0) + suspects,
        due=min(due, MAX_DUE),
        claimed=entries.get("claimed", 0) - suspects,
        oldest_due=records.moment(min((level.first_ms for level in reached), default=None)),
    )


def _number(connection: sqlite3.Connection, sql: str, level: _Level, now_ms: int, most: int) -> int:
    """The number of due or later entries of a level, up to a bound."""
    (number,) = connection.execute(sql, (level.queue, level.rank, now_ms, most)).fetchone()
    return int(number)


def forget_queues(connection: sqlite3.Connection, limit: int) -> None:
    """Forgets the names without jobs and parameters among the next `limit` names, in one transaction with the
    totals that show it. The next call continues after them, and then from the first name."""
    row = connection.execute(_WALKED).fetchone()
    after = "" if row is None else codec.decode(row[0])
    names = connection.execute(_EXAMINED, (after, limit)).fetchall()
    if names:
        forgotten = connection.execute(_FORGET, (after, names[-1][0])).fetchall()
        connection.executemany(_DROP_TOTALS, forgotten)
    position = names[-1][0] if len(names) == limit else ""
    if position != after:
        connection.execute(_WALK, (codec.encode(position),))


def queue_names(connection: sqlite3.Connection, prefix: str, after: str, limit: int) -> list[str]:
    """See `Broker.queue_names`."""
    values = (after, prefix, prefix + BEHIND_NAMES, limit)
    return [name for (name,) in connection.execute(_KNOWN, values)]
