"""The consequences of written changes: totals, keys, slots, signals, follow-ups, hints.

Each is written after its job. After a crash in between, a recount repairs totals, the next request for a key
releases it, the end of the lease frees slots, the next claims release parked jobs, and `prune` enqueues
follow-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from bson import ObjectId

from mrq_broker_mongo.jobs import enqueueing, limits, parking, uniques
from mrq_broker_mongo.jobs.records import Stored, object_ids
from mrq_broker_mongo.jobs.totals import Deltas
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_broker_mongo.shared import signals
from mrq_core.contract.messages import NewJob
from mrq_core.contract.pair import Replacement
from mrq_core.contract.record import JobRecord, Status

_UNFINISHED = timedelta(seconds=30)
"""Follow-ups that are older were left by a crash."""


def follow(connection: Connection, done: Sequence[Replacement[Stored]], now: datetime) -> None:
    """Everything that follows from these changes, which were written at that time."""
    deltas = Deltas()
    keys: list[tuple[str, ObjectId]] = []
    slots: dict[str, list[limits.Claim]] = {}
    woken: list[str] = []
    parents: list[tuple[ObjectId, Sequence[NewJob]]] = []
    for one in done:
        doc, before, after = one.before.doc, one.before.record, one.after
        if after is None:
            continue
        deltas.add_change(one.before, after)
        if after.unique_key is not None and uniques.is_done_with(_as_it_is_now(doc, after)):
            keys.append((after.unique_key, doc["_id"]))
        if before.status is Status.STARTED and after.status is not Status.STARTED:
            for key in set(before.limit_keys):
                slots.setdefault(key, []).append(limits.Claim(doc["_id"], before.token))
        if after.due_at is not None and after.status is not Status.STARTED:
            woken.append(after.queue)
        if one.ask_to_stop and after.worker is not None:
            signals.send(connection, after.worker, doc["_id"])
        if one.followups:
            parents.append((doc["_id"], one.followups))
    deltas.write(connection)
    uniques.release(connection, keys)
    for key, number in limits.give_back(connection, slots, now).items():
        parking.let_go(connection, key, number)
    connection.wake(woken)
    for parent, jobs in parents:
        documents = [enqueueing.document_of(connection, job, now) for job in jobs]
        finish(connection, parent, documents, now)


def _as_it_is_now(doc: Doc, after: JobRecord) -> Doc:
    return {
        "unique_until": doc.get("unique_until"),
        "status": after.status.value,
        "started_at": after.started_at,
        "ended_at": after.ended_at,
    }


def finish(connection: Connection, parent: ObjectId, documents: Sequence[Doc], now: datetime) -> None:
    """Enqueues follow-ups, and then removes them from their parent. Their ids make a repetition harmless."""
    enqueueing.enqueue_documents(connection, {str(doc["_id"]): doc for doc in documents}, now)
    mark = {"followups._id": {"$in": [doc["_id"] for doc in documents]}, "_id": parent}
    connection.run("jobs", lambda jobs: jobs.update_one(mark, {"$unset": {"followups": ""}}))


def parent_of(connection: Connection, followup: str) -> str | None:
    """See `Broker.parent_of`. Reads the jobs that hold follow-ups, which are few."""
    wanted = {"followups": {"$exists": True}, "followups._id": {"$in": object_ids([followup])}}
    found = connection.run("jobs", lambda jobs: jobs.find_one(wanted, {"_id": 1}, hint="followups"))
    return None if found is None else str(found["_id"])


def finish_left(connection: Connection, now: datetime, limit: int) -> None:
    """Enqueues the follow-ups that a crash has left."""
    left = {"followups": {"$exists": True}, "updated_at": {"$lte": now - _UNFINISHED}}
    found = connection.run("jobs", lambda jobs: list(jobs.find(left, {"followups": 1}).limit(limit)))
    for doc in found:
        finish(connection, doc["_id"], doc["followups"], now)
