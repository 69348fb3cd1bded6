"""Totals of jobs: documents of numbers, changed by $inc after the jobs.

    _id      ``q <queue>``, ``p <path>``, ``g <error group>`` or ``t <type of exception>``
    n        by status, how many

    empty_at of a queue without jobs and parameters: the time at which a recount found it so

A process that dies between the two writes leaves them wrong. No job depends on them, and `recounting` repairs
them once a minute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from msgspec.structs import replace
from pymongo import UpdateOne

from mrq_broker_mongo.jobs.records import ENDED_INTERRUPT, Stored, cell_of, cell_of_record
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.naming import BEHIND_NAMES, is_tree
from mrq_core.contract.queries import JobFilter, Totals
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.terms import type_terms, wanted_terms

KINDS = {"queue": "q", "path": "p", "error_group": "g", "exception_type": "t"}
"""The kinds of numbers by the field that they count."""


class Deltas:
    """The changes of the numbers by one call, written together."""

    def __init__(self) -> None:
        self._moves: Counter[tuple[str, str, str | None, str | None]] = Counter()
        self._errors: dict[tuple[str, str], int] = {}

    def add(self, queue: str, path: str, before: str | None, after: str | None) -> None:
        """A job of this queue and path that was counted as `before` is now counted as `after`."""
        self._moves[queue, path, before, after] += 1

    def add_error(self, exception_type: str, group: str | None, cell: str, number: int) -> None:
        """Adds to the numbers of jobs with this exception that are counted under this name."""
        names = (f"t {exception_type}",) if group is None else (f"t {exception_type}", f"g {group}")
        for name in names:
            self._errors[name, cell] = self._errors.get((name, cell), 0) + number

    def add_change(self, before: Stored, after: JobRecord) -> None:
        """A job was replaced."""
        old, cells = before.record, (cell_of(before.doc), cell_of_record(after))
        self.add(old.queue, old.path, cells[0], None)
        self.add(after.queue, after.path, None, cells[1])
        for record, cell, number in ((old, cells[0], -1), (after, cells[1], 1)):
            if record.exception_type is not None:
                self.add_error(record.exception_type, record.error_group, cell, number)

    def write(self, connection: Connection) -> None:
        """Adds them to what is stored."""
        sums: Counter[tuple[str, str]] = Counter()
        if self._errors:
            sums.update(self._errors)
        for (queue, path, before, after), number in self._moves.items():
            for cell, change in ((before, -number), (after, number)):
                if cell is not None:
                    sums[f"q {queue}", cell] += change
                    sums[f"p {path}", cell] += change
        documents: dict[str, dict[str, int]] = {}
        for (name, cell), change in sums.items():
            if change:
                documents.setdefault(name, {})[f"n.{cell}"] = change
        self._moves.clear()
        self._errors.clear()
        if documents:
            changes = [
                UpdateOne({"_id": name}, {"$inc": numbers}, upsert=True)
                for name, numbers in documents.items()
            ]
            connection.run_soft("totals", lambda totals: totals.bulk_write(changes, ordered=False))


def know_queues(connection: Connection, queues: Sequence[str]) -> None:
    """Stores the names of queues that are going to hold parameters."""
    update = {"$setOnInsert": {"n": {}}, "$unset": {"empty_at": ""}}
    changes = [UpdateOne({"_id": f"q {name}"}, update, upsert=True) for name in queues]
    connection.run_soft("totals", lambda totals: totals.bulk_write(changes, ordered=False))


def totals(connection: Connection) -> Totals:
    """See `Broker.totals`."""
    tables: dict[str, dict[str, dict[Status, int]]] = {"q": {}, "p": {}, "g": {}, "t": {}}
    for doc in connection.run("totals", lambda totals: list(totals.find())):
        kind, _, name = doc["_id"].partition(" ")
        row = _row(doc)
        if row:
            tables[kind][name] = row
    return Totals(by_queue=tables["q"], by_path=tables["p"], by_error_group=tables["g"])


def sum_of(connection: Connection, wanted: JobFilter, group_by: str | None) -> dict[str, int] | None:
    """The answer of `Broker.count`, with the expired jobs. None: totals do not have the answer.

    They have the answer for a filter by statuses and one of paths, queues and trees, types of exceptions and
    error groups, grouped by one of the two.
    """
    if replace(wanted, statuses=(), paths=(), queues=(), exception_types=(), error_groups=()) != JobFilter():
        return None
    named = {
        "path": wanted.paths,
        "queue": wanted.queues,
        "exception_type": wanted.exception_types,
        "error_group": wanted.error_groups,
    }
    fields = {field for field, names in named.items() if names} | ({group_by} - {None, "status"})
    if len(fields) > 1 or not fields <= named.keys():
        return None
    field = str(next(iter(fields), "path"))
    rows = _rows(connection, KINDS[field], () if field == "exception_type" else named[field])
    if wanted.exception_types:
        [terms] = wanted_terms(JobFilter(exception_types=wanted.exception_types))
        rows = {name: row for name, row in rows.items() if type_terms(name) & terms}
    numbers: dict[str, int] = {}
    for name, row in rows.items():
        for status, number in row.items():
            if number and (not wanted.statuses or status in wanted.statuses):
                group = {None: "", "status": status.value}.get(group_by, name)
                numbers[group] = numbers.get(group, 0) + number
    return numbers


def numbers_of(connection: Connection, kind: str, names: Sequence[str]) -> dict[Status, int]:
    """The numbers by status of these queues (`q`), paths (`p`), error groups (`g`) or types of exceptions
    (`t`). No names: of all."""
    sums: dict[Status, int] = {}
    for row in _rows(connection, kind, names).values():
        for status, number in row.items():
            sums[status] = sums.get(status, 0) + number
    return sums


def names_of(connection: Connection, field: str) -> list[str]:
    """The values of a field of KINDS that have totals, which may be 0."""
    return list(_rows(connection, KINDS[field], ()))


def _rows(connection: Connection, kind: str, names: Sequence[str]) -> dict[str, dict[Status, int]]:
    """The numbers by name and status. No names: of all."""
    wanted: Doc = {"_id": {"$in": [f"{kind} {name}" for name in names]} if names else all_of(kind)}
    trees = [f"{kind} {name}" for name in names if kind == "q" and is_tree(name)]
    if trees:
        wanted = {"$or": [wanted, *({"_id": {"$gte": tree, "$lt": f"{tree[:-1]}0"}} for tree in trees)]}
    found = connection.run("totals", lambda totals: list(totals.find(wanted)))
    return {doc["_id"][2:]: _row(doc) for doc in found}


def all_of(kind: str) -> Doc:
    """The condition on `_id` for all numbers of a kind."""
    return {"$gte": f"{kind} ", "$lt": f"{kind}!"}


def _row(doc: Doc) -> dict[Status, int]:
    row: dict[Status, int] = {}
    for cell, number in doc.get("n", {}).items():
        status = Status.INTERRUPT if cell == ENDED_INTERRUPT else Status(cell)
        if number:
            row[status] = row.get(status, 0) + number
    return row


def queue_names(connection: Connection, prefix: str, after: str, limit: int) -> list[str]:
    """See `Broker.queue_names`."""
    low: Doc = {"$gt": f"q {after}"} if after >= prefix and after else {"$gte": f"q {prefix}"}
    wanted = {"_id": {**low, "$lt": f"q {prefix}{BEHIND_NAMES}"}}
    found = connection.run(
        "totals", lambda totals: list(totals.find(wanted, {"_id": 1}).sort("_id").limit(limit))
    )
    return [doc["_id"][2:] for doc in found]
