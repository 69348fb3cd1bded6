"""The last resort: settles everything from a native thread, tells the log, and ends the process."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.errors import BrokerLost, BrokerUnavailable, JobInterrupt
from mrq_core.running import logs
from mrq_core.running.log_lines import checked_formatter, own_line
from mrq_core.worker.ended_lines import EndedLines
from mrq_core.worker.executions import Execution, batches
from mrq_core.worker.guards.guarded_log import GuardedLog, other_handlers_left_out
from mrq_core.worker.guards.native import sleep
from mrq_core.worker.guards.process_end import end_process_within
from mrq_core.worker.native_settling import settle_natively
from mrq_core.worker.outcomes import Outcomes
from mrq_core.worker.refused_outcomes import may_pass, unstorable
from mrq_core.worker.stopping import Stopping
from mrq_core.worker.worker_state import WorkerState

_PATIENCE, _PATIENCE_WHEN_STOPPING = 5.0, 1.0
"""Seconds for the broker to accept the outcomes."""
_CALL_SECONDS = 0.5
"""The timeout of each call to the broker."""
_PAUSE = 0.2
_LAST = 1.0
"""Seconds before the end of the patience from which on an outcome that cannot be stored is settled as
failed."""
_AFTERWARDS = 2.0
"""Seconds beyond the patience after which the process ends whatever a call is waiting for."""
ENDS_WITHIN = _PATIENCE + _AFTERWARDS
"""Seconds for the process to end once the worker is given up."""

_log = GuardedLog("mrq.worker")
_KEPT_HUB = "code outside of jobs, such as an observer, keeps the hub"


class GivingUp:
    """Ends the worker for a job that neither the hub nor the signal could end, for other code that keeps the
    hub, or because a task has closed a descriptor that the worker, or its broker, needs.

    Settles each overdue job by the interrupt that was due, the other jobs as interrupted, and the outcomes
    that already waited. After a closed descriptor the other jobs keep their claims, which are lost then: so
    the job that closes descriptors each time comes to run solo, as one that kills its worker does. Then the
    process exits, whatever was raised: with 0 if it had been told to stop, else with 1, so that a supervisor
    starts another worker. Jobs that stay unsettled run again when their leases expire.
    """

    def __init__(self, state: WorkerState, outcomes: Outcomes, stopping: Stopping) -> None:
        self._state = state
        self._outcomes = outcomes
        self._stopping = stopping
        self._ended_lines = EndedLines(state.config)

    def give_up(self, overdue: Execution | None, task_fault: str = "") -> None:
        """Called by the watchdog, in its thread. Does not return. None: not for a job, but because of
        `task_fault`, which is what a task has done to the worker, or because other code keeps the hub."""
        was_told_to_stop = self._stopping.is_killing
        code = 0 if was_told_to_stop else 1
        patience = _PATIENCE_WHEN_STOPPING if was_told_to_stop else _PATIENCE
        try:
            end_process_within(patience + _AFTERWARDS, code, "the worker was given up")
            self._stopping.is_stopping = True  # the loop claims nothing more
            decided = [] if task_fault else self._decide_all()
            self._settle_within(patience)
            reason = _reason(overdue, task_fault)
            self._write(reason)
            self._tell(reason, decided)
        finally:
            os._exit(code)

    def _decide_all(self) -> list[Execution]:
        """Decides the outcomes of all jobs, and returns these executions."""
        decided = []
        now = monotonic()
        stop = JobInterrupt("the worker had to be given up for another job, which could not be ended")
        for execution in self._state.executions.undecided():
            try:
                interrupt = execution.interrupt_at(now) or stop
                if execution.decide(self._outcomes.forced(execution.context, interrupt, execution.started)):
                    decided.append(execution)
            except BaseException:
                pass
        return decided

    def _write(self, reason: str) -> None:
        """Writes the line to standard error without a logger: a task may have changed what loggers need."""
        config = self._state.config
        line = f"worker.given_up: {reason}"
        with suppress(Exception):
            formatter = checked_formatter(config.log_format, config.worker_name(os.getpid()))
            line = own_line(formatter, line)
        with suppress(OSError):  # a closed terminal
            os.write(2, f"{line}\n".encode(errors="replace"))

    def _tell(self, reason: str, decided: Sequence[Execution]) -> None:
        """Logs what was decided: first to the handlers of mrq, which wait for nothing, because any other one
        may wait for a lock that the code which cannot be ended has taken."""
        errors = [one.context.error for one in decided]
        with other_handlers_left_out():
            if self._state.config.log_file:
                _log.error("worker.given_up: %s", reason)
            self._log_ends(decided)
        if logs.leave_to_others(_log.logger):
            for execution, error in zip(decided, errors, strict=True):
                execution.context.error = error
            _log.error("worker.given_up: %s", reason)
            self._log_ends(decided)

    def _log_ends(self, executions: Sequence[Execution]) -> None:
        for execution in executions:
            if execution.outcome is not None:
                self._ended_lines.log(execution.context, execution.outcome)

    def _settle_within(self, seconds: float) -> None:
        deadline = monotonic() + seconds
        executions = [one for one in self._state.executions.snapshot() if one.outcome is not None]
        while monotonic() < deadline:
            try:
                broker = self._state.open_broker(_CALL_SECONDS)
                self._settle(broker, executions, is_last=monotonic() > deadline - _LAST)
                return
            except BrokerLost:
                return
            except BaseException:
                sleep(_PAUSE)

    def _settle(self, broker: Broker, executions: Sequence[Execution], *, is_last: bool) -> None:
        """Settles all. Raises an error that may pass, unless this is the last try: then such an outcome is
        settled as failed."""
        passing: Exception | None = None
        for kind, chunk in batches(executions):
            answers = settle_natively(broker, kind, chunk, self._state.config.max_log_size)
            for execution, answer in zip(chunk, answers, strict=True):
                if isinstance(answer, Exception):
                    if is_last or not may_pass(answer):
                        _settle_as_failed(broker, execution, answer)
                    else:
                        passing = answer
        if passing is not None:
            raise passing


def _reason(overdue: Execution | None, task_fault: str) -> str:
    if overdue is None:
        return f"{task_fault or _KEPT_HUB}: this worker was given up"
    record = overdue.record
    return f"job {record.id} ({record.path}) could not be ended: it was given up together with this worker"


def _settle_as_failed(broker: Broker, execution: Execution, error: Exception) -> None:
    try:
        execution.kind.settle(broker, [execution], [unstorable(execution, error)])
    except BrokerUnavailable:
        raise
    except Exception:
        pass
