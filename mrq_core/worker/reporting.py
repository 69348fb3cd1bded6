"""The report of a worker about itself, and the file that has a copy."""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from pathlib import Path

import psutil

from mrq_core import __version__
from mrq_core.operations.views import worker_view
from mrq_core.operations.workers import RunningJob, WorkerReport
from mrq_core.worker.worker_state import WorkerState

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
        """The worker at this moment."""
        state = self._state
        with self._process.oneshot():
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


class ReportFile:
    """The file that REPORT_FILE names: the report as `mrq workers show --json` prints it.

    The age of the file tells a probe on the same machine when the hub last ran the loop that writes it, also
    while the broker is away. A reader never sees a partial report.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def write(self, report: WorkerReport) -> None:
        """Replaces the file atomically. Raises OSError."""
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(worker_view(report)) + "\n", encoding="utf-8")
            beside.replace(self._path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        """Deletes the file. Raises OSError."""
        self._path.unlink(missing_ok=True)
