"""Finding jobs: through the index that serves the filter best, in the order of ids, within a bounded time.

Each index is a sorted set in which all scores are 0, so that its members stand in the order of their names.
The names are ids, or the values of a term, each with an id. Candidates are read from it in batches, and the
whole filter is tested on each.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Sequence
from itertools import groupby, islice
from typing import Any, NamedTuple

from mrq_broker_redis.jobs import totals
from mrq_broker_redis.jobs.changing import Records
from mrq_broker_redis.server.connection import Connection
from mrq_core.clock import monotonic, to_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.matching import check_group, matches
from mrq_core.contract.messages import Action, Applied
from mrq_core.contract.naming import check_page_cursor, is_covered, is_tree
from mrq_core.contract.queries import Counted, JobFilter, Order, Page
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.terms import wanted_terms
from mrq_core.drivers import damage, encoding, replacing

MAX_SECONDS = 0.25
FIRST, LEAST, BATCH = 50, 10, 500
"""The numbers of candidates in one round trip: of the first, the smallest and the largest."""
SLOW = MAX_SECONDS / 10
"""The seconds above which a round trip with its candidates takes long, because their params are large."""
MOST_SEEKS = 10
"""The largest number of values whose indexes are asked for each candidate, before its job is read."""
MOST_MERGED = 50
"""The largest number of subqueues of a tree, and of error groups, whose indexes are merged."""
_GROUPS = {"queue": 0, "path": 1, "status": 2, "worker": 3, "exception_type": 4, "error_group": 9}


class _Candidate(NamedTuple):
    """A job of an index. `columns`: the answer of the script `columns`; None: the job is gone, or lacks a
    wanted term."""

    id: str
    columns: list[bytes | None] | None


class _Index(NamedTuple):
    """A sorted set, or those of its members that begin with the prefix. A member is an id, or a value, NUL
    and an id."""

    key: str
    prefix: bytes = b""

    @property
    def edges(self) -> tuple[bytes, bytes]:
        """The limits of its members, in the order of names. A prefix ends with NUL."""
        return (b"[" + self.prefix, b"(" + self.prefix[:-1] + b"\x01") if self.prefix else (b"-", b"+")


def get(connection: Connection, ids: Sequence[str]) -> list[JobRecord | None]:
    """See `Broker.get`."""
    now, stored = Records(connection).read(ids)
    return [None if one is None or lifecycle.has_expired(one.record, now) else one.record for one in stored]


def find(
    connection: Connection,
    wanted: JobFilter,
    *,
    order: Order,
    cursor: str | None,
    limit: int,
    bounded: bool = True,
) -> Page:
    """See `Broker.find`. Not `bounded`: without a limit of time, for a filter with few ids."""
    check_page_cursor(cursor)
    deadline = monotonic() + MAX_SECONDS if bounded else math.inf
    matcher = _Matcher(wanted)
    hits: list[str] = []
    last, stopped, more = cursor, False, False
    for batch in _candidates(connection, wanted, order, cursor):
        for candidate in batch:
            if matcher.matches(candidate):
                if len(hits) == limit:
                    more = True
                    break
                hits.append(candidate.id)
            last = candidate.id
        if more:
            break
        if monotonic() > deadline:
            stopped = True
            break
    found = tuple(record for record in get(connection, hits) if record is not None)
    return Page(
        records=found, cursor=last if more or stopped else None, searched_until=last if stopped else None
    )


def count(connection: Connection, wanted: JobFilter, group_by: str | None, cursor: str | None) -> Counted:
    """See `Broker.count`. Reads the jobs of the smallest index that serves the filter, if the totals do not
    have the numbers."""
    check_group(group_by)
    check_page_cursor(cursor)
    deadline = monotonic() + MAX_SECONDS
    if cursor is None:
        counted = totals.counted(connection, wanted, group_by)
        if counted is not None:
            return Counted(numbers=counted)
    matcher = _Matcher(wanted)
    numbers: dict[str, int] = {} if group_by else {"": 0}
    for batch in _candidates(connection, wanted, Order.OLDEST_FIRST, cursor, group_by):
        for candidate in batch:
            if candidate.columns is None or not matcher.matches(candidate):
                continue
            group = b"" if group_by is None else candidate.columns[_GROUPS[group_by]]
            if group is not None:
                numbers[group.decode()] = numbers.get(group.decode(), 0) + 1
        if monotonic() > deadline:
            return Counted(numbers=numbers, cursor=batch[-1].id)
    return Counted(numbers=numbers)


def apply(
    connection: Connection, wanted: JobFilter, action: Action, *, limit: int, cursor: str | None
) -> Applied:
    """See `Broker.apply`."""
    page = find(connection, wanted, order=Order.OLDEST_FIRST, cursor=cursor, limit=limit)
    return replacing.apply(Records(connection), page, action, lambda record: matches(record, wanted))


class _Matcher:
    """A filter, tested on the candidates of an index. The script has tested the terms."""

    def __init__(self, wanted: JobFilter) -> None:
        self._wanted = wanted
        self._ids = frozenset(wanted.ids)
        self._statuses = frozenset(str(status).encode() for status in wanted.statuses)
        self._paths, self._workers, self._schedules = (
            frozenset(name.encode() for name in names)
            for names in (wanted.paths, wanted.workers, wanted.schedules)
        )
        self._since = None if wanted.since is None else to_ms(wanted.since)
        self._until = None if wanted.until is None else to_ms(wanted.until)

    def matches(self, candidate: _Candidate) -> bool:
        """Whether the job exists and matches every part of the filter."""
        if candidate.columns is None or (self._ids and candidate.id not in self._ids):
            return False
        queue, path, status, worker, _, schedule, _, queued_ms, params, _ = candidate.columns
        queued = int(queued_ms or 0)
        return (
            (not self._statuses or status in self._statuses)
            and (not self._paths or path in self._paths)
            and (not self._wanted.queues or is_covered((queue or b"").decode(), self._wanted.queues))
            and (not self._workers or worker in self._workers)
            and (not self._schedules or schedule in self._schedules)
            and (self._since is None or queued >= self._since)
            and (self._until is None or queued < self._until)
            and (
                not self._wanted.params
                or encoding.has_values((params or b"")[4:] or b"{}", self._wanted.params)
            )
        )


def _candidates(
    connection: Connection, wanted: JobFilter, order: Order, cursor: str | None, group_by: str | None = None
) -> Iterator[list[_Candidate]]:
    """Batches of jobs, in order of their ids; expired jobs have no columns."""
    ids = _ids(connection, wanted, order, cursor, group_by)
    by_group = group_by == "error_group"
    terms = [list(part) for part in wanted_terms(wanted)]
    indexed = [part for part in _indexed(wanted) if len(part) <= MOST_SEEKS]
    if len(indexed) + len(terms) + bool(wanted.queues) == 1:
        indexed = []  # the candidates come from this index
    size = FIRST  # grows, because the first few often fill a page
    while batch := list(islice(ids, size)):
        began = monotonic()
        answer = connection.run(
            "columns", [batch, bool(wanted.params), by_group, terms, indexed], repeatable=True
        )
        now_ms = int(answer[0])
        yield [
            _Candidate(job_id, None if row is None or _has_expired(job_id, row, now_ms) else row)
            for job_id, row in zip(batch, islice(answer, 1, None), strict=True)
        ]
        is_slow = monotonic() - began > SLOW
        size = max(LEAST, size // 2) if is_slow else min(size * 2, BATCH)


def _has_expired(job_id: str, row: list[bytes | None], now_ms: int) -> bool:
    """Raises JobDamaged for an empty row."""
    try:
        expiry = row[6]
        return expiry is not None and int(expiry) <= now_ms
    except (LookupError, ValueError) as error:
        raise damage.damaged(job_id, "hash", error) from error


def _ids(
    connection: Connection, wanted: JobFilter, order: Order, cursor: str | None, group_by: str | None
) -> Iterator[str]:
    newest = order is Order.NEWEST_FIRST
    if wanted.ids:
        ids = sorted(set(wanted.ids), reverse=newest)
        return (
            job_id for job_id in ids if cursor is None or (job_id < cursor if newest else job_id > cursor)
        )
    streams = [_walk(connection, index, newest, cursor) for index in _indexes(connection, wanted, group_by)]
    if len(streams) == 1:
        return streams[0]
    # A job that has several of the terms, or changes its status meanwhile, is in several streams.
    return (job_id for job_id, _ in groupby(heapq.merge(*streams, reverse=newest)))


def _walk(connection: Connection, index: _Index, newest: bool, cursor: str | None) -> Iterator[str]:
    """The ids in an index, a batch at a time."""
    low, high = index.edges
    after = None if cursor is None else b"(" + index.prefix + cursor.encode()
    while True:
        if newest:
            command = ("ZREVRANGEBYLEX", index.key, after or high, low)
        else:
            command = ("ZRANGEBYLEX", index.key, after or low, high)
        found = connection.execute(*command, "LIMIT", 0, BATCH)
        yield from (member.rpartition(b"\0")[2].decode() for member in found)
        if len(found) < BATCH:
            return
        after = b"(" + found[-1]


def _indexes(connection: Connection, wanted: JobFilter, group_by: str | None) -> list[_Index]:
    """The indexes to search: those of the part of the filter with the fewest jobs, or of all jobs."""
    served = [
        [_Index(connection.key(f"i:{kind}:{name}")) for kind, name in part] for part in _indexed(wanted)
    ]
    queues = _queues(connection, wanted.queues) if wanted.queues else None
    if queues is not None:
        served.append([_Index(connection.key(f"i:q:{name}")) for name in queues])
    served += [
        [_Index(connection.key(f"i:t:{name}"), value.encode() + b"\0") for name, value in part]
        for part in wanted_terms(wanted)
    ]
    if group_by == "error_group":  # jobs without a group are not counted
        groups = totals.error_groups(connection)
        if len(groups) <= MOST_MERGED:
            key = connection.key("i:t:group")
            terms = [term for part in wanted_terms(JobFilter(error_groups=tuple(groups))) for term in part]
            served.append([_Index(key, value.encode() + b"\0") for _, value in terms])
    if not served:
        return [_Index(connection.key(f"i:s:{status}")) for status in Status]

    def sizes(client: Any) -> list[int]:
        pipeline = client.pipeline(transaction=False)
        for indexes in served:
            for index in indexes:
                pipeline.zlexcount(index.key, *index.edges)
        answers: list[int] = pipeline.execute()
        return answers

    numbers = iter(connection.use(sizes) if any(served) else ())
    measured = ((sum(islice(numbers, len(indexes))), indexes) for indexes in served)
    return min(measured, key=lambda pair: pair[0])[1]


def _indexed(wanted: JobFilter) -> list[list[tuple[str, str]]]:
    """The parts of the filter with an index for each value, by kind and value; without queues, for trees have
    no index."""
    parts = (
        ("y", wanted.schedules),
        ("s", [str(status) for status in wanted.statuses]),
        ("h", wanted.paths),
    )
    return [[(kind, name) for name in dict.fromkeys(names)] for kind, names in parts if names]


def _queues(connection: Connection, names: Sequence[str]) -> list[str] | None:
    """The queues, and the subqueues of the trees, each once. None: one of the trees is large."""
    queues: dict[str, None] = {}
    for name in names:
        subqueues = [name]
        if is_tree(name):
            subqueues = totals.queue_names(connection, name, "", MOST_MERGED + 1)
            if len(subqueues) > MOST_MERGED:
                return None
        queues |= dict.fromkeys(subqueues)
    return list(queues)
