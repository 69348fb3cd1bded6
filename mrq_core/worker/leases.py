"""Renews the leases of a worker's claims, in the native thread of `standby.py`.

A job that blocks the hub, in Python or in C code that releases the GIL, keeps its lease. C code that holds
the GIL for longer than a lease does not: then another worker claims the job.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.errors import BrokerError, BrokerUnavailable
from mrq_core.operations.workers import WORKERS_NAMESPACE
from mrq_core.worker.executions import Execution, batches
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.guards.native import Mailbox
from mrq_core.worker.interrupts import lost_interrupt
from mrq_core.worker.standby import TrialLater
from mrq_core.worker.watchdog import GRACE
from mrq_core.worker.worker_state import WorkerState

_RETRY = 0.5
RENEWALS_PER_LEASE = 3
_NO_LEASE = 0.001
"""Seconds: the shortest lease that all brokers store."""
_BEYOND_DEADLINE = 2 * GRACE
"""Seconds after its deadline for which a job is renewed: the watchdog needs them to end it."""

_log = GuardedLog("mrq.worker")


class LeaseKeeper:
    """Renews all claims together, three times per lease. Interrupts the jobs whose claims are lost."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._lease = state.config.lease
        self._pause = self._lease / RENEWALS_PER_LEASE
        self._due = monotonic() + self._pause
        self._is_failing = False
        self._has_told = False
        """Whether the log says that renewing fails, apart from an outage of the broker."""
        self._lost: Mailbox[Execution] = Mailbox(_announce_lost)
        self._changes: Mailbox[Exception | None] = Mailbox(self._announce_change)

    def close(self) -> None:
        """Logs nothing more."""
        self._lost.close()
        self._changes.close()

    def perform(self, now: float, broker: Callable[[], Broker]) -> None:
        """Renews the claims if that is due, and retries after an error."""
        if self._state.dropped:
            with suppress(BrokerError):
                self._end_leases(broker())
        if now < self._due:
            return
        error: Exception | None = None
        try:
            self._renew(broker(), now)
        except TrialLater:
            self._due = monotonic() + min(_RETRY, self._pause)
            return
        except Exception as raised:
            error = raised
        self._due = monotonic() + (self._pause if error is None else min(_RETRY, self._pause))
        if self._is_failing != (error is not None):
            self._is_failing = not self._is_failing
            self._changes.send(error)

    def _announce_change(self, error: Exception | None) -> None:
        """In the hub: renewing fails from now on with this error, or works again."""
        if isinstance(error, BrokerUnavailable):
            self._state.outage.failed("renew", error)
        elif error is not None:
            details = None if isinstance(error, BrokerError) else error
            _log.error("renew.failed: claims may be lost error=%s", error, exc_info=details)
            self._has_told = True
        elif self._state.outage.is_on:
            self._state.outage.worked("renew")
        if error is None and self._has_told:
            _log.info("renew.works_again")
            self._has_told = False

    def _end_leases(self, broker: Broker) -> None:
        """Here, so that no renewal of the same claim is under way."""
        dropped = list(self._state.dropped)
        for kind, chunk in batches(dropped):
            kind.renew(broker, chunk, _NO_LEASE)
        for _ in dropped:
            self._state.dropped.popleft()

    def _renew(self, broker: Broker, now: float) -> None:
        due = []
        for execution in self._state.executions.snapshot():
            if execution.lost:
                # Again: the hub may have set a later interrupt at the same moment.
                execution.interrupt_from(now, lost_interrupt)
            elif (
                execution.outcome or execution.deadline is None or now < execution.deadline + _BEYOND_DEADLINE
            ):
                due.append(execution)
        if self._is_failing and not due:  # nothing else would tell whether the broker is back
            broker.state.get(WORKERS_NAMESPACE, self._state.name)
        for kind, chunk in batches(due):
            kept = kind.renew(broker, chunk, self._lease)
            for execution, is_kept in zip(chunk, kept, strict=True):
                if not is_kept and execution.outcome is None:
                    execution.lost = True
                    execution.interrupt_from(now, lost_interrupt)
                    self._lost.send(execution)


def _announce_lost(execution: Execution) -> None:
    """In the hub: the outcome of the job will be refused."""
    _log.warning(
        "claim.lost id=%s: another worker may run this job now; it is interrupted here", execution.record.id
    )
