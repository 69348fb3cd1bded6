"""Deleting expired data, and completing the work of crashed processes."""

from __future__ import annotations

from datetime import datetime, timedelta

from mrq_broker_mongo.jobs import effects, limits, recounting, removing, uniques
from mrq_broker_mongo.server import layout
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.shared import metrics

_SIGNALS_KEPT = timedelta(days=1)


def prune(connection: Connection, limit: int) -> int:
    """See `Broker.prune`. Repairs totals and forgets names of queues once a minute."""
    now = connection.now()
    gone = removing.prune(connection, now, limit) if limit > 0 else 0
    uniques.prune(connection, now)
    _tidy(connection, now, limit)
    effects.finish_left(connection, now, limit)
    if recounting.recount_if_due(connection):
        limits.prune(connection, now)
    return gone


def prune_records(connection: Connection, limit: int) -> int:
    """See `JobStore.prune`."""
    layout.ensure(connection)
    now = connection.now()
    gone = removing.prune(connection, now, limit) if limit > 0 else 0
    _tidy(connection, now, limit)
    recounting.recount_if_due(connection)
    return gone


def _tidy(connection: Connection, now: datetime, limit: int) -> None:
    """Deletes shared state that has expired, signals that no worker fetched, and old metrics."""
    connection.run("state", lambda state: state.delete_many({"expires_at": {"$lte": now}}))
    old = {"_id": {"$regex": "^signals "}, "at": {"$lte": now - _SIGNALS_KEPT}}
    connection.run("meta", lambda meta: meta.delete_many(old))
    metrics.prune(connection, now, limit)
