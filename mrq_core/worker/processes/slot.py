"""One of the N slots of a parent, each with one worker at a time; and when the next worker starts."""

from __future__ import annotations

import signal

from mrq_core.clock import monotonic
from mrq_core.worker.processes.child import ChildProcess

FAILURES_MOST = 5
"""Starts in a row that fail before the parent gives up, if no worker is at work."""
_PAUSE_FIRST, _PAUSE_MOST = 0.5, 30.0
"""Seconds before the start after a failed one. The pause doubles with each failure."""
_LIFE_LEAST = 1.0
"""Seconds from one start to the next, unless the worker stopped by itself."""


class Slot:
    """A number from 1 to N, the worker that has it now, and the failed starts since the last ready worker."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.child: ChildProcess | None = None
        self.is_over = False
        """Whether its burst has ended: no worker follows."""
        self.failures = 0
        self.next_start = 0.0
        """The monotonic time."""

    def is_due(self, now: float) -> bool:
        """Whether the slot needs a worker now."""
        return self.child is None and not self.is_over and now >= self.next_start

    def failed(self) -> float:
        """Counts a failed start. Returns the pause before the next one, in seconds."""
        pause = min(_PAUSE_FIRST * 2.0**self.failures, _PAUSE_MOST)
        self.failures += 1
        self.next_start = monotonic() + pause
        return pause

    def ended(self, child: ChildProcess, code: int) -> float | None:
        """Takes the end of its worker. Returns the pause before the next one if the start has failed."""
        self.child = None
        if not child.is_ready:
            return self.failed()
        self.failures = 0
        self.is_over = child.is_done and code == 0
        self.next_start = 0.0 if code == 0 else child.started_at + _LIFE_LEAST
        return None


def described(code: int) -> str:
    """How a process ended, for the log."""
    if code >= 0:
        return f"exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"{name}, as when memory is short" if name == "SIGKILL" else name
