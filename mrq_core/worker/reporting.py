"""What a worker says of itself."""

from __future__ import annotations

import os
import socket
from collections import Counter
from datetime import UTC, datetime

import psutil

from mrq_core import __version__
from mrq_core.config import Config
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
