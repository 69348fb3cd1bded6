"""Tables that follow from the jobs, made anew after they were lost: terms, totals, slots, keys, queues.

Needed only for a file from which a table was dropped by hand, or recovered without all of its tables.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from mrq_core.contract.record import ENDED, JobRecord, Status
from mrq_core.contract.terms import terms_of
from mrq_core.embedded.jobs import records, trees
from mrq_core.embedded.jobs.batch import Batch
from mrq_core.embedded.jobs.slots import Parked

_JOBS = f"SELECT seq, rank, unique_until, {records.COLUMNS} FROM jobs ORDER BY seq"
_QUEUES = """
INSERT OR IGNORE INTO queues
SELECT queue FROM jobs UNION SELECT queue FROM raw_waiting UNION SELECT queue FROM raw_leased"""
_TERM = "INSERT OR IGNORE INTO terms VALUES (?, ?, ?)"
_UNIQUE = "INSERT OR IGNORE INTO uniques VALUES (?, ?, ?, NULL)"
_RECORD_KEY = "INSERT OR IGNORE INTO record_keys VALUES (?, ?)"
_SLOT = "INSERT OR IGNORE INTO slots VALUES (?, ?, ?)"
_RUNNING = "INSERT INTO running SELECT limit_key, count(*) FROM slots GROUP BY limit_key"
_SUBQUEUES = "SELECT DISTINCT queue FROM jobs WHERE rank IS NOT NULL AND queue LIKE '%/%'"
_LOG_SIZES = """
INSERT INTO log_sizes SELECT job_id, sum(length(CAST(message AS BLOB))), 0 FROM logs GROUP BY job_id"""
_TOTALS = (
    "DELETE FROM totals",
    "INSERT INTO totals SELECT 'queue', queue, status, count(*) FROM jobs GROUP BY queue, status",
    "INSERT INTO totals SELECT 'path', path, status, count(*) FROM jobs GROUP BY path, status",
    """INSERT INTO totals SELECT 'type', exception_type, status, count(*) FROM jobs
    WHERE exception_type IS NOT NULL GROUP BY exception_type, status""",
    """INSERT INTO totals SELECT 'group', value, status, count(*) FROM terms JOIN jobs ON jobs.id = job_id
    WHERE name = 'group' GROUP BY value, status""",
    """INSERT INTO totals SELECT 'entry', queue, 'claimed', count(*) FROM jobs WHERE status = 'started'
    GROUP BY queue""",
    """INSERT INTO totals SELECT 'entry', queue, 'waiting', count(*) FROM jobs
    WHERE status IN ('queued', 'retry', 'interrupt')
    AND (rank IS NOT NULL OR id IN (SELECT job_id FROM parked)) GROUP BY queue""",
    "INSERT INTO totals SELECT 'raw', queue, 'waiting', count(*) FROM raw_waiting GROUP BY queue",
)
_WITHOUT_JOBS = ("terms", "subqueues", "uniques", "record_keys", "slots", "running", "parked", "signals")


def recount(connection: sqlite3.Connection, missing: frozenset[str], now_ms: int) -> None:
    """Fills these tables, which are empty, from the jobs. Without the jobs, empties the tables that follow
    from them."""
    if "jobs" in missing:
        for table in _WITHOUT_JOBS:
            connection.execute(f"DELETE FROM {table}")
        missing |= {"totals"}
    fillers: dict[str, Callable[[sqlite3.Connection], None]] = {
        "terms": _fill_terms,
        "uniques": _fill_uniques,
        "record_keys": _fill_record_keys,
        "slots": _fill_slots,
    }
    for table, fill in fillers.items():
        if table in missing:
            fill(connection)
    if missing & {"slots", "running"}:
        connection.execute("DELETE FROM running")
        connection.execute(_RUNNING)
    if "parked" in missing:
        _release_parked(connection, now_ms)
    if "queues" in missing:
        connection.execute(_QUEUES)
    if "log_sizes" in missing:
        connection.execute(_LOG_SIZES)
    if missing & {"totals", "terms", "raw_waiting"}:
        for statement in _TOTALS:
            connection.execute(statement)
    if missing & {"subqueues", "parked"}:
        names = [name for (name,) in connection.execute(_SUBQUEUES).fetchall()]
        trees.refresh(connection, names, now_ms)


def _stored(connection: sqlite3.Connection) -> Iterator[tuple[int, int | None, str | None, JobRecord]]:
    """Row, rank, mode of the unique key and record of each job."""
    for seq, rank, unique_until, *columns in connection.execute(_JOBS).fetchall():
        yield seq, rank, unique_until, records.read(*columns)


def _fill_terms(connection: sqlite3.Connection) -> None:
    for _, _, _, record in _stored(connection):
        connection.executemany(_TERM, [(*term, record.id) for term in terms_of(record)])


def _fill_uniques(connection: sqlite3.Connection) -> None:
    """The keys that unfinished jobs hold. The ends of periods are lost."""
    for _, _, mode, record in _stored(connection):
        is_held = (mode == "queued" and record.status is Status.QUEUED and not record.claims) or (
            mode == "done" and not record.is_ended
        )
        if record.unique_key is not None and is_held:
            connection.execute(_UNIQUE, (record.unique_key, record.id, mode))


def _fill_record_keys(connection: sqlite3.Connection) -> None:
    for _, _, mode, record in _stored(connection):
        if record.unique_key is not None and mode == "record":
            connection.execute(_RECORD_KEY, (record.unique_key, record.id))


def _fill_slots(connection: sqlite3.Connection) -> None:
    for _, _, _, record in _stored(connection):
        if record.status is Status.STARTED:
            until_ms = records.ms(record.lease_until)
            connection.executemany(_SLOT, [(record.id, key, until_ms) for key in record.limit_keys])


def _release_parked(connection: sqlite3.Connection, now_ms: int) -> None:
    """Jobs that were parked are due now, and the next claims park them again."""
    batch = Batch(now_ms)
    for seq, rank, _, record in _stored(connection):
        if rank is None and record.due_at is None and not record.is_ended and record.status not in ENDED:
            batch.let_go(Parked(seq, record, now_ms))
    batch.flush(connection)
