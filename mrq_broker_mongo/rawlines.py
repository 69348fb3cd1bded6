"""Raw queues as documents of one collection, each a parameter that waits, is claimed, or was settled.

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
from typing import Any

from mrq_broker_mongo.connection import Connection
from mrq_broker_mongo.lines import queue_conditions
from mrq_core.clock import from_ms
from mrq_core.contract.messages import Wanted
from mrq_core.contract.naming import RawKind, raw_kind

_DIGEST_SIZE = 20


def digest(queue: str, param: str, number: int | None = None) -> bytes:
    """What is unique of a parameter."""
    data = hashlib.sha256(f"{queue}\0{param}".encode()).digest()[:_DIGEST_SIZE]
    return data if number is None else data + number.to_bytes(8, "big")


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
