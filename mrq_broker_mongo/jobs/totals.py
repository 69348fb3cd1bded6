"""Totals of jobs and counts of queues: documents of numbers, changed by $inc after the jobs.

    _id      ``q <queue>`` or ``p <path>``
    n        by status, how many

A process that dies between the two writes leaves them wrong. No job depends on them, and `recount`, which is
due once a minute, repairs them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import DuplicateKeyError

from mrq_broker_mongo.jobs.records import ENDED_INTERRUPT, RANKS, WAITING_CELLS
from mrq_broker_mongo.jobs.trees import EVER, due_query
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.layout import DUE, LEASES
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.messages import QueueCounts, Totals
from mrq_core.contract.record import Status

MOST_DUE = 10_000
RECOUNT_SECONDS = 45.0
_LEASE_MS = 60_000
_SHARE = 50
"""The pause after a recount, as a multiple of its duration."""
_LOOKS = 3


class Deltas:
    """The changes of the numbers by one call, written together."""

    def __init__(self) -> None:
        self._moves: Counter[tuple[str, str, str | None, str | None]] = Counter()

    def add(self, queue: str, path: str, before: str | None, after: str | None) -> None:
        """A job of this queue and path that was counted as `before` is now counted as `after`."""
        self._moves[queue, path, before, after] += 1

    def write(self, connection: Connection) -> None:
        """Adds them to what is stored."""
        sums: Counter[tuple[str, str]] = Counter()
        for (queue, path, before, after), number in self._moves.items():
            for cell, change in ((before, -number), (after, number)):
                if cell is not None:
                    sums[f"q {queue}", cell] += change
                    sums[f"p {path}", cell] += change
        self._moves.clear()
        documents: dict[str, dict[str, int]] = {}
        for (name, cell), change in sums.items():
            if change:
                documents.setdefault(name, {})[f"n.{cell}"] = change
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
    tables: dict[str, dict[str, dict[Status, int]]] = {"q": {}, "p": {}}
    for doc in connection.run("totals", lambda totals: list(totals.find())):
        kind, _, name = doc["_id"].partition(" ")
        row: dict[Status, int] = {}
        for cell, number in doc.get("n", {}).items():
            status = Status.INTERRUPT if cell == ENDED_INTERRUPT else Status(cell)
            if number:
                row[status] = row.get(status, 0) + number
        if row:
            tables[kind][name] = row
    return Totals(by_queue=tables["q"], by_path=tables["p"])


def queue_names(connection: Connection, prefix: str, after: str, limit: int) -> list[str]:
    """See `Broker.queue_names`."""
    low: Doc = {"$gt": f"q {after}"} if after >= prefix and after else {"$gte": f"q {prefix}"}
    wanted = {"_id": {**low, "$lt": f"q {prefix}\U0010ffff"}}
    found = connection.run(
        "totals", lambda totals: list(totals.find(wanted, {"_id": 1}).sort("_id").limit(limit))
    )
    return [doc["_id"][2:] for doc in found]


def counts(connection: Connection, queues: Sequence[str]) -> list[QueueCounts]:
    """See `Broker.counts`. Waiting and claimed jobs come from totals; due jobs are counted up to MOST_DUE."""
    now = connection.now()
    names = [f"q {queue}" for queue in queues]
    found = connection.run("totals", lambda totals: list(totals.find({"_id": {"$in": names}})))
    numbers = {doc["_id"]: doc.get("n", {}) for doc in found}
    return [_counts(connection, queue, numbers.get(f"q {queue}", {}), now) for queue in queues]


def _counts(connection: Connection, queue: str, numbers: dict[str, int], now: datetime) -> QueueCounts:
    if not any(numbers.values()):
        return QueueCounts(queue=queue)
    waiting = max(0, sum(numbers.get(cell, 0) for cell in WAITING_CELLS))
    started = max(0, numbers.get("started", 0))
    lost = {"queue": queue, "lease_until": {"$lte": now}}
    due = connection.run(
        "jobs", lambda jobs: jobs.count_documents(due_query(queue, now), limit=MOST_DUE, hint=DUE.name)
    )
    over = connection.run("jobs", lambda jobs: jobs.count_documents(lost, limit=MOST_DUE, hint=LEASES.name))
    oldest: list[datetime] = []
    if due:
        head = {"queue": queue, "rank": {"$in": RANKS}, "due_at": {"$gt": EVER, "$lte": now}}
        oldest += connection.run(
            "jobs",
            lambda jobs: [doc["due_at"] for doc in jobs.find(head, {"due_at": 1}).sort("due_at").limit(1)],
        )
    if over:
        oldest += connection.run(
            "jobs",
            lambda jobs: [
                doc["lease_until"] for doc in jobs.find(lost, {"lease_until": 1}).sort("lease_until").limit(1)
            ],
        )
    return QueueCounts(
        queue=queue,
        waiting=waiting + over,
        due=min(due + over, MOST_DUE),
        claimed=max(0, started - over),
        oldest_due=min(oldest, default=None),
    )


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
    group: Doc = {"q": "$queue", "p": "$path", "s": "$status", "e": {"$gt": ["$ended_at", None]}}
    pipeline: list[Doc] = [
        {"$project": {"queue": 1, "path": 1, "status": 1, "ended_at": 1}},
        {"$group": {"_id": group, "n": {"$sum": 1}}},
    ]
    numbers: dict[tuple[str, str], int] = {}
    for row in connection.run("jobs", lambda jobs: list(jobs.aggregate(pipeline, allowDiskUse=True))):
        of = row["_id"]
        cell = ENDED_INTERRUPT if of["s"] == "interrupt" and of["e"] else of["s"]
        for name in (f"q {of['q']}", f"p {of['p']}"):
            numbers[name, cell] = numbers.get((name, cell), 0) + row["n"]
    return numbers
