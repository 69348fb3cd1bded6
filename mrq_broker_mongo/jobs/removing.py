"""Deleting jobs with their logs and keys.

A job is marked first: it has expired, has no due time, and is invisible to every reader. Then its logs and
keys are deleted, then the job, and then the totals change. A crash in between leaves a marked job,
which a later `prune` deletes, or totals that a recount repairs.

    removal      of such a job: {by, at, is_asked}: the call that deletes it, its time, and whether an
    operator removed the job
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne

from mrq_broker_mongo.jobs import uniques
from mrq_broker_mongo.jobs.records import cell_of, check_whole, guard_of
from mrq_broker_mongo.jobs.totals import Deltas
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_broker_mongo.shared import logs

_UNFINISHED = timedelta(seconds=60)
"""A removal that is older was left by a crash."""
_PAST = timedelta(hours=1)
"""So much more than clocks differ."""
FIELDS = (
    "v",
    "queued_at",
    "queue",
    "path",
    "exception_type",
    "error_group",
    "status",
    "ended_at",
    "unique_key",
    "unique_until",
    "raw_queue",
    "removal",
    "expires_at",
)
"""The fields of a job that its deletion needs."""


def remove(connection: Connection, documents: Sequence[Doc], now: datetime) -> set[ObjectId]:
    """Deletes jobs as they were read, because an operator asked; returns the ids of the jobs that had
    not changed meanwhile. Their unique keys are released, including periods."""
    due = connection.arrangement.name("due_at")
    gone = {"$set": {"expires_at": now - _PAST}, "$unset": {due: "", "parked": ""}}
    return _delete(connection, documents, [guard_of(doc) for doc in documents], gone, now, is_asked=True)


def prune(connection: Connection, now: datetime, limit: int) -> int:
    """Deletes up to `limit` expired jobs, and returns their number. A key that is held for a period outlives
    its job. Jobs that another process is deleting are left to it. Raises JobDamaged."""
    expired = {"expires_at": {"$lte": now}, "removal.at": {"$not": {"$gt": now - _UNFINISHED}}}
    fields = dict.fromkeys(FIELDS, 1)
    found = connection.run(
        "jobs", lambda jobs: list(jobs.find(expired, fields).sort("expires_at").limit(limit))
    )
    for doc in found:
        check_whole(doc)
    guards = [{**guard_of(doc), **expired} for doc in found]
    return len(_delete(connection, found, guards, {}, now, is_asked=False))


def make_room(connection: Connection, documents: Sequence[Doc], now: datetime) -> None:
    """Deletes jobs that have expired, so that new ones can have their ids: also those that another process is
    deleting, which then leaves them alone."""
    guards = [{"_id": doc["_id"], "expires_at": {"$lte": now}} for doc in documents]
    _delete(connection, documents, guards, {}, now, is_asked=False)


def _delete(
    connection: Connection,
    documents: Sequence[Doc],
    guards: Sequence[Doc],
    change: Doc,
    now: datetime,
    *,
    is_asked: bool,
) -> set[ObjectId]:
    """Marks the jobs that the guards still find, and deletes those; answers with their ids."""
    if not documents:
        return set()
    number = secrets.randbits(62)
    marked_ids = _marked(connection, guards, change, number, now, is_asked)
    mine = [doc for doc in documents if doc["_id"] in marked_ids]
    ids = [doc["_id"] for doc in mine]
    logs.delete(connection, ids)
    if connection.arrangement.has_queue:
        _delete_from_queue(connection, mine, is_asked)
    if ids:
        marked = {"_id": {"$in": ids}, "removal.by": number}
        connection.run("jobs", lambda jobs: jobs.delete_many(marked))
    deltas = Deltas()
    for doc in mine:
        deltas.add(doc["queue"], doc["path"], cell_of(doc), None)
        if "exception_type" in doc:
            deltas.add_error(doc["exception_type"], doc.get("error_group"), cell_of(doc), -1)
    deltas.write(connection)
    return set(ids)


def _delete_from_queue(connection: Connection, documents: Sequence[Doc], is_asked: bool) -> None:
    raw = [str(doc["_id"]) for doc in documents if doc.get("raw_queue") is not None]
    if raw:  # a crash may have left the lease of the parameter, which would make the job once more
        left = {"job": {"$in": raw}, "is_admitted": True}
        connection.run("raw", lambda all_raw: all_raw.delete_many(left))
    keys = [(doc["unique_key"], doc["_id"]) for doc in documents if _lets_key_go(doc, is_asked)]
    uniques.release(connection, keys)


def _marked(
    connection: Connection, guards: Sequence[Doc], change: Doc, number: int, now: datetime, is_asked: bool
) -> set[ObjectId]:
    """Marks the jobs; answers with the ids of those that bear this call's number."""
    removal = {"by": number, "at": now, "is_asked": is_asked}
    update: dict[str, Any] = {
        **change,
        "$set": {**change.get("$set", {}), "removal": removal},
        "$inc": {"v": 1},
    }
    marks = [UpdateOne(guard, update) for guard in guards]
    result = connection.run("jobs", lambda jobs: jobs.bulk_write(marks, ordered=False))
    ids = [guard["_id"] for guard in guards]
    if result.matched_count == len(guards):
        return set(ids)
    mine = {"_id": {"$in": ids}, "removal.by": number}
    found = connection.run("jobs", lambda jobs: list(jobs.find(mine, {"_id": 1})))
    return {doc["_id"] for doc in found}


def _lets_key_go(doc: Doc, is_asked: bool) -> bool:
    if doc.get("unique_key") is None or doc.get("unique_until") == "record":
        return False
    asked = is_asked or doc.get("removal", {}).get("is_asked", False)
    return asked or doc.get("unique_until") != "period"
