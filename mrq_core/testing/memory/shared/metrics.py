"""Metrics of workers, added up by name and minute."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import METRICS_KEPT, Metric
from mrq_core.testing.memory.data import MemoryData

MINUTE_MS = 60_000


def record(data: MemoryData, metrics: Sequence[Metric]) -> None:
    """See `Broker.record_metrics`."""
    for metric in metrics:
        key = (to_ms(metric.at) // MINUTE_MS, metric.name)
        data.metrics[key] = data.metrics.get(key, 0.0) + metric.value


def read(data: MemoryData, names: Sequence[str], since: float, until: float) -> list[Metric]:
    """See `Broker.read_metrics`. A minute lies between the two times if its beginning does."""
    return [
        Metric(name=name, at=from_ms(minute * MINUTE_MS), value=value)
        for (minute, name), value in sorted(data.metrics.items())
        if name in names and since <= minute * MINUTE_MS / 1000 < until
    ]


def prune(data: MemoryData, now: datetime) -> None:
    """Deletes metrics older than METRICS_KEPT."""
    oldest = (to_ms(now) - METRICS_KEPT * 1000) // MINUTE_MS
    for key in [key for key in data.metrics if key[0] < oldest]:
        del data.metrics[key]
