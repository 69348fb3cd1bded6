"""The state of a whole installation: throughput, durations, queues, workers, and stuck queues."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

import msgspec

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.metrics import Resolution
from mrq_core.contract.queries import QueueCounts
from mrq_core.contract.record import Status
from mrq_core.operations.explaining.explaining import explain_queue
from mrq_core.operations.explaining.reached_limits import ReachedLimit, ReachedLimits
from mrq_core.operations.explaining.reasons import Reason
from mrq_core.operations.measures.series import Point, points_of, times_of
from mrq_core.operations.measures.slots import Slot, SlotHistory
from mrq_core.operations.workers import WorkerReport, list_workers

MOST_STUCK = 10
"""The most queues whose jobs are explained."""
STUCK_SECONDS = 0.1
"""The time after which no further queue is explained."""
STUCK_AFTER = 60.0
"""Seconds for which a due job has waited without progress of its queue."""
MOST_SPARKLINES = 20
"""The busiest queues whose sparklines are shown."""
MOST_QUEUES = 1000
"""The queues whose counts are read."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs that ended in one minute or hour: all of them, and those that failed."""

    at: datetime
    ended: int
    failed: int


class Sparkline(msgspec.Struct, frozen=True, kw_only=True):
    """The jobs of a queue that ended in each minute or hour, the latest last."""

    queue: str
    ended: tuple[int, ...]

    @property
    def number(self) -> int:
        """The number of all of them."""
        return sum(self.ended)


class Stuck(msgspec.Struct, frozen=True, kw_only=True):
    """A queue that makes no progress, and the first reason. None: the time was over before it was explained.
    `oldest_age` is the seconds for which its oldest due job has been due."""

    queue: str
    due: int
    oldest_age: float
    reason: Reason | None


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """An installation at a glance.

    `rates`, `run_time` and `waiting_time` have a value for each minute or hour, the latest last, which is not
    over yet. `oldest_due` is the oldest due job of all queues, and `oldest_queue` its queue. `busy` of
    `greenlets` run jobs, of the workers that are at work. `workers` counts the workers of the last hour by
    status. `limits` hold jobs back. `has_more_queues`: only the first 1,000 queues by name are examined.
    """

    at: datetime
    resolution: Resolution
    rates: tuple[Rate, ...]
    run_time: tuple[Point, ...]
    waiting_time: tuple[Point, ...]
    numbers: Mapping[Status, int]
    due: int
    oldest_due: datetime | None
    oldest_queue: str | None
    busy: int
    greenlets: int
    workers: Mapping[str, int]
    stuck: tuple[Stuck, ...]
    limits: tuple[ReachedLimit, ...]
    sparklines: tuple[Sparkline, ...]
    has_more_queues: bool = False

    @property
    def usage(self) -> float | None:
        """The share of the greenlets that run jobs. None: no worker is at work."""
        return self.busy / self.greenlets if self.greenlets else None


def overview(
    broker: Broker,
    history: SlotHistory | None = None,
    *,
    resolution: Resolution = Resolution.MINUTE,
    number: int = 60,
    seconds: float | None = None,
    reached: ReachedLimits | None = None,
) -> Overview:
    """The last `number` minutes or hours, such as 60 minutes or 72 hours, at most 1,440.

    Reads metrics as `SlotHistory.read` does: a process that asks often keeps one `history` and one `reached`.
    Reads totals, the counts of up to 1,000 queues and the reports of workers. Explains up to 10 stuck queues
    within about 100 ms, and seeks limits that hold jobs back for about 50 ms. No cost grows with the number
    of jobs.
    """
    now, history = broker.now(), history or SlotHistory()
    times = times_of(now, resolution, number)
    slots = history.read(broker, times, resolution, now, seconds)
    counts, has_more = _counts(broker)
    reports = list_workers(broker)
    at_work = [report for report in reports if report.is_at_work]
    due = [one for one in counts if one.oldest_due is not None]
    oldest = min(due, key=lambda one: one.oldest_due or now, default=None)
    return Overview(
        at=now,
        resolution=resolution,
        rates=tuple(
            Rate(at=at, ended=slot.ended, failed=slot.failed) for at, slot in zip(times, slots, strict=True)
        ),
        run_time=points_of([slot.run for slot in slots], times, resolution, now),
        waiting_time=points_of([slot.wait for slot in slots], times, resolution, now),
        numbers=broker.totals().by_status(),
        due=sum(one.due for one in counts),
        oldest_due=oldest.oldest_due if oldest is not None else None,
        oldest_queue=oldest.queue if oldest is not None else None,
        busy=sum(report.busy for report in at_work),
        greenlets=sum(report.greenlets for report in at_work),
        workers=_by_status(reports),
        stuck=stuck_queues(broker, counts, now, history),
        limits=(reached or ReachedLimits()).of(broker, counts),
        sparklines=_sparklines(slots),
        has_more_queues=has_more,
    )


def stuck_queues(
    broker: Broker, counts: Iterable[QueueCounts], now: datetime, history: SlotHistory | None = None
) -> tuple[Stuck, ...]:
    """The queues whose oldest job has been due for a minute, and of which no job has started or ended in this
    minute and the last one: the longest first, up to 10.

    Each has the first reason of `explain_queue`, as long as 100 ms are not over."""
    begin = monotonic()
    late = [(one, (now - one.oldest_due).total_seconds()) for one in counts if one.oldest_due is not None]
    late = sorted((pair for pair in late if pair[1] > STUCK_AFTER), key=lambda pair: -pair[1])
    if not late:
        return ()
    times = times_of(now, Resolution.MINUTE, 2)
    slots = (history or SlotHistory()).read(broker, times, Resolution.MINUTE, now)
    moving = frozenset().union(*(slot.moving for slot in slots))
    found = []
    for one, age in [pair for pair in late if pair[0].queue not in moving][:MOST_STUCK]:
        in_time = monotonic() - begin < STUCK_SECONDS
        reasons = explain_queue(broker, one.queue) if in_time else []
        reason = reasons[0] if reasons else None
        found.append(Stuck(queue=one.queue, due=one.due, oldest_age=age, reason=reason))
    return tuple(found)


def _counts(broker: Broker) -> tuple[list[QueueCounts], bool]:
    names = broker.queue_names(limit=MOST_QUEUES)
    return (broker.counts(names) if names else []), len(names) == MOST_QUEUES


def _by_status(reports: Iterable[WorkerReport]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for report in reports:
        numbers[report.status] = numbers.get(report.status, 0) + 1
    return numbers


def _sparklines(slots: Sequence[Slot]) -> tuple[Sparkline, ...]:
    numbers: dict[str, int] = {}
    for slot in slots:
        for queue, number in slot.queues.items():
            numbers[queue] = numbers.get(queue, 0) + number
    numbers.pop("", None)  # further queues of a worker
    busiest = sorted(numbers, key=lambda queue: (-numbers[queue], queue))[:MOST_SPARKLINES]
    return tuple(
        Sparkline(queue=queue, ended=tuple(slot.queues.get(queue, 0) for slot in slots)) for queue in busiest
    )
