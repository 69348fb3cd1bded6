"""Totals of jobs: documents of numbers, changed by $inc after the jobs.

    _id      ``q <queue>``, ``p <path>``, ``g <error group>`` or ``t <type of exception>``
    n        by status, how many

A process that dies between the two writes leaves them wrong. No job depends on them, and `recount`, which is
due once a minute, repairs them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from msgspec.structs import replace
from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from mrq_broker_mongo.jobs.records import ENDED_INTERRUPT, Stored, cell_of, cell_of_record
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.messages import JobFilter, Totals
from mrq_core.contract.naming import BEHIND_NAMES, is_tree
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.terms import type_terms, wanted_terms

RECOUNT_SECONDS = 45.0
_LEASE_MS = 60_000
_SHARE = 50
"""The pause after a recount, as a multiple of its duration."""
_LOOKS = 3
_KINDS = {"queue": "q", "path": "p", "error_group": "g", "exception_type": "t"}
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
    """Stores the names of queues without jobs."""
    changes = [UpdateOne({"_id": f"q {name}"}, {"$setOnInsert": {"n": {}}}, upsert=True) for name in queues]
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
    rows = _rows(connection, _KINDS[field], () if field == "exception_type" else named[field])
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


def _rows(connection: Connection, kind: str, names: Sequence[str]) -> dict[str, dict[Status, int]]:
    """The numbers by name and status. No names: of all."""
    wanted: Doc = {"_id": {"$in": [f"{kind} {name}" for name in names]} if names else _all_of(kind)}
    trees = [f"{kind} {name}" for name in names if kind == "q" and is_tree(name)]
    if trees:
        wanted = {"$or": [wanted, *({"_id": {"$gte": tree, "$lt": f"{tree[:-1]}0"}} for tree in trees)]}
    found = connection.run("totals", lambda totals: list(totals.find(wanted)))
    return {doc["_id"][2:]: _row(doc) for doc in found}


def _all_of(kind: str) -> Doc:
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


# --- repairs ----------------------------------------------------------------------------------------


def recount_if_due(connection: Connection) -> bool:
    """Recounts once a minute, in one process, less often where it takes long; answers whether it did."""
    now = connection.now()
    wanted = {"_id": "recount", "$or": [{"due": {"$lte": now}}, {"due": {"$exists": False}}]}
    lease = {"$add": [now, {"$max": [_LEASE_MS, {"$multiply": [3000, {"$ifNull": ["$took", 0]}]}]}]}
    try:
        held = connection.run(
            "meta", lambda meta: meta.update_one(wanted, [{"$set": {"due": lease}}], upsert=True)
        )
    except DuplicateKeyError:
        return False
    if not held.matched_count and held.upserted_id is None:
        return False
    began = time.monotonic()
    recount(connection)
    _delete_empty(connection)
    took = time.monotonic() - began
    due = now + timedelta(seconds=max(RECOUNT_SECONDS, _SHARE * took))
    done = {"$set": {"due": due, "took": took}}
    connection.run("meta", lambda meta: meta.update_one({"_id": "recount"}, done))
    return True


def recount(connection: Connection) -> int:
    """Corrects numbers that differ from a count by the same difference in each comparison.

    A number that changes while the jobs are counted is left for the next time: its difference may be that of
    a call that has written its jobs and not yet its numbers. Answers how many were corrected.
    """
    differences = _differences(connection)
    for _ in range(_LOOKS - 1):
        if not differences:
            return 0
        time.sleep(0.05)
        again = _differences(connection)
        differences = {cell: found for cell, found in differences.items() if again.get(cell) == found}
    corrected = 0
    for (name, cell), (told, counted) in differences.items():
        field = f"n.{cell}"
        same: Doc = {"_id": name, field: told} if told else {"_id": name, field: {"$in": [None, 0]}}
        change = {"$inc": {field: counted - told}}
        try:
            connection.run_soft("totals", _corrector(same, change, upsert=not told))
            corrected += 1
        except DuplicateKeyError:
            continue  # it has changed in this moment
    return corrected


def _delete_empty(connection: Connection) -> None:
    """Deletes the numbers of error groups and types of exceptions without jobs, because new ones appear as
    long as code changes."""
    wanted = {"$or": [{"_id": _all_of("g")}, {"_id": _all_of("t")}]}
    for doc in connection.run("totals", lambda totals: list(totals.find(wanted))):
        if not any(doc["n"].values()):
            connection.run_soft("totals", _deleter(doc))


def _deleter(unchanged: Doc) -> Any:
    return lambda totals: totals.delete_one(unchanged)


def _corrector(same: Doc, change: Doc, *, upsert: bool) -> Any:
    return lambda totals: totals.update_one(same, change, upsert=upsert)


def _differences(connection: Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """By number: what it says, and what a count gave, where these differ and it did not change meanwhile."""
    before = _told(connection)
    counted = _counted(connection)
    told = _told(connection)
    return {
        cell: (told.get(cell, 0), counted.get(cell, 0))
        for cell in {*told, *counted}
        if before.get(cell, 0) == told.get(cell, 0) != counted.get(cell, 0)
    }


def _told(connection: Connection) -> dict[tuple[str, str], int]:
    found = connection.run("totals", lambda totals: list(totals.find()))
    return {
        (doc["_id"], cell): number for doc in found for cell, number in doc.get("n", {}).items() if number
    }


def _counted(connection: Connection) -> dict[tuple[str, str], int]:
    """Reads every job once, on the server."""
    group: Doc = {kind: f"${field}" for field, kind in _KINDS.items()}
    group |= {"s": "$status", "e": {"$gt": ["$ended_at", None]}}
    pipeline: list[Doc] = [
        {"$project": dict.fromkeys((*_KINDS, "status", "ended_at"), 1)},
        {"$group": {"_id": group, "n": {"$sum": 1}}},
    ]
    numbers: dict[tuple[str, str], int] = {}
    for row in connection.run("jobs", lambda jobs: list(jobs.aggregate(pipeline, allowDiskUse=True))):
        of = row["_id"]
        cell = ENDED_INTERRUPT if of["s"] == "interrupt" and of["e"] else of["s"]
        for kind in _KINDS.values():
            if of.get(kind) is not None:
                number = (f"{kind} {of[kind]}", cell)
                numbers[number] = numbers.get(number, 0) + row["n"]
    return numbers
