"""Metrics, added up by minute and by hour."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mrq_core.clock import to_ms
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.drivers import rollups
from mrq_core.drivers.rollups import CellKey
from mrq_core.testing.memory.data import MemoryData


def record(data: MemoryData, metrics: Sequence[Metric]) -> None:
    """See `Broker.record_metrics`."""
    for key, cell in rollups.cells_of(metrics).items():
        before = data.metrics.get(key)
        data.metrics[key] = cell if before is None else before + cell


def read(
    data: MemoryData, names: Sequence[str], since: datetime, until: datetime, resolution: Resolution
) -> list[Metric]:
    """See `Broker.read_metrics`."""
    first, end = rollups.slots_between(since, until, resolution)
    found = sorted(
        (key.name, key.slot, key.tags)
        for key in data.metrics
        if key.name in names and key.resolution is resolution and first <= key.slot < end
    )
    return rollups.metrics_of(
        [name for name, _, _ in found],
        [slot for _, slot, _ in found],
        [tags for _, _, tags in found],
        [data.metrics[CellKey(resolution, slot, name, tags)] for name, slot, tags in found],
        resolution,
    )


def prune(data: MemoryData, now: datetime, limit: int) -> None:
    """Deletes up to `limit` cells whose time is over."""
    first = {resolution: rollups.first_kept(resolution, to_ms(now)) for resolution in Resolution}
    for key in [key for key in data.metrics if key.slot < first[key.resolution]][:limit]:
        del data.metrics[key]
