"""The indexes that serve a filter, and the index that has the fewest entries for it.

Each index has a field and then the ids, so that the jobs with a value come in the order of ids. Of several
values, the server merges the ranges.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from mrq_broker_mongo.jobs import totals, trees
from mrq_broker_mongo.jobs.records import text_of
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.naming import is_tree
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.terms import wanted_terms

MOST_VALUES = 100
"""The largest number of values whose ranges are merged."""
MOST_QUEUES = 50
"""The largest number of subqueues by which a tree is served."""
_MEASURES = (1_000, 10_000)
"""Up to these numbers entries are counted, where totals do not have the number."""
_FEW = 200
"""Below this number of entries their documents are read at once."""
_MOST_SOUGHT = 3
"""The largest number of values for which each entry is sought in another index."""
_MANY = 100_000
"""The assumed number of entries where there are more than were counted."""

WITH_ERROR: dict[str | None, Doc] = {
    "exception_type": {"terms": {"$elemMatch": {"$gte": "type\0", "$lt": "type\1"}}},
    "error_group": {"terms": {"$elemMatch": {"$gte": "group\0", "$lt": "group\1"}}},
}
"""The jobs that have a value in this field, by the term that all of them have."""


class Served(NamedTuple):
    """A part of a filter that an index serves."""

    field: str
    """The first field of the index, which is named after it."""
    values: tuple[str, ...]

    @property
    def condition(self) -> Doc:
        """The part as a query."""
        return {self.field: self.values[0] if len(self.values) == 1 else {"$in": list(self.values)}}


def with_values(connection: Connection, field: str) -> Served | None:
    """The jobs that have an exception type, or an error group, by all its values. None: there are many.

    The values are those of totals: after a crash, a new one may be missing for a minute.
    """
    names = tuple(totals.names_of(connection, field))
    if not 0 < len(names) <= MOST_VALUES:
        return None
    is_group = field == "error_group"
    wanted = JobFilter(error_groups=names) if is_group else JobFilter(exception_types=names)
    return Served("terms", wanted_texts(wanted)[0])


class Chosen(NamedTuple):
    """The indexes of a search."""

    served: Served | None
    """The part of the filter whose index has the fewest entries. None: no index serves the filter."""
    others: tuple[Served, ...] = ()
    """Other parts, with less than half of all jobs each, whose indexes tell which entries match. The smallest
    comes first."""


def choose(connection: Connection, wanted: JobFilter) -> Chosen:
    """The indexes to read for a filter, by the numbers of their entries: from totals, or counted up to a
    bound."""
    parts = _serving(connection, wanted)
    if len(parts) < 2:
        return Chosen(parts[0] if parts else None)
    sizes = {part: number for part in parts if (number := _told(connection, wanted, part)) is not None}
    rest = [part for part in parts if part not in sizes]
    for limit in _MEASURES:
        if min(sizes.values(), default=limit) < limit:
            break
        measured = {part: _measured(connection, part, limit) for part in rest}
        sizes |= {part: number for part, number in measured.items() if number < limit}
        rest = [part for part in rest if part not in sizes]
    served = min(parts, key=lambda part: sizes.get(part, _MANY))
    if sizes.get(served, _MANY) < _FEW:
        return Chosen(served)
    half = sum(totals.numbers_of(connection, "p", ()).values()) // 2
    others = [
        part
        for part in sorted(sizes, key=sizes.__getitem__)
        if part is not served and sizes[part] < half and len(part.values) <= _MOST_SOUGHT
    ]
    return Chosen(served, tuple(others))


def wanted_texts(wanted: JobFilter) -> list[tuple[str, ...]]:
    """The terms that the filter asks for, as they are stored. A job needs one of each part."""
    return [tuple(sorted(map(text_of, part))) for part in wanted_terms(wanted)]


def has_texts(texts: Iterable[str]) -> Doc:
    """The condition that a job has one of these terms, in a form for which no index is used."""
    terms = {"$ifNull": ["$terms", []]}
    return {"$expr": {"$or": [{"$in": [{"$literal": text}, terms]} for text in texts]}}


def _serving(connection: Connection, wanted: JobFilter) -> list[Served]:
    fields = (
        ("schedule", wanted.schedules),
        ("queue", _queues(connection, wanted.queues)),
        ("path", wanted.paths),
        ("status", [status.value for status in wanted.statuses]),
    )
    parts = [Served("terms", texts) for texts in wanted_texts(wanted)]
    parts += [Served(field, tuple(dict.fromkeys(values))) for field, values in fields]
    return [part for part in parts if 0 < len(part.values) <= MOST_VALUES]


def _queues(connection: Connection, names: Iterable[str]) -> list[str]:
    """The queues, with the subqueues of trees. Empty where one of the trees is large."""
    queues: list[str] = []
    for name in names:
        subqueues = _subqueues(connection, name) if is_tree(name) else [name]
        if subqueues is None:
            return []
        queues += subqueues or [name]
    return queues


def _subqueues(connection: Connection, tree: str) -> list[str] | None:
    """The subqueues that have jobs. None: there are many.

    Totals show only whether there are many: a crash can leave a job in a queue without totals.
    """
    if len(totals.queue_names(connection, tree, "", MOST_QUEUES + 1)) > MOST_QUEUES:
        return None
    inside = {"queue": {"$gte": tree, "$lt": trees.end_of(tree)}}
    pipeline: list[Doc] = [
        {"$match": inside},
        {"$group": {"_id": "$queue"}},
    ]  # reads one index entry for each queue
    found = connection.run("jobs", lambda jobs: list(jobs.aggregate(pipeline, hint="queue")))
    return [doc["_id"] for doc in found] if len(found) <= MOST_QUEUES else None


def _told(connection: Connection, wanted: JobFilter, part: Served) -> int | None:
    """The number of entries, from totals. None: totals do not have the number."""
    if part.field == "status":
        numbers = totals.numbers_of(connection, "p", ())
        return sum(numbers.get(status, 0) for status in wanted.statuses)
    if part.field in ("queue", "path"):
        return sum(totals.numbers_of(connection, part.field[0], part.values).values())
    if part.field == "terms" and part.values == tuple(
        sorted({f"group\0{name}" for name in wanted.error_groups})
    ):
        return sum(totals.numbers_of(connection, "g", wanted.error_groups).values())
    return None


def _measured(connection: Connection, part: Served, limit: int) -> int:
    """The number of entries up to the limit, counted."""
    return connection.run(
        "jobs", lambda jobs: jobs.count_documents(part.condition, limit=limit, hint=part.field)
    )
