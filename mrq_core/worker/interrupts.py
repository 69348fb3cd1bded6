"""The reasons for which a worker interrupts jobs, and the requests for jobs that it does not hold yet."""

from __future__ import annotations

from collections.abc import Iterable

from mrq_core.clock import monotonic
from mrq_core.errors import CancelInterrupt, Interrupt, JobInterrupt, TimeoutInterrupt
from mrq_core.worker.executions import Execution, Executions
from mrq_core.worker.guards.guarded_log import GuardedLog

_KEPT = 60.0
"""Seconds for which a request is kept whose job the worker does not hold."""

_log = GuardedLog("mrq.worker")


def timeout_interrupt(seconds: float) -> Interrupt:
    """Interrupts a job that ran longer than its timeout."""
    return TimeoutInterrupt(f"the job ran longer than its timeout of {seconds:g} s")


def import_interrupt(seconds: float) -> Interrupt:
    """Interrupts a job whose task takes too long to import."""
    return TimeoutInterrupt(f"the import of the task took longer than the timeout of {seconds:g} s")


def stop_interrupt() -> Interrupt:
    """Interrupts a job whose worker was told to stop."""
    return JobInterrupt("the worker was told to stop")


def lost_interrupt() -> Interrupt:
    """Interrupts a job whose claim is lost: another worker may run it, and its outcome will be refused."""
    return JobInterrupt("the claim of the job was lost: another worker may run it now")


def cancel_interrupt() -> Interrupt:
    """Interrupts a job that was cancelled."""
    return CancelInterrupt("the job was cancelled while it ran")


class CancelRequests:
    """The ids of jobs to interrupt because they were cancelled.

    A request may arrive before its job: the broker knows a claim earlier than the worker does.
    """

    def __init__(self, executions: Executions) -> None:
        self._executions = executions
        self._received: dict[str, float] = {}

    def add(self, job_ids: Iterable[str]) -> None:
        """Interrupts the running jobs among them, and keeps the ids of jobs that the worker does not hold.
        Forgets old ids. In the hub."""
        now = monotonic()
        self._received = {job_id: at for job_id, at in self._received.items() if now - at < _KEPT}
        self._received.update(dict.fromkeys(self.interrupt(job_ids), now))

    def interrupt(self, job_ids: Iterable[str]) -> list[str]:
        """Interrupts the running jobs among them, and returns the ids of jobs that the worker does not hold.
        May be called in any thread, also while a job blocks the hub."""
        wanted = list(job_ids)
        if not wanted:
            return []
        held = {execution.record.id: execution for execution in self._executions.snapshot()}
        for job_id in wanted:
            if job_id in held and held[job_id].outcome is None:
                _interrupt(held[job_id])
        return [job_id for job_id in wanted if job_id not in held]

    def apply(self, execution: Execution) -> None:
        """Interrupts the job if its id was received. In the hub."""
        if self._received.pop(execution.record.id, None) is not None:
            _interrupt(execution)


def _interrupt(execution: Execution) -> None:
    _log.info("job.interrupting id=%s", execution.record.id)
    execution.interrupt_from(monotonic(), cancel_interrupt)
