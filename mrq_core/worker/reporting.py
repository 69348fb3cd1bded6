"""What a worker says of itself."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import psutil

from mrq_core import __version__
from mrq_core.config.settings import Config
from mrq_core.operations.views import worker_view
from mrq_core.operations.workers import RunningJob, WorkerReport
from mrq_core.worker.executions import Executions
from mrq_core.worker.settling import Settler

_RUNNING_MOST = 1000
"""So many running jobs are named in a report."""


class Reporter:
    """Makes the report that `mrq workers` shows."""

    def __init__(
        self,
        executions: Executions,
        settler: Settler,
        config: Config,
        queues: tuple[str, ...],
        counts: Counter[str],
    ) -> None:
        self._executions = executions
        self._settler = settler
        self._config = config
        self._queues = queues
        self._counts = counts
        self._started_at = datetime.now(UTC)
        self._process = psutil.Process(os.getpid())

    def describe(self, name: str, status: str) -> WorkerReport:
        """The worker as it is now."""
        with self._process.oneshot():
            memory, cpu = self._process.memory_info().rss, self._process.cpu_times()
        running = self._executions.undecided()[:_RUNNING_MOST]
        return WorkerReport(
            name=name,
            host=socket.gethostname(),
            pid=os.getpid(),
            status=status,
            queues=self._queues,
            greenlets=self._config.greenlets,
            started_at=self._started_at,
            reported_at=datetime.now(UTC),
            jobs=dict(self._counts),
            running=tuple(
                RunningJob(id=r.id, path=r.path, started_at=r.started_at or self._started_at)
                for r in (execution.record for execution in running)
            ),
            unsettled=self._settler.waiting,
            memory=memory,
            cpu_time=cpu.user + cpu.system,
            version=__version__,
        )


class ReportFile:
    """The file that REPORT_FILE names: the report as `mrq workers show --json` prints it.

    Its age tells a probe on the same machine when the hub last came round, whether or not the broker is
    there. A reader never sees half of it.
    """

    def __init__(self, path: str) -> None:
        self._path = Path(path)

    def write(self, report: WorkerReport) -> None:
        """Puts this report in the place of the last one. Raises OSError."""
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(worker_view(report)) + "\n", encoding="utf-8")
            beside.replace(self._path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        """Takes it away. Raises OSError."""
        self._path.unlink(missing_ok=True)
