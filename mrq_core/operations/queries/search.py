"""Finds and counts the jobs of a query, within a bounded time."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import InvalidValue, shown
from mrq_core.ids import seconds_of
from mrq_core.operations.queries.query import SearchQuery

SECONDS = 0.25
"""The time of one search or count."""
_SCAN_SECONDS = 0.25
"""The longest time of one `Broker.find`."""
_BATCH = 100
"""Jobs that one step reads to examine conditions."""
_RECENT_SUCCESSES = 20
"""The successes of a task, newest first by creation, among which the last to end is sought."""


class SearchPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of matching jobs.

    `cursor` continues the search; None: there are no more jobs. `searched_until` is the id at which the
    time ran out, and `searched_back_to` the time at which that job was created; None: the page is full, or
    the search is complete.
    """

    records: tuple[JobRecord, ...]
    cursor: str | None
    searched_until: str | None = None
    searched_back_to: datetime | None = None


class StatusCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of matching jobs by status. `is_complete` is False if the time ran out: the numbers are
    minimums."""

    numbers: Mapping[Status, int]
    is_complete: bool = True


def search(
    broker: Broker,
    query: SearchQuery,
    *,
    cursor: str | None = None,
    limit: int = 50,
    order: Order = Order.NEWEST_FIRST,
    seconds: float = SECONDS,
) -> SearchPage:
    """A page of the jobs of a query, by id.

    Paging by cursor shows each job that matches throughout exactly once. The page may have fewer jobs than
    `limit`, or none, and still a cursor: then `seconds` were over. The call takes at most `seconds`, or one
    `Broker.find` if that is longer (250 ms). Raises InvalidValue for a malformed cursor, and for a `limit`
    outside 1 to 1,000.
    """
    if not 1 <= limit <= CHUNK:
        raise InvalidValue(f"limit is {shown(limit)}: expected 1 to {CHUNK:,}", path="limit")
    if not query.has_conditions:
        page = broker.find(query.filter, order=order, cursor=cursor, limit=limit)
        return _page(page.records, page.cursor, page.searched_until)
    found: list[JobRecord] = []
    for step in _steps(broker, query, query.filter, cursor, order, seconds):
        room = limit - len(found)
        found += step.matching[:room]
        if len(step.matching) > room:
            return _page(found, found[-1].id, None)
        if step.cursor is None:
            return _page(found, None, None)
        cursor, until = step.cursor, step.searched_until
        if len(found) == limit:
            return _page(found, cursor, None)
    return _page(found, cursor, until or cursor)


def counts_by_status(broker: Broker, query: SearchQuery, *, seconds: float = SECONDS) -> StatusCounts:
    """The numbers of jobs by status that match the query without its parts ``status``: those of tabs.

    Totals answer for queues, paths, error types and error groups at once; see `Broker.count`. Otherwise jobs
    are counted one by one for at most 250 ms, newest first where the query has conditions.
    """
    wanted = query.tab_filter
    if not query.has_conditions:
        counted = broker.count(wanted, "status")
        numbers = {Status(status): number for status, number in counted.numbers.items() if number}
        return StatusCounts(numbers=numbers, is_complete=counted.is_complete)
    found: Counter[Status] = Counter()
    cursor: str | None = ""
    for step in _steps(broker, query, wanted, None, Order.NEWEST_FIRST, seconds):
        found.update(record.status for record in step.matching)
        cursor = step.cursor
    return StatusCounts(numbers=dict(found), is_complete=cursor is None)


KnownSuccesses = dict[str, tuple[float, datetime | None]]
"""By the path of the task: when it was read, by the monotonic clock, and the time of the last success."""


class LastSuccesses:
    """The times at which tasks last succeeded, read when they are first needed, and again when `seconds` are
    over. `known` is what was read before, for a process that asks often."""

    def __init__(
        self, broker: Broker, known: KnownSuccesses | None = None, *, seconds: float = math.inf
    ) -> None:
        self._broker = broker
        self._seconds = seconds
        self._known = {} if known is None else known

    def of(self, path: str) -> datetime | None:
        """The end of the last success of a task. None: no stored job of the task has succeeded.

        The latest end among the 20 successes that were created last: an older job that was requeued and
        succeeded after them is left out. One `Broker.find` by an index.
        """
        known = self._known.get(path)
        if known is None or monotonic() - known[0] > self._seconds:
            wanted = JobFilter(paths=(path,), statuses=(Status.SUCCESS,))
            page = self._broker.find(wanted, limit=_RECENT_SUCCESSES)
            ends = [record.ended_at for record in page.records if record.ended_at is not None]
            known = self._known[path] = (monotonic(), max(ends, default=None))
        return known[1]

    def has_read(self, path: str) -> bool:
        """Whether `of` answers without a read."""
        return path in self._known

    def is_still_failing(self, record: JobRecord) -> bool:
        """Whether the task of a failed job has had no success since the job ended."""
        success = self.of(record.path)
        return record.ended_at is not None and (success is None or success <= record.ended_at)


class _Step(msgspec.Struct, frozen=True, kw_only=True):
    """The matching jobs of one read, and where the next read continues."""

    matching: list[JobRecord]
    cursor: str | None
    searched_until: str | None


def _steps(
    broker: Broker, query: SearchQuery, wanted: JobFilter, cursor: str | None, order: Order, seconds: float
) -> Iterator[_Step]:
    """Reads jobs and examines the conditions, until there are no more jobs or the next read would not end in
    time. Reads at least once."""
    begin, now = monotonic(), broker.now()
    successes = LastSuccesses(broker)
    may_scan = bool(wanted.params or wanted.workers or wanted.since or wanted.until)
    while True:
        started = monotonic()
        page = broker.find(wanted, order=order, cursor=cursor, limit=_BATCH)
        cursor, until = page.cursor, page.searched_until
        matching = [record for record in page.records if query.allows(record, now)]
        if query.is_still_failing:
            matching, last = _still_failing(matching, successes, begin + seconds)
            if last is not None:
                cursor = until = last
        yield _Step(matching=matching, cursor=cursor, searched_until=until)
        ended = monotonic()
        next_seconds = max(2 * (ended - started), _SCAN_SECONDS if may_scan else 0.0)
        if cursor is None or until is not None or ended - begin + next_seconds > seconds:
            return


def _still_failing(
    records: Sequence[JobRecord], successes: LastSuccesses, deadline: float
) -> tuple[list[JobRecord], str | None]:
    """The jobs whose tasks are still failing; and the id of the last examined job, if the time was over
    before all were examined. Examines at least the first."""
    found: list[JobRecord] = []
    for index, record in enumerate(records):
        if index and not successes.has_read(record.path) and monotonic() > deadline:
            return found, records[index - 1].id
        if successes.is_still_failing(record):
            found.append(record)
    return found, None


def _page(
    records: list[JobRecord] | tuple[JobRecord, ...], cursor: str | None, until: str | None
) -> SearchPage:
    return SearchPage(
        records=tuple(records),
        cursor=cursor,
        searched_until=until,
        searched_back_to=None if until is None else datetime.fromtimestamp(seconds_of(until), UTC),
    )
