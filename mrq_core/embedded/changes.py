"""What people and rules change: requeue, cancel, move, remove. One transaction for a call."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from msgspec.structs import replace

from mrq_core import codec, lifecycle
from mrq_core.clock import Clock, from_ms
from mrq_core.embedded import removal, rows, signals, uniques
from mrq_core.embedded.batch import Batch
from mrq_core.job import CANCELLABLE, JobRecord, Status
from mrq_core.messages import Action, Cancel, Change, Move, Remove, Requeue

_VISIBLE = f"""
SELECT id, seq, {rows.COLUMNS} FROM jobs
WHERE id IN (SELECT value FROM json_each(?)) AND (expires_ms IS NULL OR expires_ms > ?)"""

_Step = Callable[[JobRecord], tuple[Change, JobRecord]]


def act(connection: sqlite3.Connection, clock: Clock, ids: Sequence[str], action: Action) -> list[Change]:
    """Does the action to each job. See `requeue`, `cancel`, `move` and `remove` of `Broker`."""
    match action:
        case Requeue():
            return requeue(connection, clock, ids, action)
        case Cancel():
            return cancel(connection, clock, ids, action)
        case Move():
            return move(connection, clock, ids, action)
        case Remove():
            return remove(connection, clock, ids)


def requeue(connection: sqlite3.Connection, clock: Clock, ids: Sequence[str], how: Requeue) -> list[Change]:
    """See `Broker.requeue`."""
    now_ms = clock.now_ms()
    now = from_ms(now_ms)

    def step(record: JobRecord) -> tuple[Change, JobRecord]:
        if record.status in (Status.QUEUED, Status.STARTED):
            return Change.REFUSED, record
        if record.unique_key is not None and not uniques.reserve_again(connection, record, now_ms):
            return Change.HELD, record
        return Change.DONE, lifecycle.requeued(
            record, now=now, queue=how.queue, reset_retries=how.reset_retries, delay=how.delay
        )

    return _each(connection, now_ms, ids, step)


def cancel(connection: sqlite3.Connection, clock: Clock, ids: Sequence[str], how: Cancel) -> list[Change]:
    """See `Broker.cancel`."""
    now_ms = clock.now_ms()
    now = from_ms(now_ms)

    def step(record: JobRecord) -> tuple[Change, JobRecord]:
        if record.status is Status.STARTED:
            if how.interrupt:
                signals.interrupt(connection, record)
            return Change.REQUESTED, replace(record, cancel_requested=True, updated_at=now)
        if record.status not in CANCELLABLE:
            return Change.REFUSED, record
        uniques.released(connection, record)
        return Change.DONE, lifecycle.cancelled(record, now=now, ttl=how.ttl)

    return _each(connection, now_ms, ids, step)


def move(connection: sqlite3.Connection, clock: Clock, ids: Sequence[str], how: Move) -> list[Change]:
    """See `Broker.move`."""

    def step(record: JobRecord) -> tuple[Change, JobRecord]:
        if not record.status.is_waiting or record.is_ended:
            return Change.REFUSED, record
        # updated_at stays: for a job that waits to be retried it says when its attempt ended
        return Change.DONE, replace(record, queue=how.queue)

    return _each(connection, clock.now_ms(), ids, step)


def remove(connection: sqlite3.Connection, clock: Clock, ids: Sequence[str]) -> list[Change]:
    """See `Broker.remove`."""
    now_ms = clock.now_ms()
    stored = _visible(connection, now_ms, ids)
    doomed: dict[str, tuple[int, JobRecord]] = {}
    answers = []
    for job_id in ids:
        if job_id not in stored or job_id in doomed:
            answers.append(Change.UNKNOWN)
        elif stored[job_id][1].status is Status.STARTED:
            answers.append(Change.REFUSED)
        else:
            doomed[job_id] = stored[job_id]
            answers.append(Change.DONE)
    for _, record in doomed.values():
        uniques.removed(connection, record)
    removal.delete(connection, list(doomed.values()), now_ms)
    return answers


def _each(connection: sqlite3.Connection, now_ms: int, ids: Sequence[str], step: _Step) -> list[Change]:
    """One step for each id, in order; an id that is named twice takes two."""
    stored = _visible(connection, now_ms, ids)
    latest: dict[str, JobRecord] = {}
    answers = []
    for job_id in ids:
        if job_id not in stored:
            answers.append(Change.UNKNOWN)
            continue
        change, latest[job_id] = step(latest.get(job_id, stored[job_id][1]))
        answers.append(change)
    batch = Batch(now_ms)
    for job_id, record in latest.items():
        seq, before = stored[job_id]
        if record is not before:
            batch.replace(seq, before, record)
    batch.flush(connection)
    return answers


def _visible(
    connection: sqlite3.Connection, now_ms: int, ids: Sequence[str]
) -> dict[str, tuple[int, JobRecord]]:
    found = connection.execute(_VISIBLE, (codec.encode(list(ids)).decode(), now_ms)).fetchall()
    return {job_id: (seq, rows.read(*columns)) for job_id, seq, *columns in found}
