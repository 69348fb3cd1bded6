"""Metrics, added up by minute and by hour: a row for each series and slot, see `mrq_core.drivers.rollups`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime

from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.drivers import rollups

_GET = "SELECT cell FROM metrics WHERE resolution = ? AND name = ? AND slot = ? AND tags = ?"
_PUT = "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?)"
_READ = """
SELECT name, slot, tags, cell FROM metrics
WHERE resolution = ? AND name = ? AND slot >= ? AND slot < ? ORDER BY slot"""
_PRUNE = """
DELETE FROM metrics WHERE (resolution, name, slot, tags) IN (
    SELECT resolution, name, slot, tags FROM metrics INDEXED BY metrics_by_slot
    WHERE resolution = ? AND slot < ? LIMIT ?)"""


def record(connection: sqlite3.Connection, metrics: Sequence[Metric]) -> None:
    """See `Broker.record_metrics`. The transaction makes reading and writing a row one step."""
    for (resolution, slot, name, tags), cell in rollups.cells_of(metrics).items():
        key = (resolution.value, name, slot, tags)
        stored = connection.execute(_GET, key).fetchone()
        if stored is not None:
            cell = rollups.unpack(stored[0]) + cell
        connection.execute(_PUT, (*key, rollups.pack(cell)))


def read(
    connection: sqlite3.Connection,
    names: Sequence[str],
    since: datetime,
    until: datetime,
    resolution: Resolution,
) -> list[Metric]:
    """See `Broker.read_metrics`."""
    slots = rollups.slots_between(since, until, resolution)
    rows = [
        row  # one query for each name: SQLite's JSON cuts texts at NUL
        for name in sorted(set(names))
        for row in connection.execute(_READ, (resolution.value, name, *slots))
    ]
    cells = rollups.unpack_all([row[3] for row in rows])
    return rollups.metrics_of(
        ((name, slot, tags, cell) for (name, slot, tags, _), cell in zip(rows, cells, strict=True)),
        resolution,
    )


def prune(connection: sqlite3.Connection, now_ms: int, limit: int) -> None:
    """Deletes up to `limit` roll-ups of each resolution whose time is over."""
    for resolution in Resolution:
        connection.execute(_PRUNE, (resolution.value, rollups.first_kept(resolution, now_ms), limit))
