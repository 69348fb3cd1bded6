"""Pauses of queues, and requests to interrupt running jobs, which each process polls once a second.

Two documents of the collection `meta`: ``pauses`` {version, names}, and ``signals <worker>`` {version, jobs:
[{version, job}]}. Each change is one update of its document, so that no reader sees a version before its
contents.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from bson import ObjectId

from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.messages import PollResult, Versions

_KEPT = 1000
"""How many signals to one worker are kept."""


def send(connection: Connection, worker: str, job: ObjectId) -> None:
    """Asks a worker to interrupt a job. Versions go on growing when the document was deleted meanwhile."""
    version = {"$max": [{"$add": ["$version", 1]}, time.time_ns() // 1_000_000]}
    listed = {"$concatArrays": [{"$ifNull": ["$jobs", []]}, [{"version": "$version", "job": job}]]}
    steps: list[Doc] = [
        {"$set": {"version": version, "at": connection.now()}},
        {"$set": {"jobs": {"$slice": [listed, -_KEPT]}}},
    ]
    connection.run("meta", lambda meta: meta.update_one({"_id": f"signals {worker}"}, steps, upsert=True))


def poll(connection: Connection, worker: str, versions: Versions) -> PollResult:
    """See `Broker.poll`. One look-up when there is nothing new."""
    mine = f"signals {worker}"
    found = {
        doc["_id"]: doc
        for doc in connection.run("meta", lambda meta: list(meta.find({"_id": {"$in": ["pauses", mine]}})))
    }
    pauses, signals = found.get("pauses", {}), found.get(mine, {})
    new = [one["job"] for one in signals.get("jobs", ()) if one["version"] > versions.signals]
    version = pauses.get("version", 0)
    return PollResult(
        versions=Versions(pauses=version, signals=max(versions.signals, signals.get("version", 0))),
        paused=None if version == versions.pauses else frozenset(pauses.get("names", ())),
        interrupts=_still_running(connection, worker, new),
    )


def _still_running(connection: Connection, worker: str, jobs: Sequence[ObjectId]) -> tuple[str, ...]:
    if not jobs:
        return ()
    wanted = {"_id": {"$in": list(jobs)}, "status": "started", "worker": worker, "cancel_requested": True}
    there = {
        doc["_id"] for doc in connection.run("jobs", lambda all_jobs: list(all_jobs.find(wanted, {"_id": 1})))
    }
    return tuple(str(job) for job in dict.fromkeys(jobs) if job in there)


def set_paused(connection: Connection, queues: Sequence[str], *, is_paused: bool) -> None:
    """Marks queues as paused, or takes the marks away, and counts the change."""
    if not queues:
        return
    change: Doc = {"$addToSet": {"names": {"$each": list(queues)}}}
    if not is_paused:
        change = {"$pull": {"names": {"$in": list(queues)}}}
    change["$inc"] = {"version": 1}
    connection.run("meta", lambda meta: meta.update_one({"_id": "pauses"}, change, upsert=True))


def paused(connection: Connection) -> frozenset[str]:
    """See `Broker.paused`."""
    found = connection.run("meta", lambda meta: meta.find_one({"_id": "pauses"}))
    return frozenset((found or {}).get("names", ()))
