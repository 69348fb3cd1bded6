"""Rules, and requests to a worker: the answers that each process polls once a second.

Two documents of the collection `meta`: ``rules`` {version}, which `state` raises after each write of a rule,
and ``signals <worker>`` {version, jobs: [{version, job}]}, which one update changes, so that no reader sees a
version before its contents.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bson import ObjectId
from msgspec.structs import replace

from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_broker_mongo.shared.state import MongoState, counted_on
from mrq_core.clock import now_ms
from mrq_core.contract import rules
from mrq_core.contract.shared_state import PollResult, Versions

_KEPT = 1000
"""How many signals to one worker are kept."""
_RULES_KEPT_MS = 60_000
"""How long a process does without reading the rules again, if it sees no change."""


def send(connection: Connection, worker: str, job: ObjectId) -> None:
    """Asks a worker to interrupt a job. Versions go on growing when the document was deleted meanwhile."""
    now = now_ms()
    version = {"$max": [counted_on("version", 1, now), now]}
    before = {"$cond": [{"$isArray": "$jobs"}, "$jobs", []]}
    listed = {"$concatArrays": [before, [{"version": "$version", "job": job}]]}
    steps: list[Doc] = [
        {"$set": {"version": version, "at": connection.now()}},
        {"$set": {"jobs": {"$slice": [listed, -_KEPT]}}},
    ]
    connection.run("meta", lambda meta: meta.update_one({"_id": f"signals {worker}"}, steps, upsert=True))


def poll(connection: Connection, worker: str, versions: Versions) -> PollResult:
    """See `Broker.poll`. Two look-ups without changes.

    The rules are returned again each `_RULES_KEPT_MS`: a process that dies between a rule and the version
    delays the rule that long.
    """
    mine = f"signals {worker}"
    connection.knocks = True
    found = {
        doc["_id"]: doc
        for doc in connection.run("meta", lambda meta: list(meta.find({"_id": {"$in": ["rules", mine]}})))
    }
    version, signals = _version_of(found.get("rules", {})), found.get(mine, {})
    new = _jobs_after(versions.signals, signals.get("jobs"))
    after = replace(versions, signals=max(versions.signals, _version_of(signals)))
    state, now_ms, changed = MongoState(connection), connection.now_ms(), None
    if rules.is_changed(versions, version, now_ms):
        changed = rules.read(state.list)
        after = rules.versions_after(version, after.signals, changed, now_ms + _RULES_KEPT_MS)
    request = state.get(rules.REQUESTS, worker)
    return PollResult(
        versions=after,
        rules=changed,
        interrupts=_still_running(connection, worker, new),
        requests=() if request is None else rules.requests_in(request.value, now_ms),
    )


def _version_of(doc: Doc) -> int:
    """The version in a document. 0: there is none, or it was changed by hand."""
    version = doc.get("version")
    return version if type(version) is int else 0


def _jobs_after(version: int, signals: Any) -> list[ObjectId]:
    """The jobs of later signals, without those that were changed by hand."""
    listed = signals if isinstance(signals, list) else []
    whole = [one for one in listed if isinstance(one, dict) and isinstance(one.get("job"), ObjectId)]
    return [one["job"] for one in whole if _version_of(one) > version]


def _still_running(connection: Connection, worker: str, jobs: Sequence[ObjectId]) -> tuple[str, ...]:
    if not jobs:
        return ()
    wanted = {"_id": {"$in": list(jobs)}, "status": "started", "worker": worker, "cancel_requested": True}
    there = {
        doc["_id"] for doc in connection.run("jobs", lambda all_jobs: list(all_jobs.find(wanted, {"_id": 1})))
    }
    return tuple(str(job) for job in dict.fromkeys(jobs) if job in there)
