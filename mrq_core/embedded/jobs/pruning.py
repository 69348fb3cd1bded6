"""Deleting expired jobs, state, unique keys, rates, metrics, raw claims and names of queues."""

from __future__ import annotations

import sqlite3

from mrq_core.clock import Clock
from mrq_core.embedded.jobs import limits, records, removing, totals, uniques
from mrq_core.embedded.raw import claiming as raw_claiming
from mrq_core.embedded.shared import metrics

_EXPIRED = f"""
SELECT seq, {records.COLUMNS} FROM jobs INDEXED BY jobs_by_expiry
WHERE expires_ms <= ? AND rank IS NULL ORDER BY expires_ms LIMIT ?"""
_EXPIRED_STATE = """
DELETE FROM state WHERE (namespace, name) IN (
    SELECT namespace, name FROM state INDEXED BY state_by_expiry WHERE expires_ms <= ? LIMIT ?)"""


def prune(connection: sqlite3.Connection, clock: Clock, limit: int) -> int:
    """See `Broker.prune`."""
    now_ms = clock.now_ms()
    expired = connection.execute(_EXPIRED, (now_ms, limit)).fetchall()
    removing.delete(connection, [(seq, records.read(*columns)) for seq, *columns in expired], now_ms)
    connection.execute(_EXPIRED_STATE, (now_ms, limit))
    uniques.prune(connection, now_ms, limit)
    limits.prune(connection, now_ms, limit)
    raw_claiming.forget_settled(connection, now_ms, limit)
    metrics.prune(connection, now_ms, limit)
    if limit > 0:
        totals.forget_queues(connection, limit)
    return len(expired)
