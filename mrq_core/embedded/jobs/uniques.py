"""Unique keys: which job holds each key, and until when.

Reservation and record are written in one transaction, so a reservation without a job never exists. Keys until
`record` have a separate table, whose rows are written and deleted together with their records.
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

# The record of a new job is written after its key, later in the same transaction: the key is held already.
_RECORD_HOLDER = """
SELECT job_id FROM record_keys LEFT JOIN jobs ON jobs.id = job_id
WHERE key = ? AND (expires_ms IS NULL OR expires_ms > ?)"""
_RESERVE_RECORD_KEY = "INSERT OR REPLACE INTO record_keys VALUES (?, ?)"
_RECORD_DELETED = "DELETE FROM record_keys WHERE key = ? AND job_id = ?"


def reserve(connection: sqlite3.Connection, job_id: str, unique: Unique, now_ms: int) -> str:
    """Reserves the key for the job. Returns the id of the job that holds the key now."""
    statement = _RECORD_HOLDER if unique.is_of_record else _HOLDER
    row = connection.execute(statement, (unique.key, now_ms)).fetchone()
    if row is not None:
        return str(row[0])
    if unique.is_of_record:
        connection.execute(_RESERVE_RECORD_KEY, (unique.key, job_id))
        return job_id
    expires_ms = None
    if unique.until == "period":
        expires_ms = now_ms + round((unique.period or 0.0) * 1000)
    connection.execute(_RESERVE, (unique.key, job_id, unique.until, expires_ms))
    return job_id


def reserve_again(connection: sqlite3.Connection, record: JobRecord, now_ms: int) -> bool:
    """Reserves the key of a job that is queued again. False: another job holds the key.

    A key with a period is not reserved again, because the period counts from the enqueue. A key until
    `record` is still held.
    """
    assert record.unique_key is not None
    (mode,) = connection.execute(_MODE, (record.id,)).fetchone()
    if mode == "record":
        return True
    row = connection.execute(_HOLDER, (record.unique_key, now_ms)).fetchone()
    if row is not None:
        return bool(row[0] == record.id)
    if mode in ("queued", "done"):
        connection.execute(_RESERVE, (record.unique_key, record.id, mode, None))
    return True


def claimed(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Releases a key that was held until the first claim of the job."""
    connection.execute(_CLAIMED, (record.unique_key, record.id))


def released(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Releases the key of an ended job, except for a period and a key until `record`."""
    if record.unique_key is not None:
        connection.execute(_RELEASED, (record.unique_key, record.id))


def deleted(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Releases the key of a deleted job, except for a period."""
    if record.unique_key is not None:
        connection.execute(_RELEASED, (record.unique_key, record.id))
        connection.execute(_RECORD_DELETED, (record.unique_key, record.id))


def removed(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Releases the key of a job that an operator removes, including a period."""
    if record.unique_key is not None:
        connection.execute(_REMOVED, (record.unique_key, record.id))


def prune(connection: sqlite3.Connection, now_ms: int, limit: int) -> None:
    """Deletes keys whose period is over."""
    connection.execute(_PRUNE, (now_ms, limit))
