"""The indexes that serve a filter, the index with the fewest jobs first.

A search goes through the entries of the first index and seeks each entry in the other indexes, so that it
reads only rows of jobs that are in all indexes. Totals have the numbers of jobs by status, path, queue and
error group. The entries of the other indexes are counted up to a bound.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import Any, NamedTuple

from msgspec.structs import replace

from mrq_core.contract import codec
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.terms import wanted_terms
from mrq_core.embedded.jobs.conditions import LISTED, Condition
from mrq_core.embedded.jobs.trees import end_of

COUNTED = (100, 1_000, 10_000)
"""Up to these numbers the entries of indexes without totals are counted, until one of them has fewer."""
MOST_SUBQUEUES = 50
"""The number of queues of a tree that are searched one by one. A larger tree has no index."""
MOST_TYPES = 100
"""The number of types of exceptions whose jobs are counted one by one."""

_TOTALS = {
    "status": f"SELECT sum(n) FROM totals WHERE kind = 'path' AND status {LISTED}",
    "path": f"SELECT sum(n) FROM totals WHERE kind = 'path' AND name {LISTED}",
    "queue": f"SELECT sum(n) FROM totals WHERE kind = 'queue' AND name {LISTED}",
    "group": f"SELECT sum(n) FROM totals WHERE kind = 'group' AND name {LISTED}",
}
_SIZE = "SELECT count(*) FROM (SELECT 1 FROM {entries.tables} WHERE {entries.sql} LIMIT ?)"
_COUNT = "SELECT count(*) FROM {entries.tables} WHERE {entries.sql} AND {others}"
_SUBQUEUES = """
SELECT DISTINCT name FROM totals WHERE kind = 'queue' AND name >= ? AND name < ? AND n > 0 LIMIT ?"""
_SERVED: dict[str, Any] = {
    "statuses": (),
    "paths": (),
    "queues": (),
    "schedules": (),
    "exception_types": (),
    "error_words": (),
    "error_groups": (),
    "search_keys": {},
}
"""The parts of a filter that an index serves, empty."""
_RAISED = "SELECT sum(n) FROM totals WHERE kind = 'group'"
_TYPES = "SELECT DISTINCT name FROM totals WHERE kind = 'type' AND n > 0 LIMIT ?"
_SPAN = "job_id > ? AND job_id <= ?"
Span = tuple[str, str]
"""Two ids: the jobs after the first, up to the last."""


class Entries(NamedTuple):
    """Entries of an index: tables, condition and its values."""

    tables: str
    sql: str
    values: tuple[object, ...] = ()
    id: str = "listed.id"
    row: str = "jobs.seq = listed.seq"
    """The condition of the row in `jobs`."""


ALL = Entries("jobs AS listed", "1")


class Index(NamedTuple):
    """An index, and the values of which each matching job has one."""

    name: str
    """The column, or the name of the terms."""
    values: tuple[str, ...]
    is_terms: bool = False

    def ranges(self) -> list[Entries]:
        """For each value its entries, which are in the order of ids. A job may have several terms."""
        return [self._entries("= ?", value) for value in self.values]

    def entries(self, span: Span) -> Entries:
        """The entries of these ids, each job once, in any order."""
        if self.is_terms and len(self.values) > 1:
            tables = (
                f"(SELECT DISTINCT job_id FROM terms WHERE name = ? AND value {LISTED} AND {_SPAN}) AS listed"
            )
            values = (self.name, self._listed(), *span)
            return Entries(tables, "1", values, "listed.job_id", "jobs.id = listed.job_id")
        found = self._of_values()
        sql = f"{found.sql} AND {found.id} > ? AND {found.id} <= ?"
        return Entries(found.tables, sql, (*found.values, *span), found.id, found.row)

    def contains(self, job_id: str) -> Condition:
        """Whether the index has the job that this column names."""
        entries = self._of_values("other")
        sql = f"SELECT 1 FROM {entries.tables} WHERE {entries.sql} AND {entries.id} = {job_id}"
        return Condition(f"EXISTS ({sql})", entries.values)

    def size(self, connection: sqlite3.Connection, most: int) -> int:
        """The number of jobs; an index without totals stops counting at `most`."""
        if self.name in _TOTALS:
            (number,) = connection.execute(_TOTALS[self.name], (self._listed(),)).fetchone()
        else:
            entries = self._of_values()
            sql = _SIZE.format(entries=entries)
            (number,) = connection.execute(sql, (*entries.values, most)).fetchone()
        return number or 0

    def _of_values(self, alias: str = "listed") -> Entries:
        if len(self.values) == 1:
            return self._entries("= ?", self.values[0], alias)
        return self._entries(LISTED, self._listed(), alias)

    def _entries(self, compares: str, value: str, alias: str = "listed") -> Entries:
        if self.is_terms:
            sql, values = f"{alias}.name = ? AND {alias}.value {compares}", (self.name, value)
            job_id = f"{alias}.job_id"
            return Entries(f"terms AS {alias}", sql, values, job_id, f"jobs.id = {job_id}")
        tables = f"jobs AS {alias} INDEXED BY jobs_by_{self.name}"
        sql = f"{alias}.{self.name} {compares}"
        return Entries(tables, sql, (value,), f"{alias}.id", f"jobs.seq = {alias}.seq")

    def _listed(self) -> str:
        return codec.encode([*self.values]).decode()


def serving(connection: sqlite3.Connection, wanted: JobFilter) -> list[Index]:
    """The indexes that serve the filter, by the number of their jobs. Those too large to count come last."""
    found = _all_serving(connection, wanted)
    sizes = _sizes(connection, found)
    return sorted(found, key=sizes.__getitem__)


def _sizes(connection: sqlite3.Connection, found: Sequence[Index]) -> dict[Index, float]:
    """The numbers of jobs; infinity for an index that is too large to count.

    Entries are counted until the smallest index is known, up to 10,000 or a tenth of the smallest total:
    counting may not take longer than the search.
    """
    sizes: dict[Index, float] = {i: i.size(connection, 0) for i in found if i.name in _TOTALS}
    counted = [index for index in found if index not in sizes]
    fewest = min(sizes.values(), default=math.inf)
    bounds = [*COUNTED] if fewest == math.inf else sorted({*COUNTED, int(fewest) // 10})
    most = 0
    for bound in bounds if counted else ():
        most = int(min(bound, fewest))
        sizes |= {index: index.size(connection, most) for index in counted}
        if most == fewest or any(sizes[index] < most for index in counted):
            break
    return sizes | {index: math.inf for index in counted if sizes[index] >= most}


def of_terms(wanted: JobFilter) -> list[Index]:
    """For each part of the filter that asks for terms, the index of terms."""
    found = []
    for part in wanted_terms(wanted):
        [name] = {term.name for term in part}
        found.append(Index(name, tuple(term.value for term in part), is_terms=True))
    return found


def inside(others: Sequence[Index], job_id: str) -> Condition:
    """Whether all these indexes have the job that the column names."""
    conditions = [index.contains(job_id) for index in others]
    sql = " AND ".join(condition.sql for condition in conditions)
    return Condition(sql or "1", tuple(value for condition in conditions for value in condition.values))


def has_index(wanted: JobFilter) -> bool:
    """Whether indexes serve all parts of the filter."""
    return replace(wanted, **_SERVED) == JobFilter()


def count(
    connection: sqlite3.Connection, index: Index, others: Sequence[Index], span: Span
) -> dict[str, int]:
    """The number of jobs of these ids that all the indexes have, expired jobs included."""
    entries = index.entries(span)
    inside_others = inside(others, entries.id)
    sql = _COUNT.format(entries=entries, others=inside_others.sql)
    (number,) = connection.execute(sql, (*entries.values, *inside_others.values)).fetchone()
    return {"": number}


def with_errors(connection: sqlite3.Connection, best: Sequence[Index]) -> Index | None:
    """The index of the jobs that have an exception, by the full name of its type. None: the best index has
    fewer jobs, or there are many types."""
    (number,) = connection.execute(_RAISED).fetchone()
    raised = number or 0
    if best and best[0].size(connection, raised + 1) <= raised:
        return None
    names = [name for (name,) in connection.execute(_TYPES, (MOST_TYPES + 1,))]
    return Index("type", tuple(names), is_terms=True) if 0 < len(names) <= MOST_TYPES else None


def _all_serving(connection: sqlite3.Connection, wanted: JobFilter) -> list[Index]:
    columns = {
        "schedule": wanted.schedules,
        "status": [status.value for status in wanted.statuses],
        "queue": _queues(connection, wanted.queues),
        "path": wanted.paths,
    }
    found = [Index(column, tuple(dict.fromkeys(values))) for column, values in columns.items() if values]
    return found + of_terms(wanted)


def _queues(connection: sqlite3.Connection, names: Sequence[str]) -> list[str]:
    """The queues of the filter and of its trees. Empty: there are too many."""
    queues = [name for name in names if not name.endswith("/")]
    for tree in names:
        if tree.endswith("/"):
            values = (tree, end_of(tree), MOST_SUBQUEUES + 1)
            subqueues = connection.execute(_SUBQUEUES, values).fetchall()
            if len(subqueues) > MOST_SUBQUEUES:
                return []
            queues += [name for (name,) in subqueues] or [tree]
    return queues
