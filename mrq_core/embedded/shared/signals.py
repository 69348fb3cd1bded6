"""Pauses of queues, and requests to interrupt running jobs: what each process asks for once a second."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from mrq_core.contract.messages import PollResult, Versions
from mrq_core.contract.record import JobRecord

_PAUSE = "INSERT OR IGNORE INTO pauses VALUES (?)"
_RESUME = "DELETE FROM pauses WHERE queue = ?"
_PAUSED = "SELECT queue FROM pauses"
_BUMP = "UPDATE numbers SET value = value + 1 WHERE name = 'pauses'"
_PAUSES_VERSION = "SELECT value FROM numbers WHERE name = 'pauses'"
_INTERRUPT = "INSERT INTO signals (worker, job_id, token) VALUES (?, ?, ?)"
_ANSWERED = "DELETE FROM signals WHERE job_id = ?"
_SIGNALS = "SELECT n, job_id FROM signals WHERE worker = ? AND n > ? ORDER BY n"


def interrupt(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Asks the worker that runs the job to stop it."""
    connection.execute(_INTERRUPT, (record.worker, record.id, record.token))


def answered(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Forgets the requests for an attempt that is over, lest a later one is taken for it."""
    connection.execute(_ANSWERED, (record.id,))


def pause(connection: sqlite3.Connection, queues: Sequence[str]) -> None:
    """See `Broker.pause`."""
    connection.executemany(_PAUSE, [(queue,) for queue in queues])
    connection.execute(_BUMP)


def resume(connection: sqlite3.Connection, queues: Sequence[str]) -> None:
    """See `Broker.resume`."""
    connection.executemany(_RESUME, [(queue,) for queue in queues])
    connection.execute(_BUMP)


def paused(connection: sqlite3.Connection) -> frozenset[str]:
    """See `Broker.paused`."""
    return frozenset(queue for (queue,) in connection.execute(_PAUSED))


def poll(connection: sqlite3.Connection, worker: str, versions: Versions) -> PollResult:
    """See `Broker.poll`. Two look-ups when there is nothing new."""
    (pauses,) = connection.execute(_PAUSES_VERSION).fetchone()
    found = connection.execute(_SIGNALS, (worker, versions.signals)).fetchall()
    return PollResult(
        versions=Versions(pauses=pauses, signals=found[-1][0] if found else versions.signals),
        paused=None if pauses == versions.pauses else paused(connection),
        interrupts=tuple(dict.fromkeys(job_id for _, job_id in found)),
    )
