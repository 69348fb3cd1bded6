"""Metrics, added up by minute and by hour: a row for each series and slot, see `mrq_core.drivers.rollups`."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from itertools import repeat

from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.drivers import rollups

_GET = "SELECT cell FROM metrics WHERE resolution = ? AND name = ? AND slot = ? AND tags = ?"
_PUT = "INSERT OR REPLACE INTO metrics VALUES (?, ?, ?, ?, ?)"
_READ = """
SELECT slot, tags, cell FROM metrics
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
    span = rollups.slots_between(since, until, resolution)
    found: list[Metric] = []
    for name in sorted(set(names)):  # one query for each: SQLite's JSON cuts texts at NUL
        slots: list[int] = []
        tags: list[str] = []
        cells: list[bytes] = []
        for slot, its_tags, cell in connection.execute(_READ, (resolution.value, name, *span)):
            slots.append(slot)
            tags.append(its_tags)
            cells.append(cell)
        found += rollups.metrics_of(repeat(name), slots, tags, rollups.unpack_all(cells), resolution)
    return found


def prune(connection: sqlite3.Connection, now_ms: int, limit: int) -> None:
    """Deletes up to `limit` roll-ups of each resolution whose time is over."""
    for resolution in Resolution:
        connection.execute(_PRUNE, (resolution.value, rollups.first_kept(resolution, now_ms), limit))
