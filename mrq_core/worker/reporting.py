"""The report of a worker about itself, and when it is written to shared state and to the file REPORT_FILE."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from datetime import UTC, datetime

import psutil

from mrq_core import __version__
from mrq_core.contract.broker import Broker
from mrq_core.errors import BrokerError
from mrq_core.operations.workers import WORKERS_NAMESPACE, RunningJob, WorkerReport, report_to_json
from mrq_core.worker.report_file import ReportFile
from mrq_core.worker.worker_state import WorkerState

_REPORTS_KEPT = 3
"""The number of report intervals after which a report that was not renewed expires."""
_LATE = 1.5
"""The number of report intervals after which the native thread writes the report."""

_RUNNING_MOST = 1000
"""The most running jobs that a report names."""


class Reporter:
    """Makes the report that `mrq workers` shows."""

    def __init__(self, state: WorkerState, queues: tuple[str, ...]) -> None:
        self._state = state
        self._queues = queues
        self._started_at = datetime.now(UTC)
        self._process = psutil.Process(os.getpid())

    def describe(self) -> WorkerReport:
        """The worker at this moment. Safe in any thread."""
        state = self._state
        # Without psutil's `oneshot`, which takes a lock.
        memory, cpu = self._process.memory_info().rss, self._process.cpu_times()
        running = state.executions.undecided()[:_RUNNING_MOST]
        return WorkerReport(
            name=state.name,
            host=socket.gethostname(),
            pid=os.getpid(),
            status=state.status,
            queues=self._queues,
            greenlets=state.config.greenlets,
            started_at=self._started_at,
            reported_at=datetime.now(UTC),
            jobs=dict(state.counts),
            running=tuple(
                RunningJob(id=r.id, path=r.path, started_at=r.started_at or self._started_at)
                for r in (execution.record for execution in running)
            ),
            unsettled=state.executions.unsettled,
            memory=memory,
            cpu_time=cpu.user + cpu.system,
            version=__version__,
        )


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
        self._stored_at = self._written_at = self._tried_at = time.monotonic()
        self._is_over = True

    @property
    def has_file(self) -> bool:
        """Whether REPORT_FILE is set."""
        return self._file is not None

    def start(self) -> None:
        """From now on reports are expected."""
        self._is_over = False

    def store(self, broker: Broker) -> None:
        """Writes the report that `mrq workers` shows. Raises BrokerError."""
        now = time.monotonic()
        report = report_to_json(self._reporter.describe())
        broker.state.put(WORKERS_NAMESPACE, self._name, report, ttl=self._interval * _REPORTS_KEPT)
        self._stored_at = now
        if self._is_over:  # the hub has removed it meanwhile
            broker.state.delete(WORKERS_NAMESPACE, [self._name])

    def start_file(self) -> None:
        """Writes the first report to REPORT_FILE. Raises ConfigError if that fails."""
        if self._file is not None:
            self._file.write_first(self._reporter.describe())
            self._written_at = time.monotonic()

    def write_file(self) -> None:
        """Writes the report to REPORT_FILE. Asks no broker. Raises OSError."""
        if self._file is not None:
            now = time.monotonic()
            self._file.write(self._reporter.describe())
            self._written_at = now
            if self._is_over:
                self._file.remove()

    def remove_file(self) -> None:
        """Deletes the file for good. Raises OSError."""
        self._is_over = True
        if self._file is not None:
            self._file.remove()

    def remove(self, broker: Broker) -> None:
        """Deletes the report in shared state for good. Raises BrokerError."""
        self._is_over = True
        broker.state.delete(WORKERS_NAMESPACE, [self._name])

    def perform(self, now: float, broker: Callable[[], Broker]) -> None:
        """In the native thread: writes the reports that are late. The hub logs the errors of the hub."""
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
