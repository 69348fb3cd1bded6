"""Counts of queues, for all queues of a call together.

Totals have the numbers of waiting and claimed jobs. The index DUE has the first due job and the first later
job of each queue and rank. Jobs are counted only in queues that have due and later jobs: the later jobs, or
the due jobs if there are many later jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from mrq_broker_mongo.jobs.records import RANKS, WAITING_CELLS
from mrq_broker_mongo.jobs.trees import EVER
from mrq_broker_mongo.server.connection import Connection, Jobs
from mrq_broker_mongo.server.layout import DUE, LEASES, PARKED
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.queries import QueueCounts

MOST_DUE = 10_000
MOST_LATER = 1_000
"""The largest number of later jobs of a queue and rank that is counted."""
MOST_PARKED = 1_000
"""The largest number of parked jobs that is read. With more, due jobs are counted one by one."""
_TOGETHER = 200
"""The number of queries in one command."""


class _Heads(NamedTuple):
    """The first due times and leases."""

    due: dict[tuple[str, int], datetime]
    """By queue and rank, without the jobs that are not due."""
    later: dict[tuple[str, int], datetime]
    """By queue and rank, of the jobs that are not due."""
    leases: dict[str, datetime]
    """By queue, of the leases that have ended."""


class _Query(NamedTuple):
    """Jobs to count, up to a limit."""

    condition: Doc
    limit: int


def counts(connection: Connection, queues: Sequence[str]) -> list[QueueCounts]:
    """See `Broker.counts`."""
    now = connection.now()
    names = [f"q {queue}" for queue in queues]
    found = connection.run("totals", lambda totals: list(totals.find({"_id": {"$in": names}})))
    numbers = {doc["_id"][2:]: doc["n"] for doc in found if any(doc.get("n", {}).values())}
    if not numbers:
        return [QueueCounts(queue=queue) for queue in queues]
    heads = _heads(connection, list(numbers), now)
    over = _lost(connection, heads, now)
    waiting = {queue: max(0, sum(n.get(cell, 0) for cell in WAITING_CELLS)) for queue, n in numbers.items()}
    due = _due(connection, heads, waiting, now)
    oldest: dict[str, datetime] = dict(heads.leases)
    for (queue, _), at in heads.due.items():
        oldest[queue] = min(at, oldest.get(queue, at))
    return [
        QueueCounts(
            queue=queue,
            waiting=waiting.get(queue, 0) + over.get(queue, 0),
            due=min(due.get(queue, 0) + over.get(queue, 0), MOST_DUE),
            claimed=max(0, numbers.get(queue, {}).get("started", 0) - over.get(queue, 0)),
            oldest_due=oldest.get(queue),
        )
        for queue in queues
    ]


def _heads(connection: Connection, queues: list[str], now: datetime) -> _Heads:
    """Reads one index entry for each queue and rank, by DISTINCT_SCAN."""
    parts: list[list[Doc]] = []
    for field, bounds in (("due", {"$gt": EVER, "$lte": now}), ("later", {"$gt": now})):
        for rank in RANKS:
            condition = {"queue": {"$in": queues}, "rank": rank, "due_at": bounds}
            parts.append([*_first(condition, "due_at"), {"$set": {"rank": rank, "of": field}}])
    lease = {"queue": {"$in": queues}, "lease_until": {"$gt": EVER, "$lte": now}}
    parts.append([*_first(lease, "lease_until"), {"$set": {"of": "leases"}}])
    heads = _Heads({}, {}, {})
    for doc in _answers(connection, parts, DUE.name):
        if doc["of"] == "leases":
            heads.leases[doc["_id"]] = doc["at"]
        else:
            (heads.due if doc["of"] == "due" else heads.later)[doc["_id"], doc["rank"]] = doc["at"]
    return heads


def _first(condition: Doc, time: str) -> list[Doc]:
    """The earliest time of each queue."""
    return [
        {"$match": condition},
        {"$sort": {"queue": 1, time: 1}},
        {"$group": {"_id": "$queue", "at": {"$first": f"${time}"}}},
    ]


def _lost(connection: Connection, heads: _Heads, now: datetime) -> dict[str, int]:
    """The numbers of jobs whose leases have ended, by queue."""
    queries = [
        _Query({"queue": queue, "lease_until": {"$gt": EVER, "$lte": now}}, MOST_DUE)
        for queue in heads.leases
    ]
    return dict(zip(heads.leases, _counted(connection, queries, LEASES.name), strict=True))


def _due(connection: Connection, heads: _Heads, waiting: dict[str, int], now: datetime) -> dict[str, int]:
    """The numbers of due jobs by queue. In a queue that has few later jobs, these are counted, and the other
    jobs that wait are due."""
    queues = {queue for queue, _ in heads.due}
    if not queues:
        return {}
    parked = _parked(connection)
    unknown = set(queues) if parked is None else set()
    later = Counter[str]()
    pairs = [pair for pair in heads.later if pair[0] in queues - unknown]
    after = [
        _Query({"queue": queue, "rank": rank, "due_at": {"$gt": now}}, MOST_LATER) for queue, rank in pairs
    ]
    for (queue, _), number in zip(pairs, _counted(connection, after, DUE.name), strict=True):
        later[queue] += number
        if number == MOST_LATER:
            unknown.add(queue)
    known = {
        queue: max(1, waiting.get(queue, 0) - later[queue] - parked[queue])
        for queue in queues - unknown
        if parked is not None
    }
    pairs = [pair for pair in heads.due if pair[0] in unknown]
    until = [
        _Query({"queue": queue, "rank": rank, "due_at": {"$gt": EVER, "$lte": now}}, MOST_DUE)
        for queue, rank in pairs
    ]
    counted = Counter[str](known)
    for (queue, _), number in zip(pairs, _counted(connection, until, DUE.name), strict=True):
        counted[queue] += number
    return counted


def _parked(connection: Connection) -> Counter[str] | None:
    """The numbers of parked jobs by queue. None: there are many."""
    wanted = {"parked.key": {"$gte": ""}}
    found = connection.run(
        "jobs", lambda jobs: list(jobs.find(wanted, {"queue": 1}, hint=PARKED.name).limit(MOST_PARKED))
    )
    return Counter(doc["queue"] for doc in found) if len(found) < MOST_PARKED else None


def _counted(connection: Connection, queries: Sequence[_Query], index: str) -> list[int]:
    """The number of jobs of each query."""
    parts: list[list[Doc]] = [
        [{"$match": query.condition}, {"$limit": query.limit}, {"$count": "n"}, {"$set": {"of": number}}]
        for number, query in enumerate(queries)
    ]
    numbers = [0] * len(queries)
    for doc in _answers(connection, parts, index):
        numbers[doc["of"]] = doc["n"]
    return numbers


def _answers(connection: Connection, parts: Sequence[list[Doc]], index: str) -> list[Doc]:
    """The documents that these pipelines return, in a command for each 200 of them."""
    answers: list[Doc] = []
    for start in range(0, len(parts), _TOGETHER):
        first, *others = parts[start : start + _TOGETHER]
        name = connection.name("jobs")
        pipeline = [*first, *({"$unionWith": {"coll": name, "pipeline": part}} for part in others)]
        answers += connection.run("jobs", _reader(pipeline, index))
    return answers


def _reader(pipeline: list[Doc], index: str) -> Callable[[Jobs], list[Doc]]:
    return lambda jobs: list(jobs.aggregate(pipeline, hint=index))
