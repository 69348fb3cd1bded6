"""The findings of `mrq check` about the file."""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Iterator

from mrq_core.contract.queries import Finding
from mrq_core.drivers.checks import tried_write
from mrq_core.embedded.server import layout, mending
from mrq_core.embedded.server.connection import Database
from mrq_core.errors import BrokerCorrupt, BrokerError

MIN_FREE_BYTES = 100 * 1024 * 1024
MAX_WAL_BYTES = 256 * 1024 * 1024


def check(database: Database) -> list[Finding]:
    """See `Broker.check`. Reads the whole file once."""
    try:
        missing = list(_missing(database))
        if missing:
            return missing
        return [*database.run_blocking(lambda: list(_look(database))), _writes(database)]
    except BrokerError as error:
        advice = (
            "restore a backup, or recover what can be read"
            if isinstance(error, BrokerCorrupt)
            else "fix the named problem, and check again"
        )
        return [Finding(level="error", subject="file", message=str(error), advice=advice)]


def _look(database: Database) -> Iterator[Finding]:
    with database.lent() as connection:
        size = os.path.getsize(database.path)
        yield Finding(level="ok", subject="file", message=f"{database.path}, {size:,} bytes")
        yield _journal(connection)
        yield _layout(connection, database.path)
        yield _integrity(connection)
        yield from _odd_rows(connection)
    yield from _space(database.path)


def _missing(database: Database) -> Iterator[Finding]:
    """A finding for each missing table and index. The file is not examined further then."""
    tables, indexes = database.use_unopened(mending.missing_from) or ([], [])
    for kind, names in (("table", tables), ("index", indexes)):
        for name in names:
            lost = f"; lost with it: {mending.lost_with(name)}" if kind == "table" else ""
            advice = f"`mrq check --fix` makes the {kind} anew"
            if name in mending.LOST:
                advice += "; or restore a backup of the file"
            message = f"the {kind} {name} is missing{lost}"
            yield Finding(level="error", subject="layout", message=message, advice=advice)


def _journal(connection: sqlite3.Connection) -> Finding:
    (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
    if mode == "wal":
        return Finding(level="ok", subject="journal", message="write-ahead log")
    return Finding(
        level="warning",
        subject="journal",
        message=f"the journal mode is {mode}, expected wal: readers and writers wait for each other",
        advice="put the file on a local disk, and run `PRAGMA journal_mode = WAL` on it",
    )


def _layout(connection: sqlite3.Connection, path: str) -> Finding:
    # Opening the connection has created or upgraded the tables, or raised SchemaTooNew.
    version = layout.version_of(connection, path)
    return Finding(level="ok", subject="layout", message=f"{version}; SQLite {sqlite3.sqlite_version}")


def _integrity(connection: sqlite3.Connection) -> Finding:
    problems = [line for (line,) in connection.execute("PRAGMA quick_check(5)")]
    if problems == ["ok"]:
        return Finding(level="ok", subject="integrity", message="quick_check found nothing")
    return Finding(
        level="error",
        subject="integrity",
        message="; ".join(problems),
        advice="stop all workers, keep a copy of the file, and recover it with `sqlite3 FILE .recover`",
    )


_ODD = """
SELECT id FROM jobs
WHERE typeof(id) != 'text' OR typeof(queue) != 'text' OR typeof(path) != 'text' OR typeof(status) != 'text'
   OR typeof(queued_ms) != 'integer' OR typeof(record) != 'blob' OR typeof(params) != 'blob'
   OR typeof(due_ms) NOT IN ('integer', 'null') OR typeof(expires_ms) NOT IN ('integer', 'null')
   OR typeof(rank) NOT IN ('integer', 'null') OR typeof(started_ms) NOT IN ('integer', 'null')
   OR typeof(settled_ms) NOT IN ('integer', 'null') OR typeof(allowed_ms) NOT IN ('integer', 'null')
   OR typeof(token) NOT IN ('text', 'null') OR typeof(worker) NOT IN ('text', 'null')
   OR typeof(outcome) NOT IN ('blob', 'null')
LIMIT 5"""


def _odd_rows(connection: sqlite3.Connection) -> Iterator[Finding]:
    """Jobs whose rows have values that mrq does not write: one of them may keep a queue from being served."""
    ids = [str(job_id) for (job_id,) in connection.execute(_ODD)]
    if ids:
        yield Finding(
            level="error",
            subject="rows",
            message=f"the rows of these jobs have values of another type than mrq writes: {', '.join(ids)}",
            advice="correct them with SQLite, or remove each with `mrq jobs remove ID`",
        )


def _writes(database: Database) -> Finding:
    nothing = "UPDATE numbers SET value = 0 WHERE 0"
    return tried_write(
        lambda: database.write(lambda connection: connection.execute(nothing)), where="the file"
    )


def _space(path: str) -> Iterator[Finding]:
    free = shutil.disk_usage(os.path.dirname(path)).free
    enough = free >= MIN_FREE_BYTES
    yield Finding(
        level="ok" if enough else "warning",
        subject="disk",
        message=f"{free:,} bytes free",
        advice="" if enough else "free some space: when the disk is full, nothing can be enqueued or settled",
    )
    wal = path + "-wal"
    if os.path.exists(wal) and os.path.getsize(wal) > MAX_WAL_BYTES:
        yield Finding(
            level="warning",
            subject="journal",
            message=f"the write-ahead log has {os.path.getsize(wal):,} bytes",
            advice="find the process that keeps a transaction open: it stops the log from being reused",
        )
