"""The parameters of raw queues: documents of one collection, each waiting, claimed or settled.

queue, param    where it is, and what
h               while it waits: a digest of both, unique in sets; in lists followed by its number
score           while it waits: the order in which it is claimed; in lists and sets, a number that grows
job, token      while it is claimed: the id of the job to be, and the latest claim
until           when its lease ends, or, `is_back`, when it is due again
is_admitted     its job is being stored
visit           of a parameter that stays in its set: {number, job, token} of the latest claim
settled         tokens of claims that were settled, to tell repetitions
settled_at      of a parameter that is gone: it is kept for an hour, for repetitions
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from itertools import pairwise
from typing import Any

from pymongo import InsertOne, UpdateOne

from mrq_broker_mongo.jobs import totals
from mrq_broker_mongo.jobs.trees import queue_conditions
from mrq_broker_mongo.server import layout
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_broker_mongo.shared.state import next_number
from mrq_core.clock import from_ms
from mrq_core.contract.messages import RawItem, Wanted
from mrq_core.contract.naming import RawKind, raw_kind

_DIGEST_SIZE = 20


def digest(queue: str, param: str, number: int | None = None) -> bytes:
    """What is unique of a parameter."""
    data = hashlib.sha256(f"{queue}\0{param}".encode()).digest()[:_DIGEST_SIZE]
    return data if number is None else data + number.to_bytes(8, "big")


def push(connection: Connection, name: str, kind: RawKind, items: Sequence[RawItem]) -> list[bool]:
    """See `RawParameters.push`."""
    if not items:
        return []
    layout.ensure(connection)
    first = 0
    if not has_scores(kind):
        first = next_number(connection, "raw", len(items)) - len(items) + 1
    totals.know_queues(connection, [name])
    answers = (
        _push_list(connection, name, items, first)
        if kind is RawKind.LIST
        else _push_set(connection, name, kind, items, first)
    )
    connection.wake([name])
    return answers


def _push_list(connection: Connection, name: str, items: Sequence[RawItem], first: int) -> list[bool]:
    added = [
        InsertOne[Doc](
            {
                "queue": name,
                "param": item.param,
                "h": digest(name, item.param, number),
                "score": float(number),
            }
        )
        for number, item in enumerate(items, first)
    ]
    # Not repeatable: a list would get the items again.
    connection.run("raw", lambda raw: raw.bulk_write(added, ordered=True), repeatable=False)
    return [True] * len(items)


def _push_set(
    connection: Connection, name: str, kind: RawKind, items: Sequence[RawItem], first: int
) -> list[bool]:
    now = connection.now_ms() / 1000
    changes = []
    for number, item in enumerate(items, first):
        own: Doc = {"queue": name, "param": item.param}
        update: Doc = {"$setOnInsert": {**own, "score": float(number)}}
        if has_scores(kind):
            default = now if kind is RawKind.TIMED_SET else 0.0
            score = default if item.score is None else float(item.score)
            update = {"$setOnInsert": own, "$set": {"score": score}}
        changes.append(UpdateOne({"h": digest(name, item.param)}, update, upsert=True))
    result = connection.run("raw", lambda raw: raw.bulk_write(changes, ordered=True), repeatable=False)
    added = set(result.upserted_ids or ())
    return [index in added for index in range(len(items))]


def peek(connection: Connection, name: str, kind: RawKind, limit: int, offset: int) -> list[RawItem]:
    """See `RawParameters.peek`."""
    if limit <= 0:
        return []
    found = connection.run(
        "raw",
        lambda raw: list(
            raw.find(_waiting(name), {"param": 1, "score": 1})
            .sort([("score", 1), ("_id", 1)])
            .skip(offset)
            .limit(limit)
        ),
    )
    return [
        RawItem(param=doc["param"], score=float(doc["score"]) if has_scores(kind) else None) for doc in found
    ]


def remove(connection: Connection, name: str, kind: RawKind, params: Sequence[str]) -> list[bool]:
    """See `RawParameters.remove`."""
    answers = []
    for param in params:
        own = digest(name, param)
        query: Doc = {"h": own}
        if kind is RawKind.LIST:
            query = {"h": {"$gte": own + bytes(8), "$lte": own + b"\xff" * 8}}
        answers.append(connection.run("raw", _remover(query), repeatable=False) is not None)
    return answers


def size(connection: Connection, name: str) -> int:
    """See `RawParameters.size`."""
    return int(connection.run("raw", lambda raw: raw.count_documents(_waiting(name), hint="waiting")))


def histogram(
    connection: Connection, name: str, kind: RawKind, start: float, stop: float, buckets: int
) -> list[int]:
    """See `RawParameters.histogram`."""
    if not has_scores(kind) or start >= stop:
        return [0] * buckets
    edges = [start + (stop - start) * number / buckets for number in range(buckets)] + [stop]
    return [
        int(connection.run("raw", _counter({"queue": name, "score": {"$gte": low, "$lt": high}})))
        for low, high in pairwise(edges)
    ]


def has_scores(kind: RawKind) -> bool:
    """Whether the parameters of this kind have a score."""
    return kind in (RawKind.SORTED_SET, RawKind.TIMED_SET)


def _waiting(name: str) -> Doc:
    return {"queue": name, "score": {"$gte": float("-inf")}}


def _remover(query: Doc) -> Any:
    return lambda raw: raw.find_one_and_delete(query, sort=[("h", 1)])


def _counter(query: Doc) -> Any:
    return lambda raw: raw.count_documents(query, hint="waiting")


# --- due times --------------------------------------------------------------------------------------


def next_due(connection: Connection, wanted: Sequence[Wanted], now: datetime) -> datetime | None:
    """The earliest time at which one of the raw queues may have something; None: never."""
    times: list[datetime] = []
    for one in wanted:
        kind = raw_kind(one.name)
        if kind is None:
            continue
        for queue in queue_conditions(one):
            waiting = {"queue": queue, "score": {"$gt": float("-inf")}}
            for doc in connection.run("raw", _first(waiting, "score")):
                is_timed = kind is RawKind.TIMED_SET
                times.append(from_ms(min(round(doc["score"] * 1000), _FAR_MS)) if is_timed else now)
            for doc in connection.run("raw", _first({"queue": queue, "until": {"$exists": True}}, "until")):
                times.append(doc["until"])
    return min(times, default=None)


_FAR_MS = 10**14


def _first(query: dict[str, Any], field: str) -> Any:
    return lambda raw: list(raw.find(query, {field: 1}).sort(field).limit(1))
