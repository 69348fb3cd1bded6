"""Unique keys: a collection whose ids are the keys.

Keys until `record` are not in this collection. The unique index `record_keys` over the jobs has them, so that
a key begins and ends with the document of its job; see `enqueueing`.

A key is reserved before its job is stored, and released after the job has changed. After a crash in between,
the next request for the key checks whether the job still needs it, and takes over a key that the job does
not need.

    job        the job that holds the key
    at         when it was reserved
    until      when the reservation ends, of a key that is held for a period
    is_unsure  of such a key, until its job is known to be stored: if it never is, the key is free after a
    minute
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import DeleteOne, UpdateOne
from pymongo.errors import BulkWriteError, DuplicateKeyError

from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import after

_DOUBTFUL = timedelta(seconds=60)
"""A reservation that is younger may be of a call that is under way."""
_ATTEMPTS = 20


class WantedKey(NamedTuple):
    """A key that a job wants. `period`: for how many seconds, None: until it is let go."""

    key: str
    job: ObjectId
    period: float | None = None


def reserve(connection: Connection, wanted: Sequence[WantedKey], now: datetime) -> list[ObjectId]:
    """Gives each key to its job if it is free; answers with the holders."""
    if not wanted:
        return []
    holders: dict[str, ObjectId] = {}
    firsts = list({one.key: one for one in reversed(wanted)}.values())
    documents = [_document(one, now) for one in firsts]
    contended: set[int] = set()
    try:
        connection.run("keys", lambda keys: keys.insert_many(documents, ordered=False))
    except BulkWriteError as error:
        contended = {problem["index"] for problem in (error.details or {})["writeErrors"]}
    for index, one in enumerate(firsts):
        holders[one.key] = _contend(connection, one, now) if index in contended else one.job
    return [holders[one.key] for one in wanted]


def _document(one: WantedKey, now: datetime) -> Doc:
    doc: Doc = {"_id": one.key, "job": one.job, "at": now}
    if one.period is not None:
        doc["until"] = after(now, one.period)
        doc["is_unsure"] = True
    return doc


def confirm(connection: Connection, stored: Sequence[WantedKey]) -> None:
    """The jobs of these keys are stored: a period goes on whatever becomes of its job."""
    sure = [
        UpdateOne({"_id": one.key, "job": one.job}, {"$unset": {"is_unsure": ""}})
        for one in stored
        if one.period is not None
    ]
    if sure:
        connection.run("keys", lambda keys: keys.bulk_write(sure, ordered=False))


def _contend(connection: Connection, one: WantedKey, now: datetime) -> ObjectId:
    """The holder of a reserved key: the job itself where it could take the key over."""
    for _ in range(_ATTEMPTS):
        found = connection.run("keys", lambda keys: keys.find_one({"_id": one.key}))
        mine = _document(one, now)
        if found is None:
            try:
                connection.run("keys", lambda keys, mine=mine: keys.insert_one(mine))  # type: ignore[misc]
            except DuplicateKeyError:
                continue
            return one.job
        holder: ObjectId = found["job"]
        if holder == one.job:
            return holder
        if not _is_stale(connection, found, now):
            return holder
        if connection.run("keys", _replacer(found, mine)).matched_count:
            return one.job
    return holder


def _replacer(found: Doc, mine: Doc) -> Any:
    return lambda keys: keys.replace_one(found, mine)


def _is_stale(connection: Connection, found: Doc, now: datetime) -> bool:
    """Whether the holder does not need the key any more."""
    until: datetime | None = found.get("until")
    if until is not None and (until <= now or "is_unsure" not in found):
        return until <= now
    if found["at"] + _DOUBTFUL > now:
        return False
    job = connection.run("jobs", lambda jobs: jobs.find_one({"_id": found["job"]}))
    return (
        job is None
        or job.get("unique_key") != found["_id"]
        or job.get("unique_until") == "record"
        or is_done_with(job)
    )


def is_done_with(job: Mapping[str, object]) -> bool:
    """Whether the job no longer needs its key. A period ends by itself, and a key until `record` with the
    document."""
    if job.get("unique_until") in ("period", "record"):
        return False
    if job.get("ended_at") is not None:
        return True
    return job.get("unique_until") == "queued" and (
        job["status"] != "queued" or job.get("started_at") is not None
    )


def hold_again(connection: Connection, job: Doc, now: datetime) -> bool:
    """Reserves the key of a job for a requeue. False: another job holds the key.

    A period is not begun again. A key until `record` is still held.
    """
    key = job.get("unique_key")
    if key is None or job.get("unique_until") in (None, "record"):
        return True
    if job["unique_until"] != "period":
        mine = {"_id": key, "job": job["_id"]}
        for _ in range(_ATTEMPTS):
            # From now on no other process doubts the reservation before the job is written.
            fresh = connection.run("keys", lambda keys: keys.update_one(mine, {"$set": {"at": now}}))
            if fresh.matched_count:
                return True
            if reserve(connection, [WantedKey(key, job["_id"])], now) != [job["_id"]]:
                break
        return False
    found = connection.run("keys", lambda keys: keys.find_one({"_id": key}))
    return found is None or found["job"] == job["_id"] or _is_stale(connection, found, now)


def release(connection: Connection, held: Iterable[tuple[str, ObjectId]]) -> None:
    """Lets keys go that these jobs hold."""
    gone = [DeleteOne({"_id": key, "job": job}) for key, job in held]
    if gone:
        connection.run("keys", lambda keys: keys.bulk_write(gone, ordered=False))


def prune(connection: Connection, now: datetime) -> None:
    """Deletes keys whose period has ended."""
    connection.run("keys", lambda keys: keys.delete_many({"until": {"$lte": now}}))
