"""Renews the leases of a worker's claims, in a native thread with its own broker.

A job that blocks the hub, in Python or in C code that releases the GIL, keeps its lease. C code that holds
the GIL for longer than a lease does not: then another worker claims the job.
"""

from __future__ import annotations

import logging
import time

from mrq_core.contract.broker import Broker
from mrq_core.errors import BrokerError
from mrq_core.worker.executions import Execution, batches
from mrq_core.worker.native import Mailbox, NativeLoop
from mrq_core.worker.watchdog import GRACE
from mrq_core.worker.worker_state import WorkerState

_RETRY = 0.5
RENEWALS_PER_LEASE = 3
_BEYOND_DEADLINE = 2 * GRACE
"""Seconds after its deadline for which a job is renewed: the watchdog needs them to end it."""

_log = logging.getLogger("mrq.worker")


class LeaseKeeper:
    """Renews all claims together, three times per lease. Marks the executions whose claims are lost."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._lease = state.config.lease
        self._pause = self._lease / RENEWALS_PER_LEASE
        self._lost: Mailbox[Execution] = Mailbox(_mark_lost)
        self._broker: Broker | None = None
        self._loop = NativeLoop(self._renew_all, first_pause=self._pause, finish=self._close)

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread soon; the thread closes its broker itself."""
        self._loop.stop()
        self._lost.close()

    def _renew_all(self) -> float:
        if self._broker is None:
            self._broker = self._state.open_broker()
        try:
            self._renew(self._broker)
        except BrokerError:
            # The settler meets the same error and logs it.
            return min(_RETRY, self._pause)
        return self._pause

    def _close(self) -> None:
        if self._broker is not None:
            self._broker.close()

    def _renew(self, broker: Broker) -> None:
        now = time.monotonic()
        due = [
            execution
            for execution in self._state.executions.snapshot()
            if not execution.lost
            and (
                execution.outcome or execution.deadline is None or now < execution.deadline + _BEYOND_DEADLINE
            )
        ]
        for kind, chunk in batches(due):
            kept = kind.renew(broker, chunk, self._lease)
            for execution, is_kept in zip(chunk, kept, strict=True):
                if not is_kept:
                    self._lost.send(execution)


def _mark_lost(execution: Execution) -> None:
    """In the hub: the job runs on, but its outcome will be refused."""
    if execution.outcome is None and not execution.lost:
        _log.warning("claim.lost id=%s: another worker may run this job now", execution.record.id)
        execution.lost = True
