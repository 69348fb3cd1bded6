"""The end of a worker that cannot end a job: settle everything from a native thread, and exit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK
from mrq_core.errors import JobInterrupt, MrqError
from mrq_core.worker.executions import Execution, Executions, take_logs
from mrq_core.worker.native import sleep
from mrq_core.worker.running import Runner
from mrq_core.worker.stopping import Stopping

_PATIENCE, _PATIENCE_WHEN_STOPPING = 5.0, 1.0
"""Seconds for the broker to take the outcomes."""
_PAUSE = 0.2


class GivingUp:
    """What the watchdog calls for a job that neither the hub nor the signal could end.

    The overdue job is settled by what it was overdue for, the others as interrupted, and
    outcomes that still waited as they are. Then the process exits: with 0 if it had been asked to
    stop, else with 1, for the supervisor to start another. `open_broker` gives one whose calls do
    not take long.
    """

    def __init__(
        self,
        open_broker: Callable[[], Broker],
        runner: Runner,
        executions: Executions,
        stopping: Stopping,
        *,
        max_log_size: int,
    ) -> None:
        self._open_broker = open_broker
        self._runner = runner
        self._executions = executions
        self._stopping = stopping
        self._max_log_size = max_log_size

    def __call__(self, overdue: Execution) -> None:
        was_asked_to_stop = self._stopping.is_killing
        self._stopping.is_stopping = True  # nothing more is claimed
        now = time.monotonic()
        stop = JobInterrupt("the worker had to be given up for another job, which could not be ended")
        for execution in self._executions.undecided():
            interrupt = execution.interrupt_at(now) or stop
            execution.decide(self._runner.forced(execution.context, interrupt, execution.started))
        self._settle_within(_PATIENCE_WHEN_STOPPING if was_asked_to_stop else _PATIENCE)
        os.write(
            2,
            f"job {overdue.record.id} ({overdue.record.path}) could not be ended: it was given up together "
            "with this worker\n".encode(),
        )
        os._exit(0 if was_asked_to_stop else 1)

    def _settle_within(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        executions = [execution for execution in self._executions.snapshot() if execution.outcome is not None]
        lines = take_logs(executions)
        while time.monotonic() < deadline:
            try:
                broker = self._open_broker()
                for start in range(0, len(lines), CHUNK):
                    broker.append_logs(lines[start : start + CHUNK], self._max_log_size)
                for start in range(0, len(executions), CHUNK):
                    broker.settle([one.settlement() for one in executions[start : start + CHUNK]])
                broker.close()
                return
            except MrqError:
                sleep(_PAUSE)  # what cannot be settled runs again when its lease is over
