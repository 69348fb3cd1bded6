"""Jobs whose row cannot be read: each is set aside in one transaction. See `mrq_core.drivers.damage`.

The columns of a row are the same facts as in its record. What only the record has is lost with it: of a
waiting job its limit keys, timeouts and counts. Whether the job may run twice is not known then, so it counts
as at_most_once.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Callable
from datetime import datetime
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec.structs import replace

from mrq_core.clock import Clock, from_ms
from mrq_core.contract import codec, lifecycle
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.record import WAITING, JobRecord, Status
from mrq_core.contract.terms import Term, key_term, terms_of
from mrq_core.drivers import damage, encoding
from mrq_core.drivers.answers import UNREADABLE
from mrq_core.embedded.jobs import records, slots, uniques
from mrq_core.embedded.jobs.batch import Batch
from mrq_core.embedded.server.connection import Database
from mrq_core.embedded.shared import signals
from mrq_core.errors import BrokerCorrupt, JobDamaged

NEIGHBOURS = 100
"""How many rows on each side of a damaged row are examined with it: damage seldom comes alone."""

_SEQ = "SELECT seq FROM jobs WHERE id = ?"
_NEAR = "SELECT seq FROM jobs WHERE seq BETWEEN ? AND ? ORDER BY seq"
_ROW = """
SELECT id, queue, path, status, schedule, queued_ms, expires_ms, rank, exception_type, unique_until, params,
       token, worker, started_ms, due_ms, settled_ms, outcome, record FROM jobs WHERE seq = ?"""
_PARKED = "SELECT rank FROM parked WHERE job_id = ?"
_KEY = "SELECT key FROM uniques WHERE job_id = ?"
_RECORD_KEY = "SELECT key FROM record_keys WHERE job_id = ?"
# No index leads from a job to its terms.
_TERMS = "SELECT name, value FROM terms WHERE job_id = ?"
_FORGET_TERM = "DELETE FROM terms WHERE name = ? AND value = ? AND job_id = ?"
_KEY_NAME = "key "

_log = logging.getLogger("mrq.sqlite")
_Answer = TypeVar("_Answer")


def past_damage(database: Database, clock: Clock, call: Callable[[], _Answer]) -> _Answer:
    """The answer of a call, after all damaged jobs that it meets are set aside."""
    return damage.past_damage(
        call, lambda error: database.write(lambda c: set_aside(c, clock.now_ms(), error), durable=True)
    )


def set_aside(connection: sqlite3.Connection, now_ms: int, error: JobDamaged) -> bool:
    """Sets a damaged job aside, and damaged jobs beside it. False: the job is gone, or can be read."""
    found = connection.execute(_SEQ, (error.job_id,)).fetchone()
    if found is None:
        return False
    (middle,) = found
    near = connection.execute(_NEAR, (middle - NEIGHBOURS, middle + NEIGHBOURS)).fetchall()
    done = False
    for (seq,) in near:
        row = _Row._make(connection.execute(_ROW, (seq,)).fetchone())
        reason = _damage_of(row)
        if reason is not None:
            _set_aside(connection, seq, row, reason, now_ms)
            done = done or seq == middle
    return done


class _Row(NamedTuple):
    """All columns of a job from which its record can be made."""

    id: str
    queue: str
    path: str
    status: str
    schedule: str | None
    queued_ms: int
    expires_ms: int | None
    rank: int | None
    exception_type: str | None
    unique_until: str | None
    params: bytes
    token: str | None
    worker: str | None
    started_ms: int | None
    due_ms: int | None
    settled_ms: int | None
    outcome: bytes | None
    record: bytes

    def read(self) -> JobRecord:
        """As `records.read`."""
        times = (self.token, self.worker, self.started_ms, self.due_ms, self.outcome, self.settled_ms)
        return records.read(self.id, self.record, *times)


def _damage_of(row: _Row) -> JobDamaged | None:
    try:
        encoding.with_params(row.read(), row.params)
    except JobDamaged as error:
        return error
    return None


def _set_aside(connection: sqlite3.Connection, seq: int, row: _Row, error: JobDamaged, now_ms: int) -> None:
    terms = [Term(*term) for term in connection.execute(_TERMS, (row.id,))]
    stored: dict[str, object] = {}
    try:
        known = row.read()
    except BrokerCorrupt:
        known = _made_anew(connection, row, terms, now_ms)
        stored = {"record": row.record, **({} if row.outcome is None else {"outcome": row.outcome})}
    # The totals know the exception as the column and the terms have it.
    group = next((term.value for term in terms if term.name == "group"), None)
    before = replace(known, exception_type=row.exception_type, error_group=group, exception_message=None)
    after = damage.set_aside(known, from_ms(now_ms), error, stored)
    new = terms_of(after)
    connection.executemany(_FORGET_TERM, [(*term, row.id) for term in terms if term not in new])
    batch = Batch(now_ms)
    batch.rewrite(seq, before, after)
    batch.flush(connection)
    if after.is_ended and not known.is_ended:
        uniques.released(connection, after)
        signals.answered(connection, after)
    _log.error("job.damaged id=%s status=%s error=%s", row.id, after.status, error)


def _made_anew(connection: sqlite3.Connection, row: _Row, terms: list[Term], now_ms: int) -> JobRecord:
    """A record of the columns, and of what can be read of the damaged record."""
    status = _status_of(row.status)
    parked = connection.execute(_PARKED, (row.id,)).fetchone()
    is_waiting = status in WAITING and (row.rank is not None or parked is not None)
    is_running = status is Status.STARTED
    rank = parked[0] if parked is not None else row.rank
    due = _time(row.due_ms)
    values: dict[str, Any] = {
        "queued_at": _time(row.queued_ms) or from_ms(now_ms),
        "at_most_once": True,
        "updated_at": from_ms(now_ms),
        "ended_at": _time(row.settled_ms) or from_ms(now_ms),
        "search_keys": _search_keys(terms),
        **damage.readable_in(row.record),
        "id": row.id,
        "queue": _text(row.queue) or "unknown",
        "path": _text(row.path) or "unknown.task",
        "status": status,
        "schedule": _text(row.schedule),
        "expires_at": _time(row.expires_ms),
        "due_at": due if is_running or row.rank is not None else None,
        "params": {},
    }
    if is_waiting or is_running:
        values["ended_at"] = None
    if is_waiting and isinstance(rank, int):
        values["priority"] = -rank
    values.setdefault("limit_keys", tuple(sorted(slots.held_by(connection, row.id))))
    values.setdefault("unique_key", _unique_key(connection, row))
    token, started_at = _text(row.token), _time(row.started_ms)
    if token is not None:
        values |= {"token": token, "worker": _text(row.worker)}
        values["claims"] = max(lifecycle.claim_number(token), values.get("claims", 0))
    if started_at is not None:
        values["started_at"] = started_at
    values["lease_until"] = due if is_running else None
    record = JobRecord(**values)
    if row.outcome is None or row.settled_ms is None:
        return record
    with contextlib.suppress(BrokerCorrupt, *UNREADABLE):
        return encoding.with_outcome(record, row.outcome, row.settled_ms)
    return record


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _time(milliseconds: object) -> datetime | None:
    """The time in a column. None: there is none, or the column has another value."""
    with contextlib.suppress(OverflowError):
        return from_ms(milliseconds) if isinstance(milliseconds, int) else None
    return None


def _status_of(text: str) -> Status:
    try:
        return Status(text)
    except ValueError:
        return Status.FAILED


def _unique_key(connection: sqlite3.Connection, row: _Row) -> str | None:
    if row.unique_until is None:
        return None
    statement = _RECORD_KEY if row.unique_until == "record" else _KEY
    found = connection.execute(statement, (row.id,)).fetchone()
    return None if found is None else str(found[0])


def _search_keys(terms: list[Term]) -> JsonObject:
    """The search keys in the terms, without those that are too long for a term."""
    keys: JsonObject = {}
    for name, value in terms:
        if name.startswith(_KEY_NAME):
            with contextlib.suppress(msgspec.DecodeError):
                keys[name.removeprefix(_KEY_NAME)] = codec.decode(value)
    return {name: value for name, value in keys.items() if key_term(name, value) in terms}
