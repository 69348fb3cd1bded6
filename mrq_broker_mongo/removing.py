"""Deleting jobs with their logs and keys."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bson import ObjectId
from pymongo import DeleteOne

from mrq_broker_mongo import logs, uniques
from mrq_broker_mongo.connection import Connection
from mrq_broker_mongo.documents import cell_of, guard_of
from mrq_broker_mongo.location import Doc
from mrq_broker_mongo.totals import Deltas


def delete(connection: Connection, doc: Doc) -> bool:
    """Deletes a job as it was read, because a person asked for it; False: it has changed."""
    if not connection.run(
        "jobs", lambda jobs: jobs.delete_one(guard_of(doc)), repeatable=False
    ).deleted_count:
        return False
    _forget(connection, [doc])
    if doc.get("unique_key") is not None:
        uniques.release(connection, [(doc["unique_key"], doc["_id"])])
    return True


def delete_expired(connection: Connection, documents: Sequence[Doc], now: datetime) -> set[ObjectId]:
    """Deletes jobs that have expired; answers with the ids of those that are gone. A key that is held for a
    period outlives its job."""
    ids = [doc["_id"] for doc in documents]
    deletions = [DeleteOne({**guard_of(doc), "expires_at": {"$lte": now}}) for doc in documents]
    gone = connection.run("jobs", lambda jobs: jobs.bulk_write(deletions, ordered=False)).deleted_count
    left: set[ObjectId] = set()
    if gone < len(documents):  # somebody else was quicker: the numbers are put right by the next recount
        found = connection.run("jobs", lambda jobs: list(jobs.find({"_id": {"$in": ids}}, {"_id": 1})))
        left = {doc["_id"] for doc in found}
    deleted = [doc for doc in documents if doc["_id"] not in left]
    _forget(connection, deleted)
    uniques.release(
        connection,
        [
            (doc["unique_key"], doc["_id"])
            for doc in deleted
            if doc.get("unique_key") is not None and doc.get("unique_until") != "period"
        ],
    )
    return {doc["_id"] for doc in deleted}


def _forget(connection: Connection, documents: Sequence[Doc]) -> None:
    deltas = Deltas()
    for doc in documents:
        deltas.add(doc["queue"], doc["path"], cell_of(doc), None)
    deltas.write(connection)
    logs.delete(connection, [doc["_id"] for doc in documents])
