"""Counts anew what the embedded broker keeps counted, straight from the tables."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

from mrq_core.contract.record import JobRecord
from mrq_core.contract.terms import error_terms_of, terms_of
from mrq_core.drivers import encoding
from mrq_core.embedded.jobs import records

_JOBS = f"SELECT id, queue, path, status, rank, due_ms, {records.COLUMNS} FROM jobs"


def check_tables(path: Path) -> None:
    """Totals, terms, keys until `record`, slots, parked jobs, heads of subqueues and sizes of raw queues are
    what the rows say."""
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        jobs = connection.execute(_JOBS).fetchall()
        stored = [records.read(*row[6:]) for row in jobs]
        for (job_id, queue, task, status, *_), record in zip(jobs, stored, strict=True):
            assert (job_id, queue, task, status) == (record.id, record.queue, record.path, record.status)
        _check_totals(connection, stored)
        terms = connection.execute("SELECT job_id, name, value FROM terms").fetchall()
        assert Counter(terms) == Counter((record.id, *term) for record in stored for term in terms_of(record))
        held = {
            (record.id, key) for record in stored if record.status == "started" for key in record.limit_keys
        }
        slots = set(connection.execute("SELECT job_id, limit_key FROM slots"))
        assert slots <= held
        assert dict(connection.execute("SELECT * FROM running")) == Counter(key for _, key in slots)
        parked = Counter(job_id for (job_id,) in connection.execute("SELECT job_id FROM parked"))
        assert parked == Counter(record.id for record in stored if encoding.is_parked(record))
        held_keys = set(connection.execute("SELECT job_id, key FROM record_keys"))
        assert held_keys <= {(record.id, record.unique_key) for record in stored}
        keyed = connection.execute("SELECT id FROM jobs WHERE unique_until = 'record' AND expires_ms IS NULL")
        assert {job_id for (job_id,) in keyed} <= {job_id for job_id, _ in held_keys}
        heads: dict[str, int] = {}
        for _, queue, _, _, rank, due_ms, *_ in jobs:
            if "/" in queue and rank is not None:
                heads[queue] = min(heads.get(queue, due_ms), due_ms)
        assert dict(connection.execute("SELECT queue, due_ms FROM subqueues")) == heads


def _check_totals(connection: sqlite3.Connection, stored: list[JobRecord]) -> None:
    counted: Counter[tuple[str, str, str]] = Counter()
    for record in stored:
        counted["queue", record.queue, record.status.value] += 1
        counted["path", record.path, record.status.value] += 1
        entry = records.counted_as(record)
        if entry is not None:
            counted["entry", record.queue, entry] += 1
        for name, value in error_terms_of(record):
            if name == "group":
                counted["group", value, record.status.value] += 1
        if record.exception_type is not None:
            counted["type", record.exception_type, record.status.value] += 1
    for (queue,) in connection.execute("SELECT queue FROM raw_waiting"):
        counted["raw", queue, "waiting"] += 1
    totals = connection.execute(
        "SELECT kind, name, status, n FROM totals WHERE n != 0 OR kind IN ('group', 'type')"
    )
    assert {(kind, name, status): n for kind, name, status, n in totals} == counted
