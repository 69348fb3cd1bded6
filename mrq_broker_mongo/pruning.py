"""Deleting what has expired, and finishing what crashes have left."""

from __future__ import annotations

from datetime import timedelta

from mrq_broker_mongo import effects, limiting, logs, removing, totals, uniques
from mrq_broker_mongo.connection import Connection

_SIGNALS_KEPT = timedelta(days=1)


def prune(connection: Connection, limit: int) -> int:
    """See `Broker.prune`. Mends the numbers, too, if it is time."""
    now = connection.now()
    gone = removing.prune(connection, now, limit) if limit > 0 else 0
    uniques.prune(connection, now)
    connection.run("state", lambda state: state.delete_many({"expires_at": {"$lte": now}}))
    old = {"_id": {"$regex": "^signals "}, "at": {"$lte": now - _SIGNALS_KEPT}}
    connection.run("meta", lambda meta: meta.delete_many(old))
    logs.prune_metrics(connection, now)
    effects.finish_left(connection, now, limit)
    if totals.recount_if_due(connection):
        limiting.prune(connection, now)
    return gone
