"""Exceptions of jobs, grouped by task, type and raising frame.

The numbers are those of totals: jobs whose latest attempt raised. Workers count each raising attempt in the
metric `jobs.errors`, also those of jobs that have succeeded since.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.metrics import ERRORS, Metric, Resolution
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import InvalidValue, NotSupported, shown
from mrq_core.operations.queries.search import LastSuccesses

MOST = 50
"""The most groups of a page."""
HOURS = 24
"""The hours of a trend."""


class ErrorOrder(StrEnum):
    """The order of error groups: by the number of jobs, by the errors of the last hours, or by name."""

    NUMBER = "number"
    RECENT = "recent"
    NAME = "name"


class ErrorGroup(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs whose latest attempt raised one exception in one frame of one task.

    `numbers` counts them by status. `first_seen` and `last_seen` are the times of the oldest and of the
    newest job by creation, and `last_seen` is at least the beginning of the last hour in `trend` with errors.
    `sample_id` and `sample_message` are of the newest job. These are None if the jobs were removed meanwhile.
    `last_success` is a success of the task after `last_seen`; None: still failing. `trend` has the errors of
    each of the last 24 hours, the latest last, also those of jobs that have succeeded since.
    """

    group: str
    task: str
    exception_type: str
    frame: str
    numbers: Mapping[Status, int]
    first_seen: datetime | None
    last_seen: datetime | None
    sample_id: str | None
    sample_message: str | None
    last_success: datetime | None
    trend: tuple[int, ...]

    @property
    def number(self) -> int:
        """The number of jobs."""
        return sum(self.numbers.values())


class ErrorPage(msgspec.Struct, frozen=True, kw_only=True):
    """A page of error groups. `cursor` is the rank after the last group; None: there are no more groups.
    `total` is the number of all groups that match."""

    groups: tuple[ErrorGroup, ...]
    cursor: str | None
    total: int


def error_groups(
    broker: Broker,
    wanted_text: str = "",
    *,
    limit: int = MOST,
    order: ErrorOrder = ErrorOrder.RECENT,
    cursor: str | None = None,
    successes: LastSuccesses | None = None,
) -> ErrorPage:
    """The error groups that contain all words of `wanted_text`, in any case.

    Reads totals, the metric `jobs.errors` of 24 hours, and three times a few jobs of each group of the page
    by an index. Ranks move while jobs change: a later page may repeat or leave out a group. Raises
    InvalidValue for a `limit` outside 1 to 50, and for a malformed cursor. A process that asks often keeps
    `successes`.
    """
    if not 1 <= limit <= MOST:
        raise InvalidValue(f"limit is {shown(limit)}: expected 1 to {MOST}", path="limit")
    rank = _rank(cursor)
    words = wanted_text.casefold().split()
    totals = broker.totals().by_error_group
    names = [name for name in totals if all(word in name.casefold() for word in words)]
    now = broker.now()
    trends = _trends(broker, now)
    names.sort(key=_keys(order, totals, trends))
    successes = successes or LastSuccesses(broker)
    page = names[rank : rank + limit]
    return ErrorPage(
        groups=tuple(_group(broker, name, totals[name], trends.get(name), successes) for name in page),
        cursor=str(rank + limit) if rank + limit < len(names) else None,
        total=len(names),
    )


class _Trend:
    """The errors of one group in each hour."""

    def __init__(self) -> None:
        self.hours = [0] * HOURS
        self.last: datetime | None = None
        """The beginning of the last hour with errors."""


def _trends(broker: Broker, now: datetime) -> dict[str, _Trend]:
    start = Resolution.HOUR.start_of(after(now, -3600.0 * (HOURS - 1)))
    try:
        metrics: Iterable[Metric] = broker.read_metrics([ERRORS], start, after(now, 0.001), Resolution.HOUR)
    except NotSupported:
        metrics = ()
    trends: dict[str, _Trend] = {}
    for metric in metrics:
        group = dict(metric.tags).get("group")
        if group is not None:
            trend = trends.setdefault(group, _Trend())
            hour = int((metric.at - start).total_seconds() // 3600)
            if 0 <= hour < HOURS:
                trend.hours[hour] += metric.count
                trend.last = metric.at if trend.last is None else max(trend.last, metric.at)
    return trends


def _keys(
    order: ErrorOrder, totals: Mapping[str, Mapping[Status, int]], trends: Mapping[str, _Trend]
) -> Callable[[str], tuple[Any, ...]]:
    """The sort key of a group."""
    none = _Trend()

    def of(name: str) -> tuple[Any, ...]:
        number = -sum(totals[name].values())
        if order is ErrorOrder.NAME:
            return (name,)
        if order is ErrorOrder.NUMBER:
            return (number, name)
        latest = trends.get(name, none).hours[::-1]
        return ([-one for one in latest], number, name)

    return of


def _group(
    broker: Broker,
    name: str,
    numbers: Mapping[Status, int],
    trend: _Trend | None,
    successes: LastSuccesses,
) -> ErrorGroup:
    newest, oldest = (_job(broker, name, order) for order in (Order.NEWEST_FIRST, Order.OLDEST_FIRST))
    task, exception_type, frame = _split(name, newest)
    seen = [_raised_at(newest), trend.last if trend is not None else None]
    last_seen = max((moment for moment in seen if moment is not None), default=None)
    success = successes.of(task) if task else None
    return ErrorGroup(
        group=name,
        task=task,
        exception_type=exception_type,
        frame=frame,
        numbers={status: number for status, number in numbers.items() if number},
        first_seen=_raised_at(oldest),
        last_seen=last_seen,
        sample_id=newest.id if newest is not None else None,
        sample_message=newest.exception_message if newest is not None else None,
        last_success=success if success and last_seen and success > last_seen else None,
        trend=tuple(trend.hours) if trend is not None else (0,) * HOURS,
    )


def _job(broker: Broker, group: str, order: Order) -> JobRecord | None:
    records = broker.find(JobFilter(error_groups=(group,)), order=order, limit=1).records
    return records[0] if records else None


def _raised_at(record: JobRecord | None) -> datetime | None:
    return None if record is None else record.ended_at or record.updated_at


def _split(group: str, sample: JobRecord | None) -> tuple[str, str, str]:
    """Task, type and frame of a group. A long group is cut, so that the sample knows better."""
    task, _, rest = group.partition(" ")
    exception_type, _, frame = rest.partition(" ")
    if sample is not None:
        return sample.path, sample.exception_type or exception_type, frame
    return task, exception_type, frame


def _rank(cursor: str | None) -> int:
    if cursor is None:
        return 0
    if not (cursor.isascii() and cursor.isdigit() and len(cursor) < 10):
        raise InvalidValue(f"cursor is {shown(cursor)}: expected one that came with a page", path="cursor")
    return int(cursor)
