"""The index that serves a filter best: the index of one of its parts, the one with the fewest jobs.

Totals have the numbers of jobs by status, path, queue and error group. The entries of the other indexes are
counted up to a bound.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from mrq_core.contract import codec
from mrq_core.contract.messages import JobFilter
from mrq_core.contract.terms import wanted_terms
from mrq_core.embedded.jobs.trees import end_of

MOST_COUNTED = 10_000
"""The number of index entries that are counted before a part without totals is called large."""
MOST_SUBQUEUES = 50
"""The number of queues of a tree that are searched one by one. A larger tree has no index."""

_LISTED = "IN (SELECT value FROM json_each(?))"
_TOTALS = {
    "status": f"SELECT sum(n) FROM totals WHERE kind = 'path' AND status {_LISTED}",
    "path": f"SELECT sum(n) FROM totals WHERE kind = 'path' AND name {_LISTED}",
    "queue": f"SELECT sum(n) FROM totals WHERE kind = 'queue' AND name {_LISTED}",
    "group": f"SELECT sum(n) FROM totals WHERE kind = 'group' AND name {_LISTED}",
}
_ENTRIES = "SELECT count(*) FROM (SELECT 1 FROM {source} LIMIT ?)"
_SUBQUEUES = (
    "SELECT DISTINCT name FROM totals WHERE kind = 'queue' AND name > ? AND name < ? AND n > 0 LIMIT ?"
)


class Source(NamedTuple):
    """Jobs from an index: what follows FROM, with its values."""

    sql: str
    values: tuple[object, ...] = ()


class Range(NamedTuple):
    """Jobs from one range of an index, in the order of ids: tables, condition with its values, id."""

    tables: str
    condition: str
    values: tuple[object, ...]
    id: str = "id"


class Index(NamedTuple):
    """An index, and the values of which each matching job has one."""

    name: str
    """The column, or the name of the terms."""
    values: tuple[str, ...]
    is_terms: bool = False

    def ranges(self) -> list[Range]:
        """A range for each value. A job may be in several ranges of terms."""
        if not self.is_terms:
            return [Range("jobs", f"{self.name} = ?", (value,)) for value in self.values]
        tables = "terms CROSS JOIN jobs ON jobs.id = job_id"
        condition = "terms.name = ? AND terms.value = ?"
        return [Range(tables, condition, (self.name, value), "job_id") for value in self.values]

    def source(self) -> Source:
        """All jobs with one of the values, each once, in any order, followed by WHERE and a condition."""
        if not self.is_terms:
            sql = f"jobs INDEXED BY jobs_by_{self.name} WHERE {self.name} {_LISTED} AND"
            return Source(sql, (self._listed(),))
        sql = f"(SELECT DISTINCT job_id FROM terms WHERE name = ? AND value {_LISTED})"
        return Source(f"{sql} CROSS JOIN jobs ON jobs.id = job_id WHERE", (self.name, self._listed()))

    def size(self, connection: sqlite3.Connection, most: int) -> int:
        """The number of jobs; an index without totals stops counting at `most`."""
        if self.name in _TOTALS:
            (number,) = connection.execute(_TOTALS[self.name], (self._listed(),)).fetchone()
            return number or 0
        if self.is_terms:
            source = Source(f"terms WHERE name = ? AND value {_LISTED}", (self.name, self._listed()))
        else:
            table = f"jobs INDEXED BY jobs_by_{self.name}"
            source = Source(f"{table} WHERE {self.name} {_LISTED}", (self._listed(),))
        (number,) = connection.execute(_ENTRIES.format(source=source.sql), (*source.values, most)).fetchone()
        return int(number)

    def _listed(self) -> str:
        return codec.encode(list(self.values)).decode()


def best(connection: sqlite3.Connection, wanted: JobFilter) -> Index | None:
    """The index with the fewest jobs. None: no index serves the filter.

    A part without totals is counted up to a tenth of the jobs of the best index so far: counting the
    part may not take longer than the search.
    """
    chosen, fewest = None, math.inf
    for index in sorted(_serving(connection, wanted), key=lambda index: index.name not in _TOTALS):
        most = MOST_COUNTED if chosen is None else int(min(fewest, max(MOST_COUNTED, fewest // 10)))
        size = index.size(connection, most)
        if chosen is None or size < (fewest if index.name in _TOTALS else most):
            chosen, fewest = index, size
    return chosen


def source(connection: sqlite3.Connection, wanted: JobFilter, *, only_errors: bool) -> Source:
    """The jobs among which all matching jobs are. `only_errors`: all matching jobs that have an exception."""
    if wanted.ids:
        return Source("jobs WHERE")
    index = best(connection, wanted)
    if only_errors:
        (raised,) = connection.execute(_RAISED).fetchone()
        if index is None or (raised or 0) < index.size(connection, (raised or 0) + 1):
            return Source(_WITH_TYPE)
    return Source("jobs WHERE") if index is None else index.source()


def _serving(connection: sqlite3.Connection, wanted: JobFilter) -> list[Index]:
    columns = {
        "schedule": wanted.schedules,
        "status": [status.value for status in wanted.statuses],
        "queue": _queues(connection, wanted.queues),
        "path": wanted.paths,
    }
    found = [Index(column, tuple(dict.fromkeys(values))) for column, values in columns.items() if values]
    for part in wanted_terms(wanted):
        [name] = {term.name for term in part}
        found.append(Index(name, tuple(term.value for term in part), is_terms=True))
    return found


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
