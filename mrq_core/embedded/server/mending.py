"""Tables and indexes of the file that are missing: dropped by hand, or lost in a recovery."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable

from mrq_core.embedded.server import layout
from mrq_core.embedded.server.connection import Database

LOST = {
    "jobs": "all jobs and all that follows from them",
    "logs": "the logs of all jobs",
    "metrics": "all metrics",
    "numbers": "no data",
    "parked": "the order of the jobs that waited for room under a limit",
    "rates": "the times of the latest starts under each rate limit",
    "raw_leased": "the parameters of raw queues that were claimed and not settled",
    "raw_settled": "the answers to repeated settles of raw parameters",
    "raw_waiting": "all parameters that waited in raw queues",
    "signals": "requests to interrupt running jobs",
    "state": "schedules, pauses, limits, and reports of workers",
    "uniques": "unique keys that are held for a period",
}
"""What is lost with a table. All other tables are made anew from the jobs."""

_NAMES = "SELECT name FROM sqlite_master WHERE type IN ('table', 'index')"
_log = logging.getLogger("mrq.sqlite")


def missing_from(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
    """The names of the missing tables and indexes. None are missing from an empty file, or from a file that
    waits for an upgrade."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != layout.APPLICATION_ID or version != layout.VERSION:
        return [], []
    found = {name for (name,) in connection.execute(_NAMES)}
    return (
        [name for name in layout.TABLES if name not in found],
        [name for name in layout.INDEXES if name not in found],
    )


def lost_with(table: str) -> str:
    """What is lost with a table."""
    return LOST.get(table, "no data: it is made anew from the jobs")


def mend(
    database: Database, now_ms: int, recount: Callable[[sqlite3.Connection, frozenset[str], int], None]
) -> None:
    """Creates missing tables and indexes in one transaction. `recount` fills the tables from the jobs."""
    missing = database.use_unopened(missing_from)
    if missing is None or missing == ([], []):
        return

    def work(connection: sqlite3.Connection) -> tuple[list[str], list[str]]:
        connection.execute("BEGIN IMMEDIATE")
        tables, indexes = missing_from(connection)
        for name in tables:
            connection.execute(layout.TABLES[name])
        for name in indexes:
            connection.execute(layout.INDEXES[name])
        if "numbers" in tables:
            layout.fill_numbers(connection, now_ms)
        recount(connection, frozenset(tables), now_ms)
        connection.execute("COMMIT")
        return tables, indexes

    tables, indexes = database.use_unopened(work) or ([], [])
    for name in tables:
        _log.error("sqlite.table_made path=%s table=%s lost: %s", database.path, name, lost_with(name))
    for name in indexes:
        _log.warning("sqlite.index_made path=%s index=%s", database.path, name)
