"""Finds and counts jobs through the indexes that serve the filter.

A search reads candidates in batches from one index, in the order of ids, and tests the whole filter on each.
However rare the matches are, the time of a call is bounded, and the answer says how far the search got.
"""

from __future__ import annotations

import heapq
import math
import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby

from msgspec.structs import replace

from mrq_core.clock import Clock, monotonic
from mrq_core.contract import codec
from mrq_core.contract.matching import check_group
from mrq_core.contract.messages import Action, Applied, ChangeResult
from mrq_core.contract.naming import check_page_cursor
from mrq_core.contract.queries import Counted, JobFilter, Order, Page
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import encoding
from mrq_core.drivers.pacing import Pace
from mrq_core.embedded.jobs import changing, indexes, records, totals
from mrq_core.embedded.jobs.conditions import LISTED, Condition, condition
from mrq_core.embedded.jobs.indexes import Entries, Index, Span
from mrq_core.embedded.server.connection import Database

MAX_SECONDS = 0.25
BATCH = 500
"""The largest number of candidates that are read at once, from all ranges together."""
FIRST_BATCH, GROWTH = 20, 5
"""The smallest first batch, and the factor from each batch to the next: most searches for one job end with
their first candidate."""
MOST_EXPIRED = 10_000
"""With more expired jobs, which totals and indexes still have, jobs are counted one by one."""
MOST_SEEKS = 10
"""The largest number of values for which a candidate is sought in the index of a column, not in its row."""

_GET = f"""
SELECT params, {records.COLUMNS} FROM jobs
WHERE id IN (SELECT value FROM json_each(?)) AND (expires_ms IS NULL OR expires_ms > ?)"""
_CANDIDATES = """
SELECT {range.id},
       CASE WHEN {others} THEN (SELECT {params} FROM jobs WHERE {range.row} AND {condition}) END
FROM {range.tables} WHERE {range.sql} AND {position}"""
_POSITION = {
    Order.NEWEST_FIRST: "{range.id} < ? ORDER BY {range.id} DESC LIMIT ?",
    Order.OLDEST_FIRST: "{range.id} > ? ORDER BY {range.id} LIMIT ?",
}
_START = {Order.NEWEST_FIRST: "\U0010ffff", Order.OLDEST_FIRST: ""}
_WITH_IDS = f"listed.id {LISTED}"
_COUNT = "SELECT {group}, count(*) FROM {jobs} AND {condition} GROUP BY 1"
_ROWS = "SELECT jobs.id, {group}, {params} FROM {jobs} AND {condition}"
_EXPIRED = """
SELECT count(*) FROM (SELECT 1 FROM jobs INDEXED BY jobs_by_expiry WHERE expires_ms <= ? LIMIT ?)"""
_EXPIRED_JOBS = """
jobs INDEXED BY jobs_by_expiry WHERE expires_ms <= ? AND jobs.id > ? AND jobs.id <= ? AND {inside}"""
_END_OF_PART = """
SELECT {range.id} FROM {range.tables} WHERE {range.sql} AND {range.id} > ?
ORDER BY {range.id} LIMIT 1 OFFSET ?"""
_WITH_ERROR = " AND jobs.exception_type IS NOT NULL"
_GROUPS = {
    None: "''",
    "status": "jobs.status",
    "path": "jobs.path",
    "queue": "jobs.queue",
    "worker": "jobs.worker",
    "exception_type": "jobs.exception_type",
    "error_group": "jobs.record",
}
_OF_ERRORS = ("exception_type", "error_group")


def get(connection: sqlite3.Connection, clock: Clock, ids: Sequence[str]) -> list[JobRecord | None]:
    """See `Broker.get`."""
    values = (codec.encode(list(ids)).decode(), clock.now_ms())
    found = {
        columns[0]: encoding.with_params(records.read(*columns), params)
        for params, *columns in connection.execute(_GET, values)
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
    """See `Broker.find`. `bounded` of False: without a limit of time, for a filter with few ids."""
    check_page_cursor(cursor)
    deadline = monotonic() + MAX_SECONDS if bounded else math.inf
    hits: list[str] = []
    last, stopped, more = cursor, False, False
    candidates = _candidates(connection, wanted, clock.now_ms(), order, cursor, limit + 1)
    for number, (job_id, params) in enumerate(candidates):
        if params is not None and (not wanted.params or encoding.has_values(params, wanted.params)):
            if len(hits) == limit:
                more = True
                break
            hits.append(job_id)
        last = job_id
        if number % 64 == 63 and monotonic() > deadline:
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
    """See `Broker.apply`. Finds jobs without the lock, and acts under the lock on those that still match."""
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
    connection: sqlite3.Connection, clock: Clock, wanted: JobFilter, group_by: str | None, cursor: str | None
) -> Counted:
    """See `Broker.count`. Uses totals or index entries alone where possible, less the expired jobs."""
    check_group(group_by)
    check_page_cursor(cursor)
    pace, now_ms = Pace(), clock.now_ms()
    (expired,) = connection.execute(_EXPIRED, (now_ms, MOST_EXPIRED)).fetchone()
    if cursor is None and expired < MOST_EXPIRED:
        numbers = totals.count(connection, wanted, group_by)
        if numbers is not None:
            span = (_START[Order.OLDEST_FIRST], _START[Order.NEWEST_FIRST])
            return Counted(numbers=_without_expired(connection, wanted, group_by, numbers, now_ms, span))
    uses_entries = group_by is None and expired < MOST_EXPIRED and indexes.has_index(wanted)
    index, others = _counted_index(connection, wanted, group_by)
    if wanted.queues and not any(one.name == "queue" for one in (index, *others) if one is not None):
        uses_entries = False  # a tree is too large for its index
    if index is None or wanted.ids:
        uses_entries = False
    numbers = {} if group_by else {"": 0}
    start = at = cursor or _START[Order.OLDEST_FIRST]
    pace.begin_part()
    while True:
        end = None if wanted.ids else _end_of_part(connection, index, at, pace.size)
        span = (at, end or _START[Order.NEWEST_FIRST])
        if uses_entries and index is not None:
            found = indexes.count(connection, index, others, span)
        else:
            jobs = _jobs(wanted, index, others, span)
            found = _counted(connection, wanted, group_by, jobs, condition(wanted, now_ms))
        for name, number in found.items():
            numbers[name] = numbers.get(name, 0) + number
        at = span[1]
        if end is None or not pace.goes_on():
            break
    if uses_entries:
        numbers = _without_expired(connection, wanted, group_by, numbers, now_ms, (start, at))
    return Counted(numbers=numbers, cursor=end)


def _counted_index(
    connection: sqlite3.Connection, wanted: JobFilter, group_by: str | None
) -> tuple[Index | None, list[Index]]:
    """The index whose entries are counted, and the other indexes that must have a matching job. None: all
    jobs are counted."""
    if wanted.ids:
        return None, indexes.of_terms(wanted)
    found = indexes.serving(connection, wanted)
    raised = indexes.with_errors(connection, found) if group_by in _OF_ERRORS else None
    if raised is not None:
        return raised, found
    return (found[0], found[1:]) if found else (None, [])


def _end_of_part(connection: sqlite3.Connection, index: Index | None, after: str, size: int) -> str | None:
    """The last id of the next part, which has up to `size` entries of the index. None: the rest is
    smaller."""
    ranges = [indexes.ALL] if index is None else index.ranges()
    ends = []
    for one in ranges:
        sql = _END_OF_PART.format(range=one)
        row = connection.execute(sql, (*one.values, after, size // len(ranges))).fetchone()
        if row is not None:
            ends.append(row[0])
    return min(ends, default=None)


def _without_expired(
    connection: sqlite3.Connection,
    wanted: JobFilter,
    group_by: str | None,
    numbers: dict[str, int],
    now_ms: int,
    span: Span,
) -> dict[str, int]:
    """The numbers without the jobs of these ids that have expired and are not deleted yet."""
    inside = indexes.inside(indexes.of_terms(wanted), "jobs.id")
    jobs = Condition(_EXPIRED_JOBS.format(inside=inside.sql), (now_ms, *span, *inside.values))
    left = dict(numbers)
    for group, number in _counted(connection, wanted, group_by, jobs, condition(wanted, None)).items():
        left[group] = max(0, left.get(group, 0) - number)
    return {group: number for group, number in left.items() if number} if group_by else {"": 0, **left}


def _jobs(wanted: JobFilter, index: Index | None, others: Sequence[Index], span: Span) -> Condition:
    """What follows FROM in a statement that reads all jobs of these ids to count, and maybe more."""
    if index is None:
        inside = indexes.inside(others, "jobs.id")
        sql = f"jobs WHERE jobs.id > ? AND jobs.id <= ? AND {inside.sql}"
        return Condition(sql, (*span, *inside.values))
    entries = index.entries(span)
    inside = indexes.inside(others, entries.id)
    sql = f"{entries.tables} CROSS JOIN jobs ON {entries.row} WHERE {entries.sql} AND {inside.sql}"
    return Condition(sql, (*entries.values, *inside.values))


def _counted(
    connection: sqlite3.Connection, wanted: JobFilter, group_by: str | None, jobs: Condition, where: Condition
) -> dict[str, int]:
    """The numbers of these jobs for which the condition holds. Jobs without a value are left out."""
    restriction = where.sql + (_WITH_ERROR if group_by in _OF_ERRORS else "")
    values = (*jobs.values, *where.values)
    if not wanted.params and group_by != "error_group":
        sql = _COUNT.format(group=_GROUPS[group_by], jobs=jobs.sql, condition=restriction)
        return {name: number for name, number in connection.execute(sql, values) if name is not None}
    numbers: dict[str, int] = {}
    params = "jobs.params" if wanted.params else "NULL"
    sql = _ROWS.format(group=_GROUPS[group_by], params=params, jobs=jobs.sql, condition=restriction)
    for job_id, value, encoded in connection.execute(sql, values):
        name = records.decode(job_id, value).error_group if group_by == "error_group" else value
        if name is not None and (encoded is None or encoding.has_values(encoded, wanted.params)):
            numbers[name] = numbers.get(name, 0) + 1
    return numbers


def _candidates(
    connection: sqlite3.Connection,
    wanted: JobFilter,
    now_ms: int,
    order: Order,
    cursor: str | None,
    needed: int,
) -> Iterator[tuple[str, bytes | None]]:
    """Ids in order, each with its params if the other parts of the filter hold, or a 1 without `params`.
    `needed`: the number of ids after which the caller may stop."""
    start = _START[order] if cursor is None else cursor
    ranges, others = _ranges(connection, wanted)
    largest = max(BATCH // len(ranges), FIRST_BATCH)
    where = condition(wanted, now_ms)  # once for all ranges: it may name thousands of queues

    def run(one: Entries) -> Iterator[tuple[str, bytes | None]]:
        sql, values = candidates_of(one, others, wanted, where, order)
        position, size = start, min(largest, max(needed, FIRST_BATCH))
        while True:
            found = connection.execute(sql, (*values, position, size)).fetchall()
            yield from found
            if len(found) < size:
                return
            position, size = found[-1][0], min(largest, size * GROWTH)

    if len(ranges) == 1:
        return run(ranges[0])
    merged = heapq.merge(*map(run, ranges), key=_id_of, reverse=order is Order.NEWEST_FIRST)
    return (next(same) for _, same in groupby(merged, key=_id_of))


def candidates_of(
    one: Entries, others: Sequence[Index], wanted: JobFilter, where: Condition, order: Order
) -> Condition:
    """The statement that reads candidates from a range, and tests the condition of the filter on each. The
    caller binds the last id and the number, too."""
    inside = indexes.inside(others, one.id)
    sql = _CANDIDATES.format(
        others=inside.sql,
        condition=where.sql,
        params="jobs.params" if wanted.params else "1",
        range=one,
        position=_POSITION[order].format(range=one),
    )
    return Condition(sql, (*inside.values, *where.values, *one.values))


def _ranges(connection: sqlite3.Connection, wanted: JobFilter) -> tuple[list[Entries], list[Index]]:
    """The ranges with all candidates, and the other indexes that must have a matching job."""
    if wanted.ids:
        with_ids = Entries("jobs AS listed", _WITH_IDS, (codec.encode([*wanted.ids]).decode(),))
        return [with_ids], indexes.of_terms(wanted)
    found = indexes.serving(connection, wanted)
    if not found:
        return [indexes.ALL], []
    others = [index for index in found[1:] if index.is_terms or len(index.values) <= MOST_SEEKS]
    return found[0].ranges(), others


def _id_of(candidate: tuple[str, bytes | None]) -> str:
    return candidate[0]
