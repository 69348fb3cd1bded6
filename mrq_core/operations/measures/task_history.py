"""The measurements of tasks over 72 hours, kept by a process that asks for them often.

An hour that is over does not change, so each is read once. The sums of these hours are kept, and the hours
themselves in a compact form, to be subtracted when they leave the 72 hours.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from mrq_core.clock import after, monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.metrics import ENDED, STARTED, Metric, Resolution, Tags
from mrq_core.contract.record import Status
from mrq_core.errors import NotSupported
from mrq_core.operations.queries.query import FAILED
from mrq_core.operations.statistics import Durations, durations_of

_log = logging.getLogger("mrq.operations")
HOURS = 72
"""The hours over which durations and the failure rate are taken."""
TREND_HOURS = 24
_SETTLED = 120.0
"""Seconds after the end of an hour until all workers have recorded its metrics."""
_PAUSE = 0.02
"""Seconds between two hours that are read in the background."""
_AT_ONCE = 12
"""Hours of one read, where the time is not bounded."""
_FAILED = frozenset(str(status) for status in FAILED)
_SUCCESS = str(Status.SUCCESS)


class Values(msgspec.Struct, array_like=True):
    """A sum of measurements: their number, their sum in seconds, and their histogram."""

    count: int = 0
    total: float = 0.0
    buckets: dict[int, int] = {}

    def add(self, count: int, total: float, buckets: Mapping[int, int]) -> None:
        """Adds measurements."""
        self.count += count
        self.total += total
        mine = self.buckets
        for bucket, number in buckets.items():
            mine[bucket] = mine.get(bucket, 0) + number

    def subtract(self, other: Values) -> None:
        """Takes measurements away that were added before."""
        self.count -= other.count
        self.total = max(0.0, self.total - other.total)
        for bucket, number in other.buckets.items():
            left = self.buckets.get(bucket, 0) - number
            if left > 0:
                self.buckets[bucket] = left
            else:
                self.buckets.pop(bucket, None)

    def durations(self) -> Durations | None:
        """Mean and percentiles. None: there are no values."""
        return durations_of(self.buckets, self.count, self.total)


class Measured(msgspec.Struct, array_like=True):
    """The attempts of one task: how long they ran and waited, and how many succeeded and failed. `queues` has
    the number of ended attempts by queue."""

    run: Values = msgspec.field(default_factory=Values)
    wait: Values = msgspec.field(default_factory=Values)
    succeeded: int = 0
    failed: int = 0
    queues: dict[str, int] = {}

    def add(self, other: Measured) -> None:
        """Adds the attempts of another time."""
        self.run.add(other.run.count, other.run.total, other.run.buckets)
        self.wait.add(other.wait.count, other.wait.total, other.wait.buckets)
        self.succeeded += other.succeeded
        self.failed += other.failed
        for queue, number in other.queues.items():
            self.queues[queue] = self.queues.get(queue, 0) + number

    def subtract(self, other: Measured) -> None:
        """Takes attempts away that were added before."""
        self.run.subtract(other.run)
        self.wait.subtract(other.wait)
        self.succeeded -= other.succeeded
        self.failed -= other.failed
        for queue, number in other.queues.items():
            left = self.queues.get(queue, 0) - number
            if left > 0:
                self.queues[queue] = left
            else:
                self.queues.pop(queue, None)

    @property
    def is_empty(self) -> bool:
        """Whether there are no attempts."""
        return not self.run.count and not self.wait.count


_Hour = dict[str, Measured]
"""The attempts of one hour, by the path of the task."""
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(_Hour).decode
_Ends = dict[str, tuple[int, int]]
"""The numbers of succeeded and failed jobs by the path of the task."""


class Measurements(msgspec.Struct, frozen=True, kw_only=True):
    """The attempts of all tasks. `hours` is the number of hours that they are of, the latest included; `ends`
    has the succeeded and failed jobs of each of the last 24 hours, the latest last."""

    tasks: Mapping[str, Measured]
    ends: Sequence[_Ends]
    hours: int


class TaskHistory:
    """The hours that were read so far. May be used by several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hours: dict[datetime, bytes] = {}
        self._ends: dict[datetime, _Ends] = {}
        self._sums: dict[str, Measured] = {}
        self._filling: threading.Thread | None = None

    def read(self, broker: Broker, seconds: float | None = None) -> Measurements:
        """The measurements of the last 72 hours, by the clock of the broker.

        Reads the latest hour, and hours that are not known yet, the latest first: at least one, and others
        for about `seconds`, so that the first calls may have fewer hours; a thread reads the others. None:
        all hours, which takes about a second where 200 tasks are busy all the time. About 2 MB are kept.
        """
        begin, now = monotonic(), broker.now()
        current = Resolution.HOUR.start_of(now)
        wanted = [after(current, -3600.0 * index) for index in range(HOURS)]
        is_settled = (now - current).total_seconds() > _SETTLED
        unsettled, settled = wanted[: 1 if is_settled else 2], wanted[1 if is_settled else 2 :]
        with self._lock:
            for hour in self._hours.keys() - set(settled):
                self._forget(hour)
            missing = [hour for hour in settled if hour not in self._hours]
            if seconds is not None and self._filling is not None:
                missing = []  # the thread reads them
        latest = _read(broker, unsettled)
        step = _AT_ONCE if seconds is None else 1
        for start in range(0, len(missing), step):
            if start and seconds is not None and monotonic() - begin > seconds:
                self._fill_later(broker, missing[start:])
                break
            self._keep(_read(broker, missing[start : start + step]))
        with self._lock:
            # Another call may have kept an hour that was not over when this call read it.
            latest = {hour: tasks for hour, tasks in latest.items() if hour not in self._hours}
            return self._measurements(latest, wanted[:TREND_HOURS][::-1])

    def _fill_later(self, broker: Broker, hours: Sequence[datetime]) -> None:
        with self._lock:
            if self._filling is None:
                self._filling = threading.Thread(target=self._fill, args=(broker, hours), daemon=True)
                self._filling.start()

    def _fill(self, broker: Broker, hours: Sequence[datetime]) -> None:
        """Reads hours one by one, with room for other threads between them."""
        try:
            for hour in hours:
                self._keep(_read(broker, [hour]))
                time.sleep(_PAUSE)
        except Exception as error:  # the broker is away, or was closed: a later call begins again
            _log.debug("task_history.stopped error=%s", error)
        finally:
            self._filling = None

    def _keep(self, hours: Mapping[datetime, _Hour]) -> None:
        with self._lock:
            for hour, tasks in hours.items():
                if hour not in self._hours:  # else another thread has read it, too
                    self._hours[hour], self._ends[hour] = _encode(tasks), _ends_of(tasks)
                    for path, measured in tasks.items():
                        self._sums.setdefault(path, Measured()).add(measured)

    def _forget(self, hour: datetime) -> None:
        for path, measured in _decode(self._hours.pop(hour)).items():
            mine = self._sums[path]
            mine.subtract(measured)
            if mine.is_empty:
                del self._sums[path]
        del self._ends[hour]

    def _measurements(self, latest: Mapping[datetime, _Hour], trend: Sequence[datetime]) -> Measurements:
        tasks = {path: _copy(measured) for path, measured in self._sums.items()}
        for hour in latest.values():
            for path, measured in hour.items():
                tasks.setdefault(path, Measured()).add(measured)
        ends = {**self._ends, **{hour: _ends_of(tasks) for hour, tasks in latest.items()}}
        return Measurements(
            tasks=tasks,
            ends=[ends.get(hour, {}) for hour in trend],
            hours=len(latest) + len(self._hours),
        )


def _copy(measured: Measured) -> Measured:
    run, wait = measured.run, measured.wait
    return Measured(
        Values(run.count, run.total, run.buckets.copy()),
        Values(wait.count, wait.total, wait.buckets.copy()),
        measured.succeeded,
        measured.failed,
        measured.queues.copy(),
    )


def _ends_of(tasks: _Hour) -> _Ends:
    return {path: (measured.succeeded, measured.failed) for path, measured in tasks.items()}


def _read(broker: Broker, hours: Sequence[datetime]) -> dict[datetime, _Hour]:
    """The measurements of these hours, which follow each other; the hours between, too."""
    until = after(max(hours), 0.001)
    try:
        metrics = broker.read_metrics([STARTED, ENDED], min(hours), until, Resolution.HOUR)
    except NotSupported:
        metrics = []
    found: dict[datetime, _Hour] = {hour: {} for hour in hours}
    names: dict[Tags, tuple[str, str, str]] = {}
    for metric in metrics:
        tags = metric.tags
        known = names.get(tags)
        if known is None:
            given = dict(tags)
            known = names[tags] = (given.get("task", ""), given.get("queue", ""), given.get("status", ""))
        tasks = found.get(metric.at)
        if tasks is not None and known[0]:  # without a task: the further ones of a worker
            measured = tasks.get(known[0])
            if measured is None:
                measured = tasks[known[0]] = Measured()
            _add(measured, metric, known[1], known[2])
    return found


def _add(measured: Measured, metric: Metric, queue: str, status: str) -> None:
    if metric.name == STARTED:
        measured.wait.add(metric.count, metric.total, metric.buckets)
        return
    measured.run.add(metric.count, metric.total, metric.buckets)
    measured.queues[queue] = measured.queues.get(queue, 0) + metric.count
    if status == _SUCCESS:
        measured.succeeded += metric.count
    elif status in _FAILED:
        measured.failed += metric.count
