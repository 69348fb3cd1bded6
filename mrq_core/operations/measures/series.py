"""Metrics over time, as charts show them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime

import msgspec

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.contract.naming import is_covered
from mrq_core.contract.record import Status
from mrq_core.errors import InvalidValue, NotSupported, shown
from mrq_core.operations.measures.task_history import Values
from mrq_core.operations.queries.query import FAILED
from mrq_core.operations.statistics import durations_of

MOST_POINTS = 1440
"""The most points of a series: a day of minutes, or 60 days of hours."""
FAILED_ENDS = frozenset(str(status) for status in FAILED)
"""The ends of attempts after which the job has failed."""
FINISHED = FAILED_ENDS | {str(Status.SUCCESS), str(Status.CANCEL)}
"""The ends of attempts after which the job does not run again."""


class Point(msgspec.Struct, frozen=True, kw_only=True):
    """The measurements of one minute or hour, which begins at `at`.

    `count` is their number, and `rate` the same per second of the whole minute or hour, or of its part that
    is over. `mean` and the percentiles are seconds, or the unit of the metric. None: there are no values.
    """

    at: datetime
    count: int
    rate: float
    mean: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


def series(
    broker: Broker,
    metric: str,
    *,
    queue: str | None = None,
    task: str | None = None,
    since: datetime,
    until: datetime,
    resolution: Resolution = Resolution.MINUTE,
) -> tuple[Point, ...]:
    """The points of a metric from `since` to `until`, also those without values, oldest first.

    `metric` is a name of `mrq_core.contract.metrics`. `queue` may be a tree. Metrics of further queues and
    tasks of a worker, without names, count only where neither is given. The cost grows with the number of
    roll-ups of all queues and tasks in this time. Raises InvalidValue for more than 1,440 points.
    """
    start, now = resolution.start_of(since), broker.now()
    number = max(0, math.ceil((until - start).total_seconds() / resolution.seconds))
    if number > MOST_POINTS:
        raise InvalidValue(
            f"since is {since.isoformat()} and until {until.isoformat()}, {number:,} points by "
            f"{resolution}: expected at most {MOST_POINTS:,}",
            path="since",
        )
    times = [after(start, float(index * resolution.seconds)) for index in range(number)]
    metrics = read_roll_ups(broker, [metric], times, resolution)
    sums = {at: Values() for at in times}
    for one in metrics:
        values = sums.get(one.at)
        if values is not None and _is_wanted(one, queue, task):
            values.add(one.count, one.total, one.buckets)
    return points_of(list(sums.values()), times, resolution, now)


def times_of(now: datetime, resolution: Resolution, number: int) -> list[datetime]:
    """The beginnings of the last minutes or hours, oldest first; the last one is not over. Raises
    InvalidValue for a number outside 1 to 1,440."""
    if not 1 <= number <= MOST_POINTS:
        raise InvalidValue(f"number is {shown(number)}: expected 1 to {MOST_POINTS:,}", path="number")
    last = resolution.start_of(now)
    return [after(last, -float(index * resolution.seconds)) for index in range(number - 1, -1, -1)]


def read_roll_ups(
    broker: Broker, names: Sequence[str], times: Sequence[datetime], resolution: Resolution
) -> list[Metric]:
    """The roll-ups that begin at these times, in one read. Empty for a broker without metrics."""
    if not times:
        return []
    try:
        return broker.read_metrics(names, times[0], after(times[-1], 0.001), resolution)
    except NotSupported:
        return []


def points_of(
    sums: Sequence[Values], times: Sequence[datetime], resolution: Resolution, now: datetime
) -> tuple[Point, ...]:
    """The points of the sums at these times."""
    return tuple(_point(at, values, resolution, now) for at, values in zip(times, sums, strict=True))


def _point(at: datetime, values: Values, resolution: Resolution, now: datetime) -> Point:
    seconds = min(float(resolution.seconds), max(1.0, (now - at).total_seconds()))
    found = durations_of(values.buckets, values.count, values.total)
    return Point(
        at=at,
        count=values.count,
        rate=values.count / seconds,
        mean=values.total / values.count if values.count else None,
        p50=found.p50 if found is not None else None,
        p95=found.p95 if found is not None else None,
        p99=found.p99 if found is not None else None,
    )


def _is_wanted(metric: Metric, queue: str | None, task: str | None) -> bool:
    tags = dict(metric.tags)
    if queue is not None and not is_covered(tags.get("queue", ""), (queue,)):
        return False
    return task is None or tags.get("task") == task
