"""Unique keys: which job holds each, and until when.

Reservation and record are written in one transaction, so a reservation without a job never exists.
"""

from __future__ import annotations

import sqlite3

from mrq_core.contract.messages import Unique
from mrq_core.contract.record import JobRecord

_HOLDER = "SELECT job_id FROM uniques WHERE key = ? AND (expires_ms IS NULL OR expires_ms > ?)"
_RESERVE = "INSERT OR REPLACE INTO uniques VALUES (?, ?, ?, ?)"
_CLAIMED = "DELETE FROM uniques WHERE key = ? AND job_id = ? AND until = 'queued'"
_RELEASED = "DELETE FROM uniques WHERE key = ? AND job_id = ? AND until != 'period'"
_REMOVED = "DELETE FROM uniques WHERE key = ? AND job_id = ?"
_MODE = "SELECT unique_until FROM jobs WHERE id = ?"
_PRUNE = """
DELETE FROM uniques WHERE key IN
    (SELECT key FROM uniques WHERE expires_ms <= ? AND expires_ms IS NOT NULL LIMIT ?)"""


def reserve(connection: sqlite3.Connection, job_id: str, unique: Unique, now_ms: int) -> str:
    """Reserves the key for the job; answers with the id of the job that holds it now."""
    row = connection.execute(_HOLDER, (unique.key, now_ms)).fetchone()
    if row is not None:
        return str(row[0])
    expires_ms = None
    if unique.until == "period":
        expires_ms = now_ms + round((unique.period or 0.0) * 1000)
    connection.execute(_RESERVE, (unique.key, job_id, unique.until, expires_ms))
    return job_id


def reserve_again(connection: sqlite3.Connection, record: JobRecord, now_ms: int) -> bool:
    """Reserves the key of a job that is queued again; False if another one holds it.

    A key that was held for a period is not: the period counts from the enqueue.
    """
    assert record.unique_key is not None
    row = connection.execute(_HOLDER, (record.unique_key, now_ms)).fetchone()
    if row is not None:
        return bool(row[0] == record.id)
    (mode,) = connection.execute(_MODE, (record.id,)).fetchone()
    if mode in ("queued", "done"):
        connection.execute(_RESERVE, (record.unique_key, record.id, mode, None))
    return True


def claimed(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Releases a key that was held until the first claim of the job."""
    connection.execute(_CLAIMED, (record.unique_key, record.id))


def released(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Releases the key of an ended job, except a period."""
    if record.unique_key is not None:
        connection.execute(_RELEASED, (record.unique_key, record.id))


def removed(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Releases the key of a removed job, including a period."""
    if record.unique_key is not None:
        connection.execute(_REMOVED, (record.unique_key, record.id))


def prune(connection: sqlite3.Connection, now_ms: int, limit: int) -> None:
    """Deletes keys whose period is over."""
    connection.execute(_PRUNE, (now_ms, limit))
