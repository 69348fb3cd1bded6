"""Metrics, rolled up by the minute: a document for each name and minute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

from pymongo import UpdateOne

from mrq_broker_mongo.server.connection import Connection
from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import METRICS_KEPT, Metric

MINUTE_MS = 60_000


def record(connection: Connection, metrics: Sequence[Metric]) -> None:
    """See `Broker.record_metrics`."""
    changes = [
        UpdateOne(
            {"_id": f"{to_ms(metric.at) // MINUTE_MS:010d} {metric.name}"},
            {"$inc": {"value": float(metric.value)}, "$setOnInsert": {"name": metric.name}},
            upsert=True,
        )
        for metric in metrics
    ]
    if changes:
        connection.run_soft("metrics", lambda all_metrics: all_metrics.bulk_write(changes, ordered=False))


def read(connection: Connection, names: Sequence[str], since: float, until: float) -> list[Metric]:
    """See `Broker.read_metrics`. A minute lies between the two times if its beginning does."""
    first, end = (max(0, math.ceil(time * 1000 / MINUTE_MS)) for time in (since, until))
    wanted = {"_id": {"$gte": f"{first:010d}", "$lt": f"{end:010d}"}, "name": {"$in": list(names)}}
    found = connection.run("metrics", lambda metrics: list(metrics.find(wanted).sort("_id")))
    return [
        Metric(name=doc["name"], at=from_ms(int(doc["_id"][:10]) * MINUTE_MS), value=float(doc["value"]))
        for doc in found
    ]


def prune(connection: Connection, now: datetime) -> None:
    """Deletes metrics older than METRICS_KEPT."""
    oldest = math.floor((to_ms(now) - METRICS_KEPT * 1000) / MINUTE_MS)
    old = {"_id": {"$lt": f"{oldest:010d}"}}
    connection.run_soft("metrics", lambda metrics: metrics.delete_many(old))
