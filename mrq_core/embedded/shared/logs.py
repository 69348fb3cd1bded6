"""The logs of jobs: a row for each line, and the size of the log of each job."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mrq_core.clock import Clock, from_ms, to_ms
from mrq_core.contract import codec
from mrq_core.contract.naming import log_position
from mrq_core.contract.queries import LogLine, LogPage
from mrq_core.errors import JobNotFound

_VISIBLE = """
SELECT jobs.id, coalesce(size, 0), coalesce(is_full, 0) FROM jobs
LEFT JOIN log_sizes ON log_sizes.job_id = jobs.id
WHERE jobs.id IN (SELECT value FROM json_each(?)) AND (expires_ms IS NULL OR expires_ms > ?)"""
_APPEND = "INSERT OR IGNORE INTO logs VALUES (?, ?, ?, ?, ?, ?)"
_SIZE = "INSERT OR REPLACE INTO log_sizes VALUES (?, ?, ?)"
_READ = """
SELECT attempt, seq, at_ms, level, message FROM logs
WHERE job_id = ? AND (attempt, seq) > (?, ?) ORDER BY attempt, seq LIMIT ?"""


def append(connection: sqlite3.Connection, clock: Clock, lines: Sequence[LogLine], max_size: int) -> None:
    """See `Broker.append_logs`."""
    ids = codec.encode(list({line.job_id for line in lines})).decode()
    found = connection.execute(_VISIBLE, (ids, clock.now_ms())).fetchall()
    sizes = {job_id: (size, bool(is_full)) for job_id, size, is_full in found}
    grown = set()
    for line in lines:
        if line.job_id not in sizes:
            continue
        size, is_full = sizes[line.job_id]
        if is_full:
            continue
        level, message = line.level, line.message
        length = len(message.encode())
        if size + length > max_size:
            level = "WARNING"
            message = (
                f"the log of this job is full ({max_size:,} bytes): this line and later ones were dropped"
            )
            length, is_full = 0, True
        row = (line.job_id, line.attempt, line.seq, to_ms(line.at), level, message)
        if connection.execute(_APPEND, row).rowcount:
            sizes[line.job_id] = (size + length, is_full)
            grown.add(line.job_id)
    connection.executemany(_SIZE, [(job_id, *sizes[job_id]) for job_id in grown])


def read(
    connection: sqlite3.Connection, clock: Clock, job_id: str, cursor: str | None, limit: int
) -> LogPage:
    """See `Broker.read_logs`."""
    attempt, seq = log_position(cursor)
    ids = codec.encode([job_id]).decode()
    if connection.execute(_VISIBLE, (ids, clock.now_ms())).fetchone() is None:
        raise JobNotFound(job_id)
    found = connection.execute(_READ, (job_id, attempt, seq, limit)).fetchall()
    lines = tuple(
        LogLine(
            job_id=job_id,
            attempt=attempt,
            seq=seq,
            at=from_ms(at_ms),
            level=level,
            message=message,
        )
        for attempt, seq, at_ms, level, message in found
    )
    if lines:
        attempt, seq = lines[-1].attempt, lines[-1].seq
    return LogPage(lines=lines, cursor=f"{attempt}.{seq}")
