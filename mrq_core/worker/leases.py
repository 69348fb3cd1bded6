"""Keeps the leases of a worker's claims, from a native thread with a broker of its own.

A job that blocks the hub, in Python or in C code that lets go of the GIL, keeps its lease. C code
that holds the GIL for longer than a lease does not: then another worker claims the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK
from mrq_core.errors import BrokerError
from mrq_core.worker.executions import Execution, Executions
from mrq_core.worker.native import Mailbox, NativeLoop

_RETRY = 0.5
RENEWALS_PER_LEASE = 3


class LeaseKeeper:
    """Renews all claims together, three times per lease.

    `grace`: seconds beyond a job's deadline for which it is still renewed; the watchdog
    needs them to end it. Claims that turn out to be lost are handed to `lost`.
    """

    def __init__(
        self,
        open_broker: Callable[[], Broker],
        executions: Executions,
        *,
        lease: float,
        grace: float,
        lost: Mailbox[Execution],
    ) -> None:
        self._open_broker = open_broker
        self._executions = executions
        self._lease = lease
        self._grace = grace
        self._lost = lost
        self._broker: Broker | None = None
        self._loop = NativeLoop(self._keep, first_pause=lease / RENEWALS_PER_LEASE, finish=self._close)

    def start(self) -> None:
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread soon; it closes its broker itself."""
        self._loop.stop()

    def _keep(self) -> float:
        if self._broker is None:
            self._broker = self._open_broker()
        try:
            self._renew(self._broker)
        except BrokerError:
            # The settler meets the same trouble and says so.
            return min(_RETRY, self._lease / RENEWALS_PER_LEASE)
        return self._lease / RENEWALS_PER_LEASE

    def _close(self) -> None:
        if self._broker is not None:
            self._broker.close()

    def _renew(self, broker: Broker) -> None:
        now = time.monotonic()
        due = [
            execution
            for execution in self._executions.snapshot()
            if not execution.lost
            and (execution.outcome or execution.deadline is None or now < execution.deadline + self._grace)
        ]
        for start in range(0, len(due), CHUNK):
            chunk = due[start : start + CHUNK]
            kept = broker.renew([execution.claim for execution in chunk], self._lease)
            for execution, is_kept in zip(chunk, kept, strict=True):
                if not is_kept:
                    self._lost.send(execution)
