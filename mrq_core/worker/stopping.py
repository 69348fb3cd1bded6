"""Stops a worker, gently or at once.

The first SIGINT lets running jobs finish. A second SIGINT, or SIGTERM, interrupts them. The handlers only set
flags and wake the hub.
"""

from __future__ import annotations

import logging
import signal
import time
from types import FrameType
from typing import Any

from mrq_core.worker.interrupts import stop_interrupt
from mrq_core.worker.native import Mailbox
from mrq_core.worker.worker_state import WorkerState

KILL_PATIENCE = 2.0
"""Seconds for interrupted jobs to end, and again for the broker to accept their outcomes."""
LEAVE_WITHIN = 4.5
"""Seconds after which a worker that was told to interrupt its jobs exits in any case."""

_log = logging.getLogger("mrq.worker")


class Stopping:
    """The requests to stop. `is_stopping`: claim nothing more; `is_killing`: also interrupt running jobs."""

    def __init__(self, state: WorkerState) -> None:
        self.is_stopping = False
        self.is_killing = False
        self._killed_at: float | None = None
        self._state = state
        self._mailbox: Mailbox[int] = Mailbox(self._announce)
        self._earlier: dict[int, Any] = {}

    def handle_signals(self) -> None:
        """Takes over SIGINT and SIGTERM."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._earlier[signum] = signal.signal(signum, self._on_signal)

    def restore_signals(self) -> None:
        """Restores the earlier handlers."""
        for signum, handler in self._earlier.items():
            signal.signal(signum, handler)
        self._mailbox.close()

    def stop(self, why: str) -> None:
        """Lets running jobs finish and claims nothing more, as after a first SIGINT."""
        if not self.is_stopping:
            _log.info("worker.stopping name=%s: %s", self._state.name, why)
        self.is_stopping = True
        self._state.wake.set()

    def leave_by(self) -> float | None:
        """The monotonic time at which the process must be gone. None: it was not told to interrupt jobs."""
        return None if self._killed_at is None else self._killed_at + LEAVE_WITHIN

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGTERM or self.is_stopping:
            self.is_killing = True
            if self._killed_at is None:
                self._killed_at = time.monotonic()
            # The watchdog also reaches a job that blocks the hub.
            for execution in self._state.executions.undecided():
                execution.interrupt_from(time.monotonic(), stop_interrupt)
        self.is_stopping = True
        self._mailbox.send(signum)

    def _announce(self, signum: int) -> None:
        name = signal.Signals(signum).name
        what = "interrupting what runs" if self.is_killing else "finishing what runs; again to interrupt it"
        _log.info("worker.stopping on %s: %s", name, what)
        self._state.wake.set()
