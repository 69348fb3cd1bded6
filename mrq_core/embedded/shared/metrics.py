"""Figures of workers, rolled up by name and minute."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract import codec
from mrq_core.contract.messages import METRICS_KEPT, Metric

MINUTE_MS = 60_000

_ADD = """
INSERT INTO metrics VALUES (?, ?, ?)
ON CONFLICT DO UPDATE SET value = value + excluded.value"""
_READ = """
SELECT name, minute, value FROM metrics
WHERE name IN (SELECT value FROM json_each(?)) AND minute >= ? AND minute < ? ORDER BY minute, name"""

_PRUNE = """
DELETE FROM metrics WHERE (name, minute) IN
    (SELECT name, minute FROM metrics INDEXED BY metrics_by_minute WHERE minute < ? LIMIT ?)"""


def record(connection: sqlite3.Connection, metrics: Sequence[Metric]) -> None:
    """See `Broker.record_metrics`."""
    rows = [(metric.name, to_ms(metric.at) // MINUTE_MS, metric.value) for metric in metrics]
    connection.executemany(_ADD, rows)


def read(connection: sqlite3.Connection, names: Sequence[str], since: float, until: float) -> list[Metric]:
    """See `Broker.read_metrics`. A minute lies between the two times if its beginning does."""
    first, end = (math.ceil(time * 1000 / MINUTE_MS) for time in (since, until))
    found = connection.execute(_READ, (codec.encode(list(names)).decode(), first, end))
    return [Metric(name=name, at=from_ms(minute * MINUTE_MS), value=value) for name, minute, value in found]


def prune(connection: sqlite3.Connection, now_ms: int, limit: int) -> None:
    """Deletes metrics older than METRICS_KEPT."""
    connection.execute(_PRUNE, ((now_ms - METRICS_KEPT * 1000) // MINUTE_MS, limit))
