"""The report of a worker about itself, and when it is written to shared state and to the file REPORT_FILE."""

from __future__ import annotations

import os
import socket
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime

from msgspec.structs import replace

from mrq_core import __version__
from mrq_core.clock import after, from_ms, monotonic, now_ms
from mrq_core.contract.broker import Broker
from mrq_core.errors import BrokerError
from mrq_core.operations.workers import (
    REPORT_TTL,
    STOPPED,
    WORKERS_NAMESPACE,
    IoState,
    RunningJob,
    WorkerReport,
    report_to_json,
)
from mrq_core.worker.clock_watch import STEP, steady
from mrq_core.worker.executions import Execution
from mrq_core.worker.guards.native import get_ident
from mrq_core.worker.reporting.process_memory import own_size
from mrq_core.worker.reporting.report_file import ReportFile
from mrq_core.worker.reporting.stacks import frame_of, short_stack
from mrq_core.worker.worker_state import WorkerState

_LATE = 1.5
"""The number of report intervals after which the native thread writes the report."""

RUNNING_MOST = 20
"""The most running jobs that a report names."""
_STACKS_MOST = 6_000
"""Characters of all stacks in a report. Jobs beyond have none."""
_IO_MOST = 4_000
"""Characters of the I/O of all jobs in a report. Of jobs beyond only the number of calls is reported."""
_PATH_MOST = 200
_TOTAL_SIZE = 40
"""Characters of a total, and of a call beside its text."""
_QUEUES_MOST, _TASKS_MOST = 4_000, 2_000
"""Characters of the names of queues, and of each list of tasks, in a report."""
_STATUSES_MOST = 30
_SAMPLE, _MINUTE, _HISTORY = 1.0, 60.0, 60
"""Seconds between two samples of the pool, and of the process, and the minutes that are kept."""


class Samples:
    """Samples of the pool and the process. The native thread takes them, also while a job blocks the hub."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._usage: deque[float] = deque(maxlen=int(_MINUTE / _SAMPLE))
        self._next = self._next_minute = monotonic()
        self._cpu = (monotonic(), self.cpu_time())
        self.memory_history: deque[int] = deque(maxlen=_HISTORY)
        self.cpu_history: deque[float] = deque(maxlen=_HISTORY)
        self.cpu = 0.0

    def memory(self) -> int:
        """The resident memory of the process, in bytes."""
        return own_size()

    def cpu_time(self) -> float:
        """The seconds of the processor that the process has used."""
        return time.process_time()

    @property
    def usage(self) -> float:
        """The mean share of the greenlets that ran a job in the last minute."""
        samples = list(self._usage) or [self._busy()]
        return round(sum(samples) / len(samples), 3)

    def take(self, now: float) -> None:
        """Takes the samples that are due at this monotonic time."""
        if now < self._next:
            return
        self._next = now + _SAMPLE
        self._usage.append(self._busy())
        if now < self._next_minute:
            return
        before, used_before = self._cpu
        used = self.cpu_time()
        if now > before:
            self.cpu = round((used - used_before) / (now - before), 3)
        self._cpu = (now, used)
        self._next_minute = now + _MINUTE
        self.memory_history.append(self.memory())
        self.cpu_history.append(self.cpu)

    def _busy(self) -> float:
        return min(1.0, self._state.executions.running / self._state.config.greenlets)


class Reporter:
    """Makes the report that `mrq workers` shows. It stays small, because it is a value of shared state."""

    def __init__(self, state: WorkerState, queues: tuple[str, ...]) -> None:
        self._state = state
        self._queues = _first(queues, _QUEUES_MOST)
        self._left_out = len(queues) - len(self._queues)
        allowed, denied = state.config.allow_tasks, state.config.deny_tasks
        self._allowed, self._denied = _first(allowed, _TASKS_MOST), _first(denied, _TASKS_MOST)
        self._tasks_left_out = len(allowed + denied) - len(self._allowed + self._denied)
        self._started_at, self._started = from_ms(now_ms()), steady()
        self._host = socket.gethostname()
        self._ip = state.config.local_ip or _address()
        self._hub_thread = get_ident()
        self.samples = Samples(state)

    def describe(self) -> WorkerReport:
        """The worker at this moment. Safe in any thread."""
        state, samples = self._state, self.samples
        now = from_ms(now_ms())
        running = sorted(state.executions.undecided(), key=lambda execution: execution.started)
        return WorkerReport(
            name=state.name,
            host=self._host,
            ip=self._ip,
            pid=os.getpid(),
            status=state.status,
            queues=self._queues,
            queues_left_out=self._left_out,
            allowed_tasks=self._allowed,
            denied_tasks=self._denied,
            tasks_left_out=self._tasks_left_out,
            greenlets=state.config.greenlets,
            started_at=self._start_by_the_clock_of(now),
            reported_at=now,
            interval=state.config.report_interval,
            jobs=dict(list(state.counts.items())[:_STATUSES_MOST]),
            running=self._described(running[:RUNNING_MOST]),
            running_jobs=len(running),
            usage=samples.usage,
            unsettled=state.executions.unsettled,
            memory=samples.memory(),
            memory_history=tuple(samples.memory_history),
            cpu_time=samples.cpu_time(),
            cpu=samples.cpu,
            cpu_history=tuple(samples.cpu_history),
            version=__version__,
        )

    def farewell(self) -> WorkerReport:
        """The last report, of a worker that has stopped."""
        return replace(self.describe(), status=STOPPED, running=(), running_jobs=0, usage=0.0)

    def _start_by_the_clock_of(self, now: datetime) -> datetime:
        """The start of the worker. It moves with the clock of this machine when that is set, so that the time
        from it to now is the age of the worker."""
        start = after(now, self._started - steady())
        if abs((start - self._started_at).total_seconds()) >= STEP:
            self._started_at = start
        return self._started_at

    def _described(self, executions: list[Execution]) -> tuple[RunningJob, ...]:
        now = monotonic()
        left, io_left = _STACKS_MOST, _IO_MOST
        jobs = []
        for execution in executions:
            record = execution.record
            stack: tuple[str, ...] = ()
            if execution.process is not None:
                stack = (f"in process {execution.process.pid}",)
            elif left > 0:
                with suppress(Exception):  # a frame changes while it is read in another thread
                    stack = short_stack(frame_of(execution, self._hub_thread))
            left -= sum(map(len, stack))
            io = _io_of(execution)
            if io is not None:
                io_left -= _size_of(io)
                io = io if io_left >= 0 else IoState(left_out=len(io.calls) + io.left_out)
            job = RunningJob(
                id=record.id,
                path=record.path[:_PATH_MOST],
                started_at=record.started_at or self._started_at,
                age=round(max(0.0, now - execution.started), 3),
                stack=stack if left >= 0 else (),
                io=io,
            )
            jobs.append(job)
        return tuple(jobs)


def _io_of(execution: Execution) -> IoState | None:
    """The I/O of a job, also of one that runs in a separate process. None: it is not traced."""
    if execution.process is not None:
        return execution.process.io or (None if execution.io is None else IoState())
    with suppress(Exception):  # it changes while it is read in another thread
        return None if execution.io is None else execution.io.state()
    return IoState()


def _size_of(io: IoState) -> int:
    return sum(len(call.text) for call in io.calls) + _TOTAL_SIZE * (len(io.calls) + len(io.totals))


def _first(names: tuple[str, ...], most: int) -> tuple[str, ...]:
    """The first names that have up to `most` characters together."""
    size = 0
    for index, name in enumerate(names):
        size += len(name)
        if size > most:
            return names[:index]
    return names


def _address() -> str:
    """The address of this machine in its network, without sending anything; that of the loopback without a
    network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("198.51.100.1", 9))  # an address of documentation: no packet is sent
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


class Reports:
    """Writes the report to shared state and to REPORT_FILE.

    Greenlets of the hub do so every REPORT_INTERVAL. A native thread does when they are late, because a job
    blocks the hub: a report is never older than two intervals while the broker is there. Raises ConfigError
    if REPORT_FILE names anything but a report or a new file.
    """

    def __init__(self, state: WorkerState, reporter: Reporter) -> None:
        self._name = state.name
        self._reporter = reporter
        self._interval = state.config.report_interval
        path = state.config.report_file
        self._file = ReportFile(path, state.name) if path else None
        self._stored_at = self._written_at = self._tried_at = monotonic()
        self._is_over = True
        self._is_known = False
        """Whether the broker may have a report of this worker."""

    @property
    def has_file(self) -> bool:
        """Whether REPORT_FILE is set."""
        return self._file is not None

    def start(self) -> None:
        """From now on reports are expected."""
        self._is_over = False

    def store(self, broker: Broker) -> None:
        """Writes the report that `mrq workers` shows. Raises BrokerError."""
        now = monotonic()
        self._put(broker, self._reporter.describe())
        self._stored_at = now
        if self._is_over:  # the hub has written the last report meanwhile
            self._put(broker, self._reporter.farewell())

    def start_file(self) -> None:
        """Writes the first report to REPORT_FILE. Raises ConfigError if that fails."""
        if self._file is not None:
            self._file.write_first(self._reporter.describe())
            self._written_at = monotonic()

    def write_file(self) -> None:
        """Writes the report to REPORT_FILE. Asks no broker. Raises OSError."""
        if self._file is not None:
            now = monotonic()
            self._file.write(self._reporter.describe())
            self._written_at = now
            if self._is_over:
                self._file.remove()

    def remove_file(self) -> None:
        """Deletes the file for good. Raises OSError."""
        self._is_over = True
        if self._file is not None:
            self._file.remove()

    def say_goodbye(self, broker: Broker) -> None:
        """Writes the last report to shared state, which tells a stopped worker from a dead one. A worker that
        could not start leaves none. Raises BrokerError."""
        self._is_over = True
        if self._is_known:
            self._put(broker, self._reporter.farewell())

    def perform(self, now: float, broker: Callable[[], Broker]) -> None:
        """In the native thread: takes samples, and writes the reports that are late. The hub logs the errors
        of the hub."""
        self._reporter.samples.take(now)
        late = now - _LATE * self._interval
        if self._is_over or now < self._tried_at + self._interval / 4:
            return
        if self._file is not None and self._written_at < late:
            self._tried_at = now
            try:
                self.write_file()
            except OSError:
                pass
        if self._stored_at < late:
            self._tried_at = now
            try:
                self.store(broker())
            except BrokerError:
                pass

    def _put(self, broker: Broker, report: WorkerReport) -> None:
        self._is_known = True
        broker.state.put(WORKERS_NAMESPACE, self._name, report_to_json(report), ttl=REPORT_TTL)
