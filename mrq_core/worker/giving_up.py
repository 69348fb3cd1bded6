"""The last resort: settles everything from a native thread, and ends the process."""

from __future__ import annotations

import os
import time

from mrq_core.contract.messages import CHUNK
from mrq_core.errors import JobInterrupt, MrqError
from mrq_core.worker.executions import Execution, batches, outcomes_of, take_logs
from mrq_core.worker.native import sleep
from mrq_core.worker.outcomes import Outcomes
from mrq_core.worker.stopping import Stopping
from mrq_core.worker.worker_state import WorkerState

_PATIENCE, _PATIENCE_WHEN_STOPPING = 5.0, 1.0
"""Seconds for the broker to accept the outcomes."""
_CALL_SECONDS = 0.5
"""The timeout of each call to the broker."""
_PAUSE = 0.2


class GivingUp:
    """Ends the worker for a job that neither the hub nor the signal could end.

    Settles the overdue job by the interrupt that was due, the other jobs as interrupted, and the outcomes
    that already waited. Then the process exits: with 0 if it had been told to stop, else with 1, so that a
    supervisor starts another worker.
    """

    def __init__(self, state: WorkerState, outcomes: Outcomes, stopping: Stopping) -> None:
        self._state = state
        self._outcomes = outcomes
        self._stopping = stopping

    def give_up(self, overdue: Execution) -> None:
        """Called by the watchdog, in its thread. Does not return."""
        was_told_to_stop = self._stopping.is_killing
        self._stopping.is_stopping = True  # the loop claims nothing more
        now = time.monotonic()
        stop = JobInterrupt("the worker had to be given up for another job, which could not be ended")
        for execution in self._state.executions.undecided():
            interrupt = execution.interrupt_at(now) or stop
            execution.decide(self._outcomes.forced(execution.context, interrupt, execution.started))
        self._settle_within(_PATIENCE_WHEN_STOPPING if was_told_to_stop else _PATIENCE)
        os.write(
            2,
            f"job {overdue.record.id} ({overdue.record.path}) could not be ended: it was given up together "
            "with this worker\n".encode(),
        )
        os._exit(0 if was_told_to_stop else 1)

    def _settle_within(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        executions = [one for one in self._state.executions.snapshot() if one.outcome is not None]
        lines = take_logs(executions)
        while time.monotonic() < deadline:
            try:
                broker = self._state.open_broker(_CALL_SECONDS)
                for start in range(0, len(lines), CHUNK):
                    broker.append_logs(lines[start : start + CHUNK], self._state.config.max_log_size)
                for kind, chunk in batches(executions):
                    kind.settle(broker, chunk, outcomes_of(chunk))
                broker.close()
                return
            except MrqError:
                sleep(_PAUSE)  # jobs that stay unsettled run again when their leases expire
