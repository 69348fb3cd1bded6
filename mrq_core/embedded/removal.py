"""Deleting jobs with all that belongs to them, and what has expired."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mrq_core.clock import Clock
from mrq_core.contract.record import JobRecord
from mrq_core.embedded import limiting, metering, rawclaims, rows, uniques
from mrq_core.embedded.batch import Batch

_LOGS = "DELETE FROM logs WHERE job_id = ?"
_LOG_SIZE = "DELETE FROM log_sizes WHERE job_id = ?"
_SIGNALS = "DELETE FROM signals WHERE job_id = ?"
_EXPIRED = f"""
SELECT seq, {rows.COLUMNS} FROM jobs INDEXED BY jobs_by_expiry
WHERE expires_ms <= ? AND rank IS NULL ORDER BY expires_ms LIMIT ?"""
_EXPIRED_STATE = """
DELETE FROM state WHERE (namespace, name) IN (
    SELECT namespace, name FROM state INDEXED BY state_by_expiry WHERE expires_ms <= ? LIMIT ?)"""


def delete(connection: sqlite3.Connection, jobs: Sequence[tuple[int, JobRecord]], now_ms: int) -> None:
    """Deletes rows, totals, logs, signals, and keys that are not held for a period."""
    batch = Batch(now_ms)
    for seq, record in jobs:
        batch.delete(seq, record)
        uniques.released(connection, record)
    ids = [(record.id,) for _, record in jobs]
    for statement in (_LOGS, _LOG_SIZE, _SIGNALS):
        connection.executemany(statement, ids)
    batch.flush(connection)


def prune(connection: sqlite3.Connection, clock: Clock, limit: int) -> int:
    """See `Broker.prune`."""
    now_ms = clock.now_ms()
    expired = connection.execute(_EXPIRED, (now_ms, limit)).fetchall()
    delete(connection, [(seq, rows.read(*columns)) for seq, *columns in expired], now_ms)
    connection.execute(_EXPIRED_STATE, (now_ms, limit))
    uniques.prune(connection, now_ms, limit)
    limiting.prune(connection, now_ms, limit)
    rawclaims.forget_settled(connection, now_ms, limit)
    metering.prune(connection, now_ms, limit)
    return len(expired)
