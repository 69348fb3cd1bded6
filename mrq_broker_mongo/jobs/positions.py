"""Positions of waiting jobs in their queues, and the use of limit keys.

Jobs are counted in the indexes DUE and PARKED, up to a bound. The queries do not see one moment: a job that
is claimed meanwhile may be counted or left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mrq_broker_mongo.jobs.rates import from_us
from mrq_broker_mongo.jobs.records import RANKS, has_expired, object_ids
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.layout import DUE, PARKED, Index
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.messages import MOST_AHEAD, MOST_NAMED
from mrq_core.contract.queries import KeyUse, QueuePosition
from mrq_core.contract.record import Status

_PARKED_ORDER = [(name, direction) for name, direction in PARKED.keys if name != "parked.key"]


def position(connection: Connection, job_id: str) -> QueuePosition | None:
    """See `Broker.queue_position`."""
    now = connection.now()
    wanted = {"_id": {"$in": object_ids([job_id])}}
    doc = connection.run("jobs", lambda jobs: jobs.find_one(wanted))
    if doc is None or has_expired(doc, now) or doc.get("ended_at") is not None:
        return None
    if not Status(doc["status"]).is_waiting:
        return None
    parked = doc.get("parked")
    ahead = _due_before(connection, doc, now) if parked is None else _parked_before(connection, doc)
    allowed_at = doc.get("allowed_at")
    keys = dict.fromkeys([*doc.get("limit_keys", ()), *([] if parked is None else [parked["key"]])])
    return QueuePosition(
        ahead=min(ahead, MOST_AHEAD),
        is_exact=ahead <= MOST_AHEAD,
        due_at=doc.get("due_at"),
        parked_under=None if parked is None else parked["key"],
        parked_since=None if parked is None else parked["since"],
        allowed_at=allowed_at if allowed_at is not None and allowed_at > now else None,
        keys=tuple(_use_of(connection, key, now) for key in keys),
    )


def _due_before(connection: Connection, doc: Doc, now: datetime) -> int:
    """The number of jobs of the queue that are claimed before this job, when it is due."""
    due_at = doc.get("due_at", now)
    line = {"queue": doc["queue"], "rank": doc["rank"]}
    number = _before(connection, DUE, line, [("due_at", due_at), ("_id", doc["_id"])])
    latest = max(now, due_at)
    for rank in RANKS:
        if rank < doc["rank"] and number <= MOST_AHEAD:
            number += _count(connection, DUE, {**line, "rank": rank, "due_at": {"$lte": latest}})
    return number


def _parked_before(connection: Connection, doc: Doc) -> int:
    """The number of jobs that are let go before this job under its key."""
    parked = doc["parked"]
    order = [
        ("rank", doc["rank"]),
        ("parked.since", parked["since"]),
        ("parked.due", parked["due"]),
        ("_id", doc["_id"]),
    ]
    return _before(connection, PARKED, {"parked.key": parked["key"]}, order)


def _before(connection: Connection, index: Index, line: Doc, order: Sequence[tuple[str, object]]) -> int:
    """The number of jobs of the line before these values: one range of the index for each field."""
    number = 0
    for field, value in order:
        if number <= MOST_AHEAD:
            number += _count(connection, index, {**line, field: {"$lt": value}})
        line = {**line, field: value}
    return number


def _count(connection: Connection, index: Index, query: Doc) -> int:
    """A count up to the first number that is too large to be exact."""
    return connection.run(
        "jobs", lambda jobs: jobs.count_documents(query, limit=MOST_AHEAD + 1, hint=index.name)
    )


def _use_of(connection: Connection, key: str, now: datetime) -> KeyUse:
    found = connection.run("limits", lambda limits: limits.find_one({"_id": key}))
    holders = sorted(str(slot["job"]) for slot in (found or {}).get("held", ()) if slot["until"] > now)
    line = {"parked.key": key}
    waiters = connection.run(
        "jobs", lambda jobs: list(jobs.find(line, {"_id": 1}).sort(_PARKED_ORDER).limit(MOST_NAMED))
    )
    return KeyUse(
        key=key,
        running=len(holders),
        holders=tuple(holders[:MOST_NAMED]),
        parked=min(_count(connection, PARKED, line), MOST_AHEAD),
        waiters=tuple(str(doc["_id"]) for doc in waiters),
        even_at=from_us(found["even_at"]) if found is not None and "even_at" in found else None,
    )
