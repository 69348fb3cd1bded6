"""Rows of the table of jobs: the record, its params, and the changes beside the record."""

from __future__ import annotations

import sqlite3
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import from_ms
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers import damage, encoding
from mrq_core.drivers.answers import UNREADABLE
from mrq_core.errors import BrokerCorrupt, JobDamaged

CLAIMED_RANK = 9
_ID = "SELECT id FROM jobs WHERE seq = ?"

COLUMNS = "id, record, token, worker, started_ms, due_ms, outcome, settled_ms"
"""The columns that `read` needs, in the order of its arguments."""


def read(
    job_id: str,
    data: bytes,
    token: str | None,
    worker: str | None,
    started_ms: int | None,
    due_ms: int | None,
    outcome: bytes | None,
    settled_ms: int | None,
) -> JobRecord:
    """The record of any row; params are empty. Applies the claim and the success that stand beside it. Raises
    JobDamaged."""
    record = decode(job_id, data)
    try:
        if started_ms is not None:
            record = encoding.with_claim(
                record, token=token or "", worker=worker or "", started_ms=started_ms
            )
            until = moment(due_ms)
            record = replace(record, due_at=until, lease_until=until)
        if outcome is not None and settled_ms is not None:
            record = encoding.with_outcome(record, outcome, settled_ms)
    except BrokerCorrupt as error:
        raise damage.damaged(job_id, "outcome", error.__cause__) from error
    except UNREADABLE as error:  # a column has a value of another type
        raise damage.damaged(job_id, "row", error) from error
    return record


def decode(job_id: str, data: bytes) -> JobRecord:
    """The record as it was last written in full. Raises JobDamaged."""
    try:
        return encoding.decode(data)
    except BrokerCorrupt as error:
        raise damage.damaged(job_id, "record", error.__cause__) from error


def damaged_at(connection: sqlite3.Connection, seq: int, error: BrokerCorrupt) -> JobDamaged:
    """The error for the row whose record cannot be decoded."""
    (job_id,) = connection.execute(_ID, (seq,)).fetchone()
    return damage.damaged(job_id, "record", error.__cause__)


def rank(record: JobRecord) -> int | None:
    """The rank of the entry in its queue. None: the job has no entry, or is parked."""
    if record.due_at is None:
        return None
    return CLAIMED_RANK if record.status is Status.STARTED else -record.priority


def counted_as(record: JobRecord) -> str | None:
    """The name under which totals count the entry. None: the job has no entry."""
    if record.status is Status.STARTED:
        return "claimed"
    return None if record.ended_at is not None else "waiting"


def ms(moment: datetime | None) -> int | None:
    """Milliseconds, or NULL. For times of records, which are aware and whole milliseconds."""
    return None if moment is None else round(moment.timestamp() * 1000)


def moment(milliseconds: int | None) -> datetime | None:
    """The time, or None for NULL."""
    return None if milliseconds is None else from_ms(milliseconds)
