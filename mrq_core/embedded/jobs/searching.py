"""Finding jobs: through the index that serves the filter best, in the order of ids, within a bounded time.

Candidates are read in batches from one index, and the whole filter is tested on each. However
rare the matches are, the time of a call is therefore bounded, and it is known how far it came.
"""

from __future__ import annotations

import heapq
import math
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from mrq_core.clock import Clock
from mrq_core.contract import codec
from mrq_core.contract.matching import check_group
from mrq_core.contract.messages import Action, Applied, ChangeResult, JobFilter, Order, Page
from mrq_core.contract.naming import check_page_cursor
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import encoding
from mrq_core.embedded.jobs import changing, records
from mrq_core.embedded.jobs.conditions import condition, served_by
from mrq_core.embedded.server.connection import Database

MAX_SECONDS = 0.25
BATCH = 500
"""How many candidates are read at once, from all streams together."""

_GET = f"""
SELECT id, params, {records.COLUMNS} FROM jobs
WHERE id IN (SELECT value FROM json_each(?)) AND (expires_ms IS NULL OR expires_ms > ?)"""
_TOTAL = {
    "status": "SELECT sum(n) FROM totals WHERE kind = 'queue' AND status IN (SELECT value FROM json_each(?))",
    "queue": "SELECT sum(n) FROM totals WHERE kind = 'queue' AND name IN (SELECT value FROM json_each(?))",
    "path": "SELECT sum(n) FROM totals WHERE kind = 'path' AND name IN (SELECT value FROM json_each(?))",
}
_CANDIDATES = "SELECT id, CASE WHEN {condition} THEN {params} END FROM jobs WHERE {driving} AND {range}"
_RANGE = {
    Order.NEWEST_FIRST: "id < ? ORDER BY id DESC LIMIT ?",
    Order.OLDEST_FIRST: "id > ? ORDER BY id LIMIT ?",
}
_START = {Order.NEWEST_FIRST: "\U0010ffff", Order.OLDEST_FIRST: ""}
_BY_IDS = "id IN (SELECT value FROM json_each(?))"
_DRIVING = {
    "status": "status = ?",
    "path": "path = ?",
    "queue": "queue = ?",
    "exception_type": "exception_type = ?",
    "schedule": "schedule = ?",
}
_COUNT = "SELECT {group}, count(*) FROM jobs WHERE {condition} GROUP BY 1"
_COUNT_PARAMS = "SELECT {group}, params FROM jobs WHERE {condition}"
_GROUPS = {
    None: "''",
    "status": "status",
    "path": "path",
    "queue": "queue",
    "worker": "worker",
    "exception_type": "exception_type",
}


class _Stream(NamedTuple):
    """Candidates from one range of an index: the condition of the range, and its value."""

    sql: str
    values: tuple[object, ...]


def get(connection: sqlite3.Connection, clock: Clock, ids: Sequence[str]) -> list[JobRecord | None]:
    """See `Broker.get`."""
    values = (codec.encode(list(ids)).decode(), clock.now_ms())
    found = {
        job_id: encoding.with_params(records.read(*columns), params)
        for job_id, params, *columns in connection.execute(_GET, values)
    }
    return [found.get(job_id) for job_id in ids]


def find(
    connection: sqlite3.Connection,
    clock: Clock,
    wanted: JobFilter,
    *,
    order: Order,
    cursor: str | None,
    limit: int,
    bounded: bool = True,
) -> Page:
    """See `Broker.find`. Not `bounded`: however long it takes, for a filter with few ids."""
    check_page_cursor(cursor)
    deadline = time.monotonic() + MAX_SECONDS if bounded else math.inf
    hits: list[str] = []
    last, stopped, more = cursor, False, False
    candidates = _candidates(connection, wanted, clock.now_ms(), order, cursor)
    for number, (job_id, params) in enumerate(candidates):
        if params is not None and (
            not wanted.params or codec.has_values(codec.decode(params), wanted.params)
        ):
            if len(hits) == limit:
                more = True
                break
            hits.append(job_id)
        last = job_id
        if number % 64 == 63 and time.monotonic() > deadline:
            stopped = True
            break
    records = tuple(record for record in get(connection, clock, hits) if record is not None)
    return Page(
        records=records, cursor=last if more or stopped else None, searched_until=last if stopped else None
    )


def apply(
    database: Database,
    clock: Clock,
    wanted: JobFilter,
    action: Action,
    *,
    limit: int,
    cursor: str | None,
) -> Applied:
    """See `Broker.apply`. Looks without the lock; under it, acts on those that still match."""
    page = database.read(
        lambda connection: find(
            connection, clock, wanted, order=Order.OLDEST_FIRST, cursor=cursor, limit=limit
        )
    )
    ids = tuple(record.id for record in page.records)

    def work(connection: sqlite3.Connection) -> list[ChangeResult]:
        still = find(
            connection,
            clock,
            replace(wanted, ids=ids),
            order=Order.OLDEST_FIRST,
            cursor=None,
            limit=len(ids),
            bounded=False,
        )
        return changing.change(connection, clock, [record.id for record in still.records], action)

    made = database.write(work, durable=True) if ids else []
    numbers: dict[ChangeResult, int] = {}
    for change in made:
        numbers[change] = numbers.get(change, 0) + 1
    return Applied(matched=len(made), changes=numbers, cursor=page.cursor)


def count(
    connection: sqlite3.Connection, clock: Clock, wanted: JobFilter, group_by: str | None
) -> dict[str, int]:
    """See `Broker.count`."""
    check_group(group_by)
    where = condition(wanted, clock.now_ms())
    numbers: dict[str, int] = {} if group_by else {"": 0}
    if not wanted.params:
        sql = _COUNT.format(group=_GROUPS[group_by], condition=where.sql)
        numbers.update(connection.execute(sql, where.values))
    else:
        sql = _COUNT_PARAMS.format(group=_GROUPS[group_by], condition=where.sql)
        for group, params in connection.execute(sql, where.values):
            if codec.has_values(codec.decode(params), wanted.params):
                numbers[group] = numbers.get(group, 0) + 1
    numbers.pop(None, None)  # type: ignore[call-overload]  # jobs without a worker, or without an exception
    return numbers


def _candidates(
    connection: sqlite3.Connection, wanted: JobFilter, now_ms: int, order: Order, cursor: str | None
) -> Iterator[tuple[str, bytes | None]]:
    """Ids in order, each with its params (or a 1 where they do not matter) if the other parts hold."""
    where = condition(wanted, now_ms)
    start = _START[order] if cursor is None else cursor
    streams = _streams(connection, wanted)
    size = max(BATCH // len(streams), 20)

    def run(stream: _Stream) -> Iterator[tuple[str, bytes | None]]:
        sql = _CANDIDATES.format(
            condition=where.sql,
            params="params" if wanted.params else "1",
            driving=stream.sql,
            range=_RANGE[order],
        )
        position = start
        while True:
            found = connection.execute(sql, (*where.values, *stream.values, position, size)).fetchall()
            yield from found
            if len(found) < size:
                return
            position = found[-1][0]

    if len(streams) == 1:
        return run(streams[0])
    return heapq.merge(*map(run, streams), key=_id_of, reverse=order is Order.NEWEST_FIRST)


def _streams(connection: sqlite3.Connection, wanted: JobFilter) -> list[_Stream]:
    """Where to look: by id, or in the index in which the filter's values have the fewest jobs."""
    if wanted.ids:
        return [_Stream(_BY_IDS, (codec.encode(list(wanted.ids)).decode(),))]
    served = served_by(wanted)
    if not served:
        return [_Stream("1", ())]
    column, values = min(served, key=lambda one: _jobs_in(connection, *one))
    return [_Stream(_DRIVING[column], (value,)) for value in values]


def _jobs_in(connection: sqlite3.Connection, column: str, values: Sequence[str]) -> int:
    if column not in _TOTAL:
        return 0  # exception types and schedules are rare
    (number,) = connection.execute(_TOTAL[column], (codec.encode(list(values)).decode(),)).fetchone()
    return number or 0


def _id_of(candidate: tuple[str, bytes | None]) -> str:
    return candidate[0]
