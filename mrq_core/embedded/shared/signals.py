"""Rules, and requests to a worker: the answers that each process polls once a second."""

from __future__ import annotations

import sqlite3

from msgspec.structs import replace

from mrq_core.contract import rules
from mrq_core.contract.record import JobRecord
from mrq_core.contract.shared_state import PollResult, Versions
from mrq_core.embedded.shared import state

_RULES_VERSION = "SELECT value FROM numbers WHERE name = 'rules'"
_INTERRUPT = "INSERT INTO signals (worker, job_id, token) VALUES (?, ?, ?)"
_ANSWERED = "DELETE FROM signals WHERE job_id = ?"
_SIGNALS = "SELECT n, job_id FROM signals WHERE worker = ? AND n > ? ORDER BY n"


def interrupt(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Asks the worker that runs the job to stop it."""
    connection.execute(_INTERRUPT, (record.worker, record.id, record.token))


def answered(connection: sqlite3.Connection, record: JobRecord) -> None:
    """Forgets the requests for an attempt that is over, lest a later one is taken for it."""
    connection.execute(_ANSWERED, (record.id,))


def poll(connection: sqlite3.Connection, worker: str, versions: Versions, now_ms: int) -> PollResult:
    """See `Broker.poll`. Three look-ups without changes."""
    (version,) = connection.execute(_RULES_VERSION).fetchone()
    found = connection.execute(_SIGNALS, (worker, versions.signals)).fetchall()
    request = state.get(connection, rules.REQUESTS, worker, now_ms)
    signals = found[-1][0] if found else versions.signals
    changed = None
    after = replace(versions, signals=signals)
    if rules.is_changed(versions, version, now_ms):
        changed = rules.read(lambda namespace: state.items(connection, namespace, now_ms))
        after = rules.versions_after(version, signals, changed)
    return PollResult(
        versions=after,
        rules=changed,
        interrupts=tuple(dict.fromkeys(job_id for _, job_id in found)),
        requests=() if request is None else rules.requests_in(request.value, now_ms),
    )
