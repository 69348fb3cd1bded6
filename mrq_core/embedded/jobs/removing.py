"""Deleting jobs with their logs, signals, unique keys and totals."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mrq_core.contract.record import JobRecord
from mrq_core.embedded.jobs import uniques
from mrq_core.embedded.jobs.batch import Batch

_LOGS = "DELETE FROM logs WHERE job_id = ?"
_LOG_SIZE = "DELETE FROM log_sizes WHERE job_id = ?"
_SIGNALS = "DELETE FROM signals WHERE job_id = ?"


def delete(connection: sqlite3.Connection, jobs: Sequence[tuple[int, JobRecord]], now_ms: int) -> None:
    """Deletes rows, totals, logs, signals, and keys that are not held for a period."""
    batch = Batch(now_ms)
    for seq, record in jobs:
        batch.delete(seq, record)
        uniques.deleted(connection, record)
    ids = [(record.id,) for _, record in jobs]
    for statement in (_LOGS, _LOG_SIZE, _SIGNALS):
        connection.executemany(statement, ids)
    batch.flush(connection)
