"""The logs of jobs.

The `_id` of a line is the job's id, the attempt and the number, as bytes, so that the lines of a job are
adjacent and in order. The `_id` of the head of a log is the job's id alone: {size, full}.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from bson import ObjectId
from pymongo import DeleteMany, UpdateOne
from pymongo.errors import BulkWriteError

from mrq_broker_mongo.jobs.records import has_expired, object_ids
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.naming import log_position
from mrq_core.contract.queries import LogLine, LogPage
from mrq_core.errors import JobNotFound

_POSITION = struct.Struct(">12sQQ")
_MOST = 2**64 - 1
_BATCH = 200


def append(connection: Connection, lines: Sequence[LogLine], max_size: int) -> None:
    """See `Broker.append_logs`."""
    ids = object_ids(dict.fromkeys(line.job_id for line in lines))
    if not ids:
        return
    now = connection.now()
    found = connection.run("jobs", lambda jobs: list(jobs.find({"_id": {"$in": ids}}, {"expires_at": 1})))
    there = {str(doc["_id"]) for doc in found if not has_expired(doc, now)}
    wanted = {_position(line): line for line in reversed(lines) if line.job_id in there}
    places = list(wanted)[::-1]
    if not places:
        return
    heads_of = [ObjectId(job_id).binary for job_id in there]
    known = connection.run(
        "logs", lambda logs: {doc["_id"] for doc in logs.find({"_id": {"$in": places}}, {"_id": 1})}
    )
    heads = connection.run(
        "logs", lambda logs: {doc["_id"]: doc for doc in logs.find({"_id": {"$in": heads_of}})}
    )
    note = f"the log of this job is full ({max_size:,} bytes): this line and later ones were dropped"
    added: list[Doc] = []
    for place in places:
        if place in known:
            continue
        line = wanted[place]
        head = heads.setdefault(place[:12], {"_id": place[:12], "size": 0, "full": False})
        if head["full"]:
            continue
        head["size"] += len(line.message.encode())
        level, message = line.level, line.message
        if head["size"] > max_size:
            head["full"], level, message = True, "WARNING", note
        head["is_changed"] = True
        added.append({"_id": place, "at": line.at, "level": level, "message": message})
    _write(connection, added, [head for head in heads.values() if head.pop("is_changed", False)])


def _write(connection: Connection, added: Sequence[Doc], heads: Sequence[Doc]) -> None:
    if not added:
        return
    changes = [
        UpdateOne({"_id": head["_id"]}, {"$max": {"size": head["size"], "full": head["full"]}}, upsert=True)
        for head in heads
    ]
    connection.run_soft("logs", lambda logs: logs.bulk_write(changes, ordered=False))
    try:
        connection.run_soft("logs", lambda logs: logs.insert_many(added, ordered=False))
    except BulkWriteError:
        return  # lines that are there already


def read(connection: Connection, job_id: str, cursor: str | None, limit: int) -> LogPage:
    """See `Broker.read_logs`."""
    attempt, seq = log_position(cursor)
    now = connection.now()
    ids = object_ids([job_id])
    job = connection.run(
        "jobs", lambda jobs: jobs.find_one({"_id": ids[0]}, {"expires_at": 1}) if ids else None
    )
    if job is None or has_expired(job, now):
        raise JobNotFound(job_id)
    own = ids[0].binary
    first = _POSITION.pack(own, max(attempt, 0), seq + 1 if attempt >= 0 else 0)
    inside = {"_id": {"$gte": first, "$lte": _POSITION.pack(own, _MOST, _MOST)}}
    found = connection.run(
        "logs", lambda logs: list(logs.find(inside).sort("_id").limit(limit)) if limit > 0 else []
    )
    lines = []
    for doc in found:
        _, attempt, seq = _POSITION.unpack(doc["_id"])
        lines.append(
            LogLine(
                job_id=job_id,
                attempt=attempt,
                seq=seq,
                at=doc["at"],
                level=doc["level"],
                message=doc["message"],
            )
        )
    return LogPage(lines=tuple(lines), cursor=f"{attempt}.{seq}")


def delete(connection: Connection, jobs: Sequence[ObjectId]) -> None:
    """Deletes the logs of jobs."""
    for start in range(0, len(jobs), _BATCH):
        part = [job.binary for job in jobs[start : start + _BATCH]]
        heads = connection.run("logs", _finder(part))
        ranges = [
            DeleteMany(
                {"_id": {"$gte": _POSITION.pack(own, 0, 0), "$lte": _POSITION.pack(own, _MOST, _MOST)}}
            )
            for own in heads
        ]
        if ranges:
            changes = [*ranges, DeleteMany({"_id": {"$in": heads}})]
            connection.run("logs", _deleter(changes))


def _finder(heads: list[bytes]) -> Any:
    return lambda logs: [doc["_id"] for doc in logs.find({"_id": {"$in": heads}}, {"_id": 1})]


def _deleter(changes: list[DeleteMany]) -> Any:
    return lambda logs: logs.bulk_write(changes, ordered=True)


def _position(line: LogLine) -> bytes:
    return _POSITION.pack(ObjectId(line.job_id).binary, line.attempt, line.seq)
