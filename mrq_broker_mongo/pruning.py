"""Deleting what has expired, and finishing what crashes have left."""

from __future__ import annotations

from datetime import timedelta

from mrq_broker_mongo import effects, limiting, removing, totals, uniques
from mrq_broker_mongo.connection import Connection

_SIGNALS_KEPT = timedelta(days=1)


def prune(connection: Connection, limit: int) -> int:
    """See `Broker.prune`. Mends the numbers, too, if it is time."""
    now = connection.now()
    expired = {"expires_at": {"$lte": now}}
    fields = {"params": 0, "result": 0, "history": 0, "meta": 0}
    found = connection.run(
        "jobs",
        lambda jobs: list(jobs.find(expired, fields).sort("expires_at").limit(limit)) if limit > 0 else [],
    )
    gone = removing.delete_expired(connection, found, now) if found else set()
    uniques.prune(connection, now)
    limiting.prune(connection, now)
    connection.run("state", lambda state: state.delete_many({"expires_at": {"$lte": now}}))
    old = {"_id": {"$regex": "^signals "}, "at": {"$lte": now - _SIGNALS_KEPT}}
    connection.run("meta", lambda meta: meta.delete_many(old))
    effects.finish_left(connection, now, limit)
    totals.recount_if_due(connection)
    return len(gone)
