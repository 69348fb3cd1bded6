"""The reports of workers about themselves.

A report stays for an hour after it was written. A worker that stops leaves a last report, whose status is
``stop``. A report that was not renewed for three intervals, and is no last report, is read with the status
``dead``: its process was killed or suspended, or cannot reach the broker.

The times of a report are read by the broker's clock, which keeps the report: that of a worker may differ.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Annotated

import msgspec

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.naming import is_covered, is_in, is_task_in, is_tree, shown_names
from mrq_core.contract.shared_state import StateItem
from mrq_core.errors import InvalidValue, RequestFailed, shown

WORKERS_NAMESPACE = "workers"
REPORT_TTL = 3600.0
"""Seconds for which a report is kept."""
STOPPED, DEAD = "stop", "dead"
CLAIMING = frozenset({"init", "wait", "spawn", "full"})
"""The states of a worker that claims jobs."""
_MOST_NAMED = 10
_INTERVALS = 3
"""The report intervals after which a worker whose report was not renewed is dead."""
_SHORTEST = 5.0
"""Seconds in which no worker is dead, however short its interval is."""
_Moment = Annotated[datetime, msgspec.Meta(tz=True)]


class IoCall(msgspec.Struct, frozen=True, kw_only=True):
    """A call that a job waits for, such as a command of Redis. `seconds`: for how long."""

    kind: str
    """One of connect, dns, http, mongodb, process, redis, socket, sqlite."""
    text: str
    seconds: float


class IoTotal(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one kind that a job has made."""

    calls: int
    seconds: float


class IoState(msgspec.Struct, frozen=True, kw_only=True):
    """The I/O of a running job: the calls in progress, the number of those that are left out, and the totals
    by kind. The call of the job's own greenlet is the first, then the longest."""

    calls: tuple[IoCall, ...] = ()
    left_out: int = 0
    totals: dict[str, IoTotal] = {}


class RunningJob(msgspec.Struct, frozen=True, kw_only=True):
    """A job that a worker is running. `age` is in seconds; `stack` has the innermost frames, the
    innermost last. `io` None: the worker does not trace I/O."""

    id: str
    path: str
    started_at: datetime
    age: float = 0.0
    stack: tuple[str, ...] = ()
    io: IoState | None = None


class WorkerReport(msgspec.Struct, frozen=True, kw_only=True):
    """One worker, as it last described itself. Memory is bytes, CPU time seconds.

    The histories have a value for each minute of the last hour, the latest last. `running` has the oldest
    jobs, `running_jobs` is the number of all. `queues_left_out`: the queues that the report has no room for.
    """

    name: str
    host: str
    pid: int
    status: str
    queues: tuple[str, ...]
    greenlets: int
    started_at: _Moment
    reported_at: _Moment
    jobs: dict[str, int]
    """How many attempts ended with each status."""
    running: tuple[RunningJob, ...]
    unsettled: int
    memory: int
    cpu_time: float
    version: str
    ip: str = ""
    cpu: float = 0.0
    """The share of one core that the process used lately."""
    usage: float = 0.0
    """The mean share of its greenlets that ran a job in the last minute."""
    memory_history: tuple[int, ...] = ()
    cpu_history: tuple[float, ...] = ()
    running_jobs: int = 0
    queues_left_out: int = 0
    allowed_tasks: tuple[str, ...] = ()
    denied_tasks: tuple[str, ...] = ()
    tasks_left_out: int = 0
    """The patterns of allowed and denied tasks that the report has no room for."""
    interval: float = 0.0
    """Seconds between two reports. 0: the report expires when it is not renewed."""

    @property
    def is_at_work(self) -> bool:
        """Whether the worker has neither stopped nor died."""
        return self.status not in (STOPPED, DEAD)

    def takes(self, path: str) -> bool:
        """Whether ALLOW_TASKS and DENY_TASKS let the worker run this task, as far as the report tells."""
        if is_task_in(path, self.denied_tasks):
            return False
        return not self.allowed_tasks or self.tasks_left_out > 0 or is_task_in(path, self.allowed_tasks)

    @property
    def busy(self) -> int:
        """The number of jobs that run."""
        return max(self.running_jobs, len(self.running))


def report_to_json(report: WorkerReport) -> JsonValue:
    """The report as a JSON value."""
    value: JsonValue = msgspec.to_builtins(report)
    return value


def list_workers(broker: Broker) -> list[WorkerReport]:
    """The latest reports of the workers of the last hour, by name. Leaves out reports of a newer version that
    this version cannot read."""
    return _read(broker, broker.state.list(WORKERS_NAMESPACE))


def workers_at_work(broker: Broker) -> list[WorkerReport]:
    """The workers that have neither stopped nor died."""
    return [report for report in list_workers(broker) if report.is_at_work]


def find_worker(broker: Broker, name: str) -> WorkerReport | None:
    """The latest report of one worker, or None if it has expired or cannot be read."""
    item = broker.state.get(WORKERS_NAMESPACE, name)
    found = _read(broker, [item]) if item is not None else []
    return found[0] if found else None


def find_workers(broker: Broker, name: str) -> list[WorkerReport]:
    """The worker with this name, or the workers with this NAME or on this host: those at work, or if none is
    at work the one that reported last.

    Raises InvalidValue for an empty name."""
    if not name.strip():
        raise InvalidValue("the name of the worker is empty: expected a name, a NAME or a host", path="name")
    report = find_worker(broker, name)
    if report is not None:
        return [report]
    named = [
        found
        for found in list_workers(broker)
        if found.name == f"{name}.{found.host}.{found.pid}" or found.host == name
    ]
    at_work = [found for found in named if found.is_at_work]
    return at_work or sorted(named, key=lambda found: found.reported_at)[-1:]


def only_worker(broker: Broker, name: str) -> WorkerReport:
    """The only worker with this name, NAME or host. Raises RequestFailed, which names similar workers, and
    InvalidValue for an empty name."""
    found = find_workers(broker, name)
    if len(found) > 1:
        listed = shown_names([report.name for report in found[:_MOST_NAMED]])
        raise RequestFailed(f"{len(found)} workers are named {shown(name)}: expected one of {listed}")
    if not found:
        names = [other.name for other in list_workers(broker)]
        near = difflib.get_close_matches(name, names, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; `mrq workers` lists the workers"
        raise RequestFailed(f"no worker named {shown(name)} has reported lately{hint}")
    return found[0]


def listening(name: str, workers: Sequence[WorkerReport]) -> list[WorkerReport]:
    """The workers that claim from the queue, or from a part of the tree."""
    return [
        report
        for report in workers
        if report.status in CLAIMING
        and (
            is_covered(name, report.queues)
            or report.queues_left_out
            or (is_tree(name) and any(is_in(queue, name) for queue in report.queues))
        )
    ]


def _read(broker: Broker, items: Iterable[StateItem]) -> list[WorkerReport]:
    reports = []
    now = None
    for item in items:
        try:
            report = msgspec.convert(item.value, WorkerReport)
            if report.interval and item.expires_at is not None:
                report = _stored_at(report, after(item.expires_at, -REPORT_TTL))
        except (msgspec.ValidationError, OverflowError):
            continue
        if report.status != STOPPED and report.interval and item.expires_at is not None:
            now = now or broker.now()
            age = (now - report.reported_at).total_seconds()
            if age > max(_SHORTEST, _INTERVALS * report.interval):
                report = msgspec.structs.replace(report, status=DEAD)
        reports.append(report)
    return reports


def _stored_at(report: WorkerReport, moment: datetime) -> WorkerReport:
    """The report with its times by the clock of the broker, which stored the report at this moment."""
    age = max(timedelta(0), report.reported_at - report.started_at)
    return msgspec.structs.replace(report, started_at=moment - age, reported_at=moment)
