"""Waiting for due entries: frequent, cheap polls notice the commits of other processes.

`PRAGMA data_version` changes when another connection has committed; it costs microseconds and
reads no table. The queues are read only after a change, or when an entry may have become due.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence

from mrq_core.clock import Clock, monotonic
from mrq_core.contract.messages import Wanted
from mrq_core.embedded.jobs import trees
from mrq_core.embedded.raw import parameters
from mrq_core.embedded.server.connection import Database

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.002, 0.02
_VERSION = "PRAGMA data_version"


def wait(database: Database, clock: Clock, wanted: Sequence[Wanted], timeout: float) -> bool:
    """See `Broker.wait`.

    A lease that ended before the call does not wake, because the claim has seen to it. The pauses are slept
    outside `run_blocking`, so that they occupy no thread of a pool.
    """
    deadline = monotonic() + timeout
    began_ms = clock.now_ms()
    pause = FIRST_PAUSE_SECONDS
    with database.lent() as connection:
        version: int | None = None
        due_ms: int | None = None
        while True:
            if database.has_other_files(connection):  # it would hear of nothing more
                return True
            current = _version(connection)
            if current != version:
                version = current
                due_ms = database.run_blocking(lambda: _due(connection, wanted, clock, began_ms))
            if due_ms is not None and due_ms <= clock.now_ms():
                return True
            left = deadline - monotonic()
            if left <= 0:
                return False
            time.sleep(min(pause, left))
            pause = min(pause * 1.2, LONGEST_PAUSE_SECONDS)


def _version(connection: sqlite3.Connection) -> int:
    (version,) = connection.execute(_VERSION).fetchone()
    return int(version)


def _due(connection: sqlite3.Connection, wanted: Sequence[Wanted], clock: Clock, began_ms: int) -> int | None:
    jobs_ms = trees.next_due(connection, wanted, clock.now_ms(), leases_after_ms=began_ms)
    times = [jobs_ms, *(parameters.next_due(connection, one.name) for one in wanted)]
    return min((time_ms for time_ms in times if time_ms is not None), default=None)
