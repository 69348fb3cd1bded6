"""The load of queues: what waits, how fast jobs come and go, and how many workers they need."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from mrq_core.clock import after, monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.metrics import (
    ENDED,
    LOST,
    STARTED,
    UNFINISHED,
    Metric,
    Resolution,
    added,
    percentile,
)
from mrq_core.contract.naming import check_served_name, is_covered, is_tree
from mrq_core.contract.queries import QueueCounts
from mrq_core.errors import InvalidValue, shown
from mrq_core.operations.queues import all_counts
from mrq_core.operations.workers import listening, workers_at_work

WINDOW = 300.0
"""Seconds over which rates and percentiles are taken."""
_DUE_MOST = 10_000
"""The number up to which brokers count due jobs, see `QueueCounts`."""
_UNFINISHED = frozenset({"retry", "interrupt", "queued"})
"""Ends of attempts after which the job runs again."""
_SHORTEST = 30.0
"""The seconds that a rate of arrival needs."""


class Durations(msgspec.Struct, frozen=True, kw_only=True):
    """Mean and percentiles of durations, in seconds; percentiles are within 9 %."""

    mean: float
    p50: float
    p95: float
    p99: float


def durations_of(buckets: Mapping[int, int], number: int, total: float) -> Durations | None:
    """Mean and percentiles of a histogram of durations, with their number and sum. None: it has no values."""
    p50, p95, p99 = (percentile(buckets, ratio) for ratio in (0.5, 0.95, 0.99))
    if p50 is None or p95 is None or p99 is None or not number:
        return None
    return Durations(mean=total / number, p50=p50, p95=p95, p99=p99)


class QueueStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """The load of a queue, or of a tree.

    Rates are jobs per second. `oldest_age` is the seconds for which the oldest due job has been due.
    `waiting_time` and `run_time` are of attempts; `ended` counts attempts by status. `usage` is the
    mean share of the greenlets of its workers that ran a job in the last minute. None: nothing to tell.
    """

    name: str
    waiting: int
    due: int
    claimed: int
    oldest_age: float | None
    arrival_rate: float | None
    service_rate: float
    waiting_time: Durations | None
    run_time: Durations | None
    ended: Mapping[str, int]
    lost_claims: int
    workers: int
    greenlets: int
    usage: float | None = None
    workers_needed: int | None

    @property
    def time_to_empty(self) -> float | None:
        """The seconds after which no job is due, if jobs come and go as before. None: their number does not
        fall."""
        if not self.due:
            return 0.0
        surplus = self.service_rate - (self.arrival_rate or 0.0)
        return self.due / surplus if surplus > 0 else None


def queue_statistics(
    broker: Broker,
    names: Sequence[str] = (),
    *,
    empty_in: float = 300.0,
    greenlets: int = 1,
    day: DayMeasurements | None = None,
) -> list[QueueStatistics]:
    """The load of these queues and trees, or of all queues, over the last WINDOW seconds.

    A job comes when it is enqueued or requeued, and goes when it has ended. The rate of arrival is the rate
    of service plus the growth of the number of unfinished jobs since the first sample in the window; jobs
    that are removed or cancelled unstarted lower it. Workers record metrics every few seconds, so
    both rates lag behind by that.

    The workers needed, to run all due jobs within `empty_in` seconds and those that come meanwhile::

        run_time.mean * (due / empty_in + arrival_rate) / greenlets of a worker, rounded up

    The mean run time is that of the last day where no attempt ended in the window. The greenlets of a worker
    are the mean of the workers that serve the queue, or `greenlets` where no worker does. Above 10,000, the
    due jobs are not counted, and all waiting jobs count as due.

    Costs a read of metrics that grows with the number of series in the window, and the counts of the queues.
    Raises InvalidValue for a bad name, or an `empty_in` that is not positive.
    """
    if not 0 < empty_in < math.inf:
        raise InvalidValue(
            f"empty_in is {shown(empty_in)}: expected a number of seconds above 0", path="empty_in"
        )
    names = [check_served_name(name) for name in names]
    now = broker.now()
    counts = _counts_of(broker, names)
    recent = _Measured(broker, after(now, -WINDOW), now, Resolution.MINUTE)
    day = day or DayMeasurements()
    reports = workers_at_work(broker)
    answers = []
    for name, its_counts in counts.items():
        run_time = recent.durations(ENDED, name)
        if run_time is None:
            run_time = day.of(broker, now).durations(ENDED, name)
        serving = listening(name, reports)
        slots = sum(report.greenlets for report in serving)
        arrival_rate = recent.arrival_rate(its_counts)
        due = sum(_due(one) for one in its_counts)
        oldest = min((one.oldest_due for one in its_counts if one.oldest_due is not None), default=None)
        answers.append(
            QueueStatistics(
                name=name,
                waiting=sum(one.waiting for one in its_counts),
                due=due,
                claimed=sum(one.claimed for one in its_counts),
                oldest_age=None if oldest is None else max(0.0, (now - oldest).total_seconds()),
                arrival_rate=arrival_rate,
                service_rate=recent.finished(name) / recent.seconds,
                waiting_time=recent.durations(STARTED, name),
                run_time=run_time,
                ended=recent.ended(name),
                lost_claims=sum(metric.count for metric in recent.of(LOST, name)),
                workers=len(serving),
                greenlets=slots,
                usage=sum(one.usage * one.greenlets for one in serving) / slots if slots else None,
                workers_needed=workers_needed(
                    due=due,
                    arrival_rate=arrival_rate or 0.0,
                    run_time=None if run_time is None else run_time.mean,
                    empty_in=empty_in,
                    greenlets=slots / len(serving) if serving else greenlets,
                ),
            )
        )
    return answers


def workers_needed(
    *, due: int, arrival_rate: float, run_time: float | None, empty_in: float, greenlets: float
) -> int | None:
    """The number of workers by the formula of `queue_statistics`. None: the run time is unknown."""
    load = due / empty_in + arrival_rate
    if not load:
        return 0
    return None if run_time is None else max(1, math.ceil(run_time * load / max(1.0, greenlets)))


def _due(counts: QueueCounts) -> int:
    return counts.due if counts.due < _DUE_MOST else counts.waiting


def _counts_of(broker: Broker, names: Sequence[str]) -> dict[str, list[QueueCounts]]:
    """The counts of each name; of a tree, those of its subqueues."""
    if not names:
        return {counts.queue: [counts] for counts in all_counts(broker)}
    found = dict(zip(names, ([one] for one in broker.counts(list(names))), strict=True))
    return {name: list(all_counts(broker, name)) if is_tree(name) else found[name] for name in names}


class DayMeasurements:
    """The run times of the last day by queue, read again after KEPT seconds: for frequent readers."""

    KEPT = 60.0

    def __init__(self) -> None:
        self._latest: tuple[float, _Measured] | None = None

    def of(self, broker: Broker, now: datetime) -> _Measured:
        """The measurements, of up to KEPT seconds ago."""
        latest = self._latest
        if latest is None or monotonic() - latest[0] > self.KEPT:
            measured = _Measured(broker, after(now, -86_400), now, Resolution.HOUR)
            latest = self._latest = (monotonic(), measured)
        return latest[1]


class _Measured:
    """The metrics of all queues, from the roll-up that contains `since` until now."""

    def __init__(self, broker: Broker, since: datetime, now: datetime, resolution: Resolution) -> None:
        self._now = now
        start = resolution.start_of(since)
        names = [STARTED, ENDED, LOST, UNFINISHED]
        metrics = broker.read_metrics(names, start, after(now, 0.001), resolution)
        self.seconds = (now - start).total_seconds()
        self._by_queue: dict[tuple[str, str], list[Metric]] = {}
        for metric in metrics:
            queue = dict(metric.tags).get("queue")
            if queue is not None:
                self._by_queue.setdefault((metric.name, queue), []).append(metric)

    def of(self, metric: str, name: str) -> list[Metric]:
        """The roll-ups of a queue; of a tree, those of its subqueues."""
        if not is_tree(name):
            return self._by_queue.get((metric, name), [])
        return [
            one
            for (its_metric, queue), metrics in self._by_queue.items()
            if its_metric == metric and is_covered(queue, [name])
            for one in metrics
        ]

    def durations(self, metric: str, name: str) -> Durations | None:
        """Mean and percentiles of a metric. None: it has no values."""
        metrics = self.of(metric, name)
        number, total = sum(one.count for one in metrics), sum(one.total for one in metrics)
        return durations_of(added(one.buckets for one in metrics), number, total)

    def ended(self, name: str) -> dict[str, int]:
        """The numbers of ended attempts by status."""
        numbers: dict[str, int] = {}
        for metric in self.of(ENDED, name):
            status = dict(metric.tags).get("status", "")
            numbers[status] = numbers.get(status, 0) + metric.count
        return numbers

    def finished(self, name: str) -> int:
        """The number of jobs that have ended."""
        return sum(number for status, number in self.ended(name).items() if status not in _UNFINISHED)

    def arrival_rate(self, counts: Iterable[QueueCounts]) -> float | None:
        """The jobs that came, per second. Leaves out queues without a sample. None: no queue has one."""
        rates = [rate for rate in map(self._arrival_rate, counts) if rate is not None]
        return max(0.0, sum(rates)) if rates else None

    def _arrival_rate(self, counts: QueueCounts) -> float | None:
        """A sample is taken for one in the middle of its minute."""
        samples = self.of(UNFINISHED, counts.queue)
        if not samples:
            return None
        first = min(samples, key=lambda one: one.at)
        seconds = (self._now - first.at).total_seconds() - Resolution.MINUTE.seconds / 2
        if seconds < _SHORTEST:
            return None
        finished = sum(
            metric.count * (0.5 if metric.at == first.at else 1.0)
            for metric in self.of(ENDED, counts.queue)
            if metric.at >= first.at and dict(metric.tags).get("status") not in _UNFINISHED
        )
        growth = counts.waiting + counts.claimed - (first.mean or 0.0)
        return (growth + finished) / seconds
