"""Keeps the leases of a worker's claims, from a native thread with a broker of its own.

A job that blocks the hub, in Python or in C code that lets go of the GIL, keeps its lease. C code
that holds the GIL for longer than a lease does not: then another worker claims the job.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from mrq_core.broker import Broker
from mrq_core.errors import MrqError
from mrq_core.messages import CHUNK
from mrq_core.worker.attempts import Attempt, Attempts
from mrq_core.worker.native import Mailbox, sleep_unless, start_thread

_RETRY = 0.5
RENEWALS_PER_LEASE = 3


class LeaseKeeper:
    """Renews all claims together, three times per lease.

    `grace`: seconds beyond an attempt's deadline for which it is still renewed; the watchdog
    needs them to end it. Claims that turn out to be lost are handed to `lost`.
    """

    def __init__(
        self,
        open_broker: Callable[[], Broker],
        attempts: Attempts,
        *,
        lease: float,
        grace: float,
        lost: Mailbox[Attempt],
    ) -> None:
        self._open_broker = open_broker
        self._attempts = attempts
        self._lease = lease
        self._grace = grace
        self._lost = lost
        self._stopped = False

    def start(self) -> None:
        start_thread(self._run)

    def stop(self) -> None:
        """Ends the thread soon; it closes its broker itself."""
        self._stopped = True

    def _run(self) -> None:
        broker = self._open_broker()
        pause = self._lease / RENEWALS_PER_LEASE
        while not self._stopped:
            sleep_unless(lambda: self._stopped, pause)
            try:
                self._renew(broker)
                pause = self._lease / RENEWALS_PER_LEASE
            except MrqError:
                # The settler meets the same trouble and says so; a native thread does not log.
                pause = min(_RETRY, self._lease / RENEWALS_PER_LEASE)
        broker.close()

    def _renew(self, broker: Broker) -> None:
        now = time.monotonic()
        due = [
            attempt
            for attempt in self._attempts.snapshot()
            if not attempt.lost
            and (attempt.outcome or attempt.deadline is None or now < attempt.deadline + self._grace)
        ]
        for start in range(0, len(due), CHUNK):
            chunk = due[start : start + CHUNK]
            kept = broker.renew([attempt.claim for attempt in chunk], self._lease)
            for attempt, is_kept in zip(chunk, kept, strict=True):
                if not is_kept:
                    self._lost.send(attempt)
