"""How a worker is told to stop, and how urgently.

The first SIGINT lets running jobs finish. A second one, or SIGTERM, interrupts them. The handlers
only set flags and wake the hub.
"""

from __future__ import annotations

import logging
import signal
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

from mrq_core.errors import Interrupt, JobInterrupt
from mrq_core.worker.executions import Executions
from mrq_core.worker.native import Mailbox

KILL_PATIENCE = 2.0
"""Seconds for interrupted jobs to end, and again for their outcomes to be taken."""
LEAVE_WITHIN = 4.5
"""Seconds after which a worker that was told to leave does so, whatever else is going on."""

_log = logging.getLogger("mrq.worker")


class Stopping:
    """The wish to stop. `is_stopping`: take nothing new; `is_killing`: interrupt what runs, too."""

    def __init__(self, executions: Executions, wake: Callable[[], None]) -> None:
        self.is_stopping = False
        self.is_killing = False
        self._killed_at: float | None = None
        self._executions = executions
        self._wake = wake
        self._mailbox: Mailbox[int] = Mailbox(self._announce)
        self._earlier: dict[int, Any] = {}

    def handle_signals(self) -> None:
        """Takes over SIGINT and SIGTERM."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._earlier[signum] = signal.signal(signum, self._on_signal)

    def restore_signals(self) -> None:
        """Gives the signals back to whoever handled them before."""
        for signum, handler in self._earlier.items():
            signal.signal(signum, handler)
        self._mailbox.close()

    def stop(self) -> None:
        """The gentle way, as by a first SIGINT."""
        self.is_stopping = True
        self._wake()

    def leave_by(self) -> float | None:
        """The monotonic time at which the process has to be gone, once it was told to leave."""
        return None if self._killed_at is None else self._killed_at + LEAVE_WITHIN

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGTERM or self.is_stopping:
            self.is_killing = True
            if self._killed_at is None:
                self._killed_at = time.monotonic()
            # The watchdog reaches also the job that blocks the hub at this moment.
            for execution in self._executions.undecided():
                execution.interrupt_from(time.monotonic(), stop_interrupt)
        self.is_stopping = True
        self._mailbox.send(signum)

    def _announce(self, signum: int) -> None:
        name = signal.Signals(signum).name
        what = "interrupting what runs" if self.is_killing else "finishing what runs; again to interrupt it"
        _log.info("worker.stopping on %s: %s", name, what)
        self._wake()


def stop_interrupt() -> Interrupt:
    """What is raised in jobs that must make way."""
    return JobInterrupt("the worker was told to stop")
