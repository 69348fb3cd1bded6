"""Changes by operators and rules: requeue, cancel, move, edit, remove, added search keys.

One transaction for a call.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from typing import TypeVar

from mrq_core.clock import Clock, from_ms
from mrq_core.contract import codec, lifecycle
from mrq_core.contract.messages import Action, AddedKeys, Cancel, ChangeResult, Edit, Remove, Requeue
from mrq_core.contract.record import JobRecord
from mrq_core.embedded.jobs import records, removing, uniques
from mrq_core.embedded.jobs.batch import Batch
from mrq_core.embedded.shared import signals

_VISIBLE = f"""
SELECT seq, {records.COLUMNS} FROM jobs
WHERE id IN (SELECT value FROM json_each(?)) AND (expires_ms IS NULL OR expires_ms > ?)"""


def change(
    connection: sqlite3.Connection, clock: Clock, ids: Sequence[str], action: Action
) -> list[ChangeResult]:
    """Applies the action to each job, in order. See `requeue`, `cancel`, `move` and `remove` of `Broker`."""
    now_ms = clock.now_ms()
    stored = _visible(connection, now_ms, ids)
    latest: dict[str, JobRecord | None] = {job_id: record for job_id, (_, record) in stored.items()}
    answers = []
    for job_id in ids:
        before = latest.get(job_id)
        if before is None:
            answers.append(ChangeResult.UNKNOWN)
            continue
        answer, after = lifecycle.changed(before, action, from_ms(now_ms))
        if answer is not ChangeResult.REFUSED and not _change_beside(
            connection, before, action, answer, now_ms
        ):
            answer, after = ChangeResult.HELD, before
        latest[job_id] = after
        answers.append(answer)
    batch = Batch(now_ms)
    deleted = []
    for job_id, (seq, record) in stored.items():
        after = latest[job_id]
        if after is None:
            deleted.append((seq, record))
        elif after is not record:
            batch.replace(seq, record, after)
    batch.flush(connection)
    if deleted:
        removing.delete(connection, deleted, now_ms)
    return answers


def edit(connection: sqlite3.Connection, clock: Clock, edits: Sequence[Edit]) -> list[ChangeResult]:
    """Edits waiting jobs, in order. See `Broker.edit`."""
    batch = Batch(clock.now_ms())
    now = from_ms(batch.now_ms)
    return _write_each(
        connection, batch, edits, lambda before, one: lifecycle.edited(before, one, now), batch.edit
    )


def add_search_keys(
    connection: sqlite3.Connection, clock: Clock, added: Sequence[AddedKeys]
) -> list[ChangeResult]:
    """Adds search keys to jobs, in order. See `Broker.add_search_keys`."""
    batch = Batch(clock.now_ms())
    return _write_each(
        connection,
        batch,
        added,
        lambda before, one: lifecycle.with_keys(before, one.search_keys),
        batch.replace,
    )


_Item = TypeVar("_Item", Edit, AddedKeys)


def _write_each(
    connection: sqlite3.Connection,
    batch: Batch,
    items: Sequence[_Item],
    changed: Callable[[JobRecord, _Item], JobRecord | None],
    write: Callable[[int, JobRecord, JobRecord], None],
) -> list[ChangeResult]:
    """Changes the job of each item, in order, and writes each job once. `changed` returns None to refuse."""
    stored = _visible(connection, batch.now_ms, [item.id for item in items])
    latest = {job_id: record for job_id, (_, record) in stored.items()}
    answers = []
    for item in items:
        before = latest.get(item.id)
        after = None if before is None else changed(before, item)
        if after is not None:
            latest[item.id] = after
            answers.append(ChangeResult.DONE)
        else:
            answers.append(ChangeResult.UNKNOWN if before is None else ChangeResult.REFUSED)
    for job_id, (seq, record) in stored.items():
        if latest[job_id] is not record:
            write(seq, record, latest[job_id])
    batch.flush(connection)
    return answers


def _change_beside(
    connection: sqlite3.Connection, before: JobRecord, action: Action, answer: ChangeResult, now_ms: int
) -> bool:
    """Changes the unique key and the signals of the job. False: another job holds the key."""
    match action:
        case Requeue():
            return before.unique_key is None or uniques.reserve_again(connection, before, now_ms)
        case Cancel() if answer is ChangeResult.DONE:
            uniques.released(connection, before)
        case Cancel(interrupt=True):
            signals.interrupt(connection, before)
        case Remove():
            uniques.removed(connection, before)
    return True


def _visible(
    connection: sqlite3.Connection, now_ms: int, ids: Sequence[str]
) -> dict[str, tuple[int, JobRecord]]:
    found = connection.execute(_VISIBLE, (codec.encode(list(ids)).decode(), now_ms)).fetchall()
    return {columns[0]: (seq, records.read(*columns)) for seq, *columns in found}
