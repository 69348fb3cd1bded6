"""Renewing: extends leases and writes progress, guarded by the token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from bson import ObjectId
from pymongo import UpdateOne

from mrq_broker_mongo.jobs import limits
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import after
from mrq_core.contract.messages import ClaimRef, Note
from mrq_core.ids import is_id

_Item = TypeVar("_Item", ClaimRef, Note)


def renew(connection: Connection, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
    """See `Broker.renew`."""
    until = after(connection.now(), lease)
    # Slots first: a job may have its slot for longer than its lease, and never the other way round.
    limits.prolong(connection, [ref for ref in claims if is_id(ref.id)], until)
    change: Doc = {"$set": {"lease_until": until}, "$inc": {"v": 1}}
    return change_running(connection, claims, lambda ref: change)


def annotate(connection: Connection, notes: Sequence[Note]) -> list[bool]:
    """See `Broker.annotate`."""
    now = connection.now()
    return change_running(
        connection,
        notes,
        lambda note: {"$set": {"progress": note.progress, "updated_at": now}, "$inc": {"v": 1}},
    )


def change_running(
    connection: Connection, items: Sequence[_Item], change: Callable[[_Item], Doc]
) -> list[bool]:
    """Changes running attempts, each guarded by its token."""
    valid = [(index, item) for index, item in enumerate(items) if is_id(item.id)]
    updates = [
        UpdateOne({"_id": ObjectId(item.id), "status": "started", "token": item.token}, change(item))
        for _, item in valid
    ]
    answers = [False] * len(items)
    if not updates:
        return answers
    done = connection.run("jobs", lambda jobs: jobs.bulk_write(updates, ordered=True)).matched_count
    held: set[tuple[str, str]] | None = None
    if done < len(updates):
        query = {"_id": {"$in": [ObjectId(item.id) for _, item in valid]}, "status": "started"}
        found = connection.run("jobs", lambda jobs: list(jobs.find(query, {"token": 1})))
        held = {(str(doc["_id"]), doc["token"]) for doc in found}
    for index, item in valid:
        answers[index] = held is None or (item.id, item.token) in held
    return answers
