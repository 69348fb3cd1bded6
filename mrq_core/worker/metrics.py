"""The metrics of a worker: `contract/metrics.py` has their names.

Values gather in a list for each series, and go to the broker every few seconds in one call. A call that
fails loses its metrics, and so does a process that is killed. No call is repeated, so none counts twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Outcome
from mrq_core.contract.metrics import (
    ENDED,
    ERRORS,
    LOST,
    OVERFLOW,
    STARTED,
    UNFINISHED,
    Metric,
    Tags,
    measured,
)
from mrq_core.contract.naming import is_tree
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import NotSupported
from mrq_core.worker.executions import Execution
from mrq_core.worker.guards.guarded_log import GuardedLog

INTERVAL = 5.0
"""Seconds between two calls to the broker."""
MOST_SERIES = 850
"""The most series of one process in an hour. The values of others count under the tags OVERFLOW."""
MOST_VALUES = 200_000
"""With this many values that wait for the broker, later values are lost."""
MOST_SAMPLED = 100
"""The most queues whose size one process samples."""
MOST_GROUPS = 100
"""The most error groups in one call to the broker. The errors of others count under the tags OVERFLOW."""
_SERIES_INTERVAL = 3600.0
_SAMPLE_INTERVAL = 60.0

_Series = tuple[str, str, str, str]
"""Name of the metric, queue, task and status, as far as the metric has these tags. Queue and task are empty
for values above MOST_SERIES."""

_SUCCESS = Status.SUCCESS
_OTHERS = ("", "")
"""Stands for the error groups above MOST_GROUPS."""

_log = GuardedLog("mrq.worker")


class WorkerMetrics:
    """The measurements since the last call to the broker. Only the hub's thread uses it."""

    def __init__(self, queues: Iterable[str]) -> None:
        self._sampled = dict.fromkeys(queue for queue in queues if not is_tree(queue))
        """The queues to sample: those of the worker, and those of jobs that it started."""
        self._values: dict[_Series, list[float]] = {}
        self._errors: dict[tuple[str, str], int] = {}
        """The numbers of errors by group and task."""
        self._number = 0
        """The number of values, and of lost values since."""
        self._known: set[_Series] = set()
        """The series of this hour."""
        self._known_since = monotonic()
        self._sampled_at = self._known_since - _SAMPLE_INTERVAL
        self._is_supported = True

    def started(self, records: Sequence[JobRecord]) -> None:
        """Notes attempts that start now."""
        if not self._has_room(len(records)):
            return
        get = self._values.get
        for record in records:
            series = (STARTED, record.queue, record.path, "")
            waits = get(series) or self._line(series)
            since = record.waits_from or record.queued_at
            if record.lost_claims and record.history and record.history[-1].lost:
                since = record.history[-1].ended_at
                self._lost(record)
            waits.append(((record.started_at or since) - since).total_seconds())

    def lost(self, records: Sequence[JobRecord]) -> None:
        """Notes jobs that were ended because their claims were lost."""
        if self._has_room(len(records)):
            for record in records:
                self._lost(record)

    def ended(
        self, executions: Sequence[Execution], outcomes: Sequence[Outcome], accepted: Sequence[bool]
    ) -> None:
        """Notes attempts whose outcomes the broker has accepted."""
        if not self._has_room(len(executions)):
            return
        get = self._values.get
        for execution, outcome, is_accepted in zip(executions, outcomes, accepted, strict=True):
            seconds = outcome.total_time
            if is_accepted and seconds is not None:  # None: the claim was given back unstarted
                record = execution.record
                series = (ENDED, record.queue, record.path, outcome.status)
                (get(series) or self._line(series)).append(seconds)
                if outcome.status is not _SUCCESS:
                    self._unsuccessful(record, outcome)

    def sample(self, broker: Broker) -> None:
        """Records the sizes of queues, once a minute. Raises BrokerError."""
        now = monotonic()
        if not self._is_supported or now - self._sampled_at < _SAMPLE_INTERVAL:
            return
        self._sampled_at = now
        names = list(self._sampled)[:MOST_SAMPLED]
        for counts in broker.counts(names) if names else ():
            self._line((UNFINISHED, counts.queue, "", "")).append(counts.waiting + counts.claimed)

    def record(self, broker: Broker) -> None:
        """Sends the measurements to the broker, in one call. Raises BrokerError; they are lost then."""
        if not self._values:
            return
        now = broker.now()
        taken, self._values = self._values, {}
        errors, self._errors = self._errors, {}
        lost, self._number = self._number - MOST_VALUES, 0
        if lost > 0:
            _log.warning("metrics.lost values=%d: the broker takes too long", lost)
        for name, queue, *_ in taken:
            if name == STARTED and queue and len(self._sampled) < MOST_SAMPLED:
                self._sampled[queue] = None
        if self._is_supported:
            try:
                broker.record_metrics(
                    [_metric(series, values, now) for series, values in taken.items()]
                    + [_error_metric(*key, number, now) for key, number in errors.items()]
                )
            except NotSupported:
                self._is_supported = False

    def _has_room(self, number: int) -> bool:
        self._number += number
        return self._number <= MOST_VALUES

    def _unsuccessful(self, record: JobRecord, outcome: Outcome) -> None:
        if outcome.lost and outcome.delay is None:  # otherwise the next claim counts it
            self._lost(record)
        if outcome.error_group is not None:
            key, errors = (outcome.error_group, record.path), self._errors
            if key not in errors and len(errors) >= MOST_GROUPS:
                key = _OTHERS
            errors[key] = errors.get(key, 0) + 1

    def _lost(self, record: JobRecord) -> None:
        self._line((LOST, record.queue, record.path, "")).append(0.0)

    def _line(self, series: _Series) -> list[float]:
        """The values of a series; those of all series above the bound of this hour together."""
        if series not in self._known:
            now = monotonic()
            if now - self._known_since > _SERIES_INTERVAL:
                self._known, self._known_since = set(), now
            if len(self._known) < MOST_SERIES:
                self._known.add(series)
            else:
                series = (series[0], "", "", series[3])
        return self._values.setdefault(series, [])


def _metric(series: _Series, values: Sequence[float], at: datetime) -> Metric:
    name, queue, task, status = series
    tags: Tags = (("queue", queue),) if queue else OVERFLOW
    if status:
        tags += (("status", str.__str__(status)),)
    if task:
        tags += (("task", task),)
    if name == LOST:
        return Metric(name=name, at=at, tags=tags, count=len(values))
    if name == UNFINISHED:
        return Metric(name=name, at=at, tags=tags, count=len(values), total=float(sum(values)))
    return measured(name, at, tags, values)


def _error_metric(group: str, task: str, number: int, at: datetime) -> Metric:
    tags: Tags = (("group", group), ("task", task)) if group else OVERFLOW
    return Metric(name=ERRORS, at=at, tags=tags, count=number)
