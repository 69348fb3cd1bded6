"""Metrics, rolled up by the minute: a hash for each minute."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

from mrq_broker_redis.server.connection import Connection
from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import Metric

BATCH = 500
MINUTE_MS = 60_000


def record(connection: Connection, metrics: Sequence[Metric]) -> None:
    """See `Broker.record_metrics`. One hash for each minute."""

    def work(client: Any) -> None:
        pipeline = client.pipeline(transaction=True)
        for metric in metrics:
            minute = to_ms(metric.at) // MINUTE_MS
            pipeline.hincrbyfloat(connection.key(f"m:{minute}"), metric.name, repr(float(metric.value)))
            pipeline.zadd(connection.key("minutes"), {str(minute): minute})
        pipeline.execute()

    if metrics:
        connection.use(work, repeatable=False)


def read(connection: Connection, names: Sequence[str], since: float, until: float) -> list[Metric]:
    """See `Broker.read_metrics`. A minute lies between the two times if its beginning does."""
    first, end = (math.ceil(time * 1000 / MINUTE_MS) for time in (since, until))
    ordered = sorted(set(names))
    found = connection.execute("ZRANGEBYSCORE", connection.key("minutes"), first, f"({end}")
    minutes = [int(minute) for minute in found] if ordered else []
    metrics: list[Metric] = []
    for start in range(0, len(minutes), BATCH):
        part = minutes[start : start + BATCH]
        for minute, values in zip(
            part, connection.use(partial(_values_of, connection, part, ordered)), strict=True
        ):
            metrics += [
                Metric(name=name, at=from_ms(minute * MINUTE_MS), value=float(value))
                for name, value in zip(ordered, values, strict=True)
                if value is not None
            ]
    return metrics


def _values_of(
    connection: Connection, minutes: Sequence[int], names: Sequence[str], client: Any
) -> list[list[bytes | None]]:
    pipeline = client.pipeline(transaction=False)
    for minute in minutes:
        pipeline.hmget(connection.key(f"m:{minute}"), names)
    values: list[list[bytes | None]] = pipeline.execute()
    return values
