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
from itertools import groupby

from msgspec.structs import replace

from mrq_core.clock import Clock
from mrq_core.contract import codec
from mrq_core.contract.matching import check_group
from mrq_core.contract.messages import Action, Applied, ChangeResult, JobFilter, Order, Page
from mrq_core.contract.naming import check_page_cursor
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import encoding
from mrq_core.embedded.jobs import changing, indexes, records, totals
from mrq_core.embedded.jobs.conditions import Condition, condition
from mrq_core.embedded.jobs.indexes import Range, Source
from mrq_core.embedded.server.connection import Database

MAX_SECONDS = 0.25
BATCH = 500
"""How many candidates are read at once, from all streams together."""

_GET = f"""
SELECT id, params, {records.COLUMNS} FROM jobs
WHERE id IN (SELECT value FROM json_each(?)) AND (expires_ms IS NULL OR expires_ms > ?)"""
_CANDIDATES = """
SELECT {range.id}, CASE WHEN {condition} THEN {params} END FROM {range.tables}
WHERE {range.condition} AND {position}"""
_POSITION = {
    Order.NEWEST_FIRST: "{range.id} < ? ORDER BY {range.id} DESC LIMIT ?",
    Order.OLDEST_FIRST: "{range.id} > ? ORDER BY {range.id} LIMIT ?",
}
_START = {Order.NEWEST_FIRST: "\U0010ffff", Order.OLDEST_FIRST: ""}
_EXPIRED = "jobs INDEXED BY jobs_by_expiry WHERE expires_ms <= ? AND"
_BY_IDS = "id IN (SELECT value FROM json_each(?))"
_COUNT = "SELECT {group}, count(*) FROM {source} {condition} GROUP BY 1"
_ROWS = "SELECT {group}, {params} FROM {source} {condition}"
_WITH_ERROR = " AND exception_type IS NOT NULL"
_GROUPS = {
    None: "''",
    "status": "status",
    "path": "path",
    "queue": "queue",
    "worker": "worker",
    "exception_type": "exception_type",
    "error_group": "record",
}
_OF_ERRORS = ("exception_type", "error_group")


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
    """See `Broker.count`. Adds totals where they answer it, and counts only the expired jobs."""
    check_group(group_by)
    now_ms = clock.now_ms()
    numbers: dict[str, int] = {} if group_by else {"": 0}
    totalled = totals.count(connection, wanted, group_by)
    if totalled is None:
        source = indexes.source(connection, wanted, only_errors=group_by in _OF_ERRORS)
        numbers.update(_counted(connection, wanted, group_by, source, condition(wanted, now_ms)))
        return numbers
    numbers.update(totalled)
    expired = _counted(connection, wanted, group_by, Source(_EXPIRED, (now_ms,)), condition(wanted, None))
    for group, number in expired.items():
        numbers[group] -= number
    return {group: number for group, number in numbers.items() if number or not group_by}


def _counted(
    connection: sqlite3.Connection, wanted: JobFilter, group_by: str | None, source: Source, where: Condition
) -> dict[str, int]:
    """The numbers of jobs of the source for which the condition holds. Jobs without a value are left out."""
    group, restriction = _GROUPS[group_by], where.sql
    if group_by in _OF_ERRORS:
        restriction += _WITH_ERROR
    values = (*source.values, *where.values)
    if not wanted.params and group_by != "error_group":
        sql = _COUNT.format(group=group, source=source.sql, condition=restriction)
        return {name: number for name, number in connection.execute(sql, values) if name is not None}
    numbers: dict[str, int] = {}
    sql = _ROWS.format(
        group=group, params="params" if wanted.params else "NULL", source=source.sql, condition=restriction
    )
    for value, params in connection.execute(sql, values):
        name = encoding.decode(value).error_group if group_by == "error_group" else value
        if name is not None and (params is None or codec.has_values(codec.decode(params), wanted.params)):
            numbers[name] = numbers.get(name, 0) + 1
    return numbers


def _candidates(
    connection: sqlite3.Connection, wanted: JobFilter, now_ms: int, order: Order, cursor: str | None
) -> Iterator[tuple[str, bytes | None]]:
    """Ids in order, each with its params (or a 1 where they do not matter) if the other parts hold."""
    where = condition(wanted, now_ms)
    start = _START[order] if cursor is None else cursor
    ranges = _ranges(connection, wanted)
    size = max(BATCH // len(ranges), 20)

    def run(one: Range) -> Iterator[tuple[str, bytes | None]]:
        sql = _CANDIDATES.format(
            condition=where.sql,
            params="params" if wanted.params else "1",
            range=one,
            position=_POSITION[order].format(range=one),
        )
        position = start
        while True:
            found = connection.execute(sql, (*where.values, *one.values, position, size)).fetchall()
            yield from found
            if len(found) < size:
                return
            position = found[-1][0]

    if len(ranges) == 1:
        return run(ranges[0])
    merged = heapq.merge(*map(run, ranges), key=_id_of, reverse=order is Order.NEWEST_FIRST)
    return (next(same) for _, same in groupby(merged, key=_id_of))


def _ranges(connection: sqlite3.Connection, wanted: JobFilter) -> list[Range]:
    """Where to look: by id, or in the index that serves the filter best."""
    if wanted.ids:
        return [Range("jobs", _BY_IDS, (codec.encode(list(wanted.ids)).decode(),))]
    index = indexes.best(connection, wanted)
    return [Range("jobs", "1", ())] if index is None else index.ranges()


def _id_of(candidate: tuple[str, bytes | None]) -> str:
    return candidate[0]
