"""A clock that stands still until a test moves it."""

from __future__ import annotations

from datetime import datetime

from mrq_core.clock import from_ms

START_MS = 1_750_000_000_123
"""Where a ManualClock starts: in June 2025, and not on a whole second."""


class ManualClock:
    """Tells the time that it was set to. Starts at `START_MS`, as Unix milliseconds."""

    def __init__(self, start_ms: int = START_MS) -> None:
        self._now_ms = start_ms

    def now_ms(self) -> int:
        return self._now_ms

    def now(self) -> datetime:
        """The same as an aware datetime."""
        return from_ms(self._now_ms)

    def advance(self, seconds: float) -> None:
        """Moves the time forward. Refuses to go back, as a server's clock does."""
        if seconds < 0:
            raise ValueError(f"a clock cannot be advanced by {seconds} seconds: expected 0 or more")
        self._now_ms += round(seconds * 1000)
