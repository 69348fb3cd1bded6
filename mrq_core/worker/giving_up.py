"""The end of a worker that cannot end a job: settle everything from a native thread, and exit."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from mrq_core.broker import Broker
from mrq_core.errors import JobInterrupt, MrqError
from mrq_core.messages import CHUNK
from mrq_core.worker.attempts import Attempt, Attempts, take_logs
from mrq_core.worker.native import sleep
from mrq_core.worker.running import Runner

_TRIES, _PAUSE = 5, 0.2


class GivingUp:
    """What the watchdog calls for an attempt that neither the hub nor the signal could end.

    The overdue attempt is settled by what it was overdue for, the others as interrupted, and
    outcomes that still waited as they are. Then the process exits: with 0 if it had been asked to
    stop, else with 1, for the supervisor to start another.
    """

    def __init__(
        self,
        open_broker: Callable[[], Broker],
        runner: Runner,
        attempts: Attempts,
        *,
        max_log_size: int,
        is_asked_to_stop: Callable[[], bool],
    ) -> None:
        self._open_broker = open_broker
        self._runner = runner
        self._attempts = attempts
        self._max_log_size = max_log_size
        self._is_asked_to_stop = is_asked_to_stop

    def __call__(self, overdue: Attempt) -> None:
        now = time.monotonic()
        stop = JobInterrupt("the worker had to be given up for another job, which could not be ended")
        for attempt in self._attempts.undecided():
            due = attempt is overdue or (attempt.interrupt_at is not None and now >= attempt.interrupt_at)
            interrupt = attempt.interrupt if due and attempt.interrupt is not None else stop
            attempt.decide(self._runner.forced(attempt.context, interrupt, attempt.started))
        for _ in range(_TRIES):
            try:
                self._settle()
                break
            except MrqError:
                sleep(_PAUSE)  # what cannot be settled runs again when its lease is over
        os.write(
            2,
            f"job {overdue.record.id} ({overdue.record.path}) could not be ended: it was given up together "
            "with this worker\n".encode(),
        )
        os._exit(0 if self._is_asked_to_stop() else 1)

    def _settle(self) -> None:
        broker = self._open_broker()
        attempts = self._attempts.snapshot()
        lines = take_logs(attempts)
        for start in range(0, len(lines), CHUNK):
            broker.append_logs(lines[start : start + CHUNK], self._max_log_size)
        for start in range(0, len(attempts), CHUNK):
            broker.settle([attempt.settlement() for attempt in attempts[start : start + CHUNK]])
        broker.close()
