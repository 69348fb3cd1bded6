"""Positions of waiting jobs in their queues, and the use of limit keys.

Jobs are counted in the index of entries, up to a bound. An index of slots by limit key would make claims
slower, so a bounded number of slots is examined.
"""

from __future__ import annotations

import sqlite3

from mrq_core.clock import Clock
from mrq_core.contract.messages import MOST_AHEAD, MOST_NAMED
from mrq_core.contract.queries import KeyUse, QueuePosition
from mrq_core.contract.record import PRIORITY_MAX, JobRecord
from mrq_core.embedded.jobs import limits, records

MOST_SLOTS = 10_000
"""The largest number of slots that is examined for each key."""

_JOB = (
    f"SELECT allowed_ms, {records.COLUMNS} FROM jobs WHERE id = ? AND (expires_ms IS NULL OR expires_ms > ?)"
)
_COUNT = "SELECT count(*) FROM (SELECT 1 FROM {} LIMIT ?)"
_ENTRIES = "jobs INDEXED BY jobs_entries WHERE queue = ? AND rank = ?"
_MORE_URGENT = _COUNT.format(f"{_ENTRIES} AND due_ms <= ?")
_EARLIER = _COUNT.format(f"{_ENTRIES} AND (due_ms, id) < (?, ?)")
_PARKED = "SELECT limit_key, rank, since_ms, due_ms, job_id FROM parked WHERE job_id = ?"
_LET_GO_EARLIER = _COUNT.format(
    "parked WHERE limit_key = ? AND (rank, since_ms, due_ms, job_id) < (?, ?, ?, ?)"
)
_PARKED_UNDER = _COUNT.format("parked WHERE limit_key = ?")
_WAITERS = """
SELECT job_id FROM parked WHERE limit_key = ? ORDER BY rank, since_ms, due_ms, job_id LIMIT ?"""
_RUNNING = "SELECT n FROM running WHERE limit_key = ?"
_SLOTS = "(SELECT job_id, limit_key FROM slots INDEXED BY slots_by_end WHERE until_ms {} ? LIMIT ?)"
_EXPIRED = f"SELECT count(*) FROM {_SLOTS.format('<=')} WHERE limit_key = ?"
_HOLDERS = f"SELECT job_id FROM {_SLOTS.format('>')} WHERE limit_key = ? ORDER BY job_id LIMIT ?"


def position(connection: sqlite3.Connection, clock: Clock, job_id: str) -> QueuePosition | None:
    """See `Broker.queue_position`."""
    now_ms = clock.now_ms()
    row = connection.execute(_JOB, (job_id, now_ms)).fetchone()
    if row is None:
        return None
    allowed_ms, *columns = row
    record = records.read(*columns)
    if not record.status.is_waiting or record.is_ended:
        return None
    parked = connection.execute(_PARKED, (job_id,)).fetchone()
    if parked is not None:
        ahead = _number(connection, _LET_GO_EARLIER, *parked)
    else:
        ahead = _due_before(connection, record, now_ms)
    is_pushed_back = allowed_ms is not None and allowed_ms > now_ms
    keys = dict.fromkeys([*record.limit_keys, *([] if parked is None else parked[:1])])
    return QueuePosition(
        ahead=min(ahead, MOST_AHEAD),
        is_exact=ahead <= MOST_AHEAD,
        due_at=record.due_at,
        parked_under=None if parked is None else parked[0],
        parked_since=None if parked is None else records.moment(parked[2]),
        allowed_at=records.moment(allowed_ms) if is_pushed_back else None,
        keys=tuple(_use_of(connection, key, now_ms) for key in keys),
    )


def _due_before(connection: sqlite3.Connection, record: JobRecord, now_ms: int) -> int:
    """The number of jobs of the queue that are claimed before this job, when this job is due."""
    due_ms = records.ms(record.due_at) or now_ms
    rank = -record.priority
    number = _number(connection, _EARLIER, record.queue, rank, due_ms, record.id)
    for other in range(-PRIORITY_MAX, rank):
        if number > MOST_AHEAD:
            break
        number += _number(connection, _MORE_URGENT, record.queue, other, max(now_ms, due_ms))
    return number


def _number(connection: sqlite3.Connection, statement: str, *values: object) -> int:
    """A count up to the first number that is too large to be exact."""
    (number,) = connection.execute(statement, (*values, MOST_AHEAD + 1)).fetchone()
    return int(number)


def _use_of(connection: sqlite3.Connection, key: str, now_ms: int) -> KeyUse:
    row = connection.execute(_RUNNING, (key,)).fetchone()
    (expired,) = connection.execute(_EXPIRED, (now_ms, MOST_SLOTS, key)).fetchone()
    holders = connection.execute(_HOLDERS, (now_ms, MOST_SLOTS, key, MOST_NAMED)).fetchall()
    waiters = connection.execute(_WAITERS, (key, MOST_NAMED)).fetchall()
    times = [rate.even_us for rate in limits.rates_of(connection, key)]
    return KeyUse(
        key=key,
        running=0 if row is None else row[0] - expired,
        holders=tuple(job_id for (job_id,) in holders),
        parked=min(_number(connection, _PARKED_UNDER, key), MOST_AHEAD),
        waiters=tuple(job_id for (job_id,) in waiters),
        even_at=None if not times else records.moment(-(-max(times) // 1000)),
    )
