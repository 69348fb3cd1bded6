"""Notices that the clock of the broker was set while the worker runs.

Waiting jobs keep their due times, and claims the ends of their leases. After a step back of an hour, jobs
that were due start an hour later; after a step forward, leases of running jobs have run out.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime

from mrq_core.clock import now_ms, span_words
from mrq_core.worker.guards.guarded_log import GuardedLog

STEP = 5.0
"""Seconds. Smaller steps are left out: services that keep the time make them."""
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""A clock that goes on while the machine is suspended, where there is one."""

_log = GuardedLog("mrq.worker")


def _wall() -> float:
    return now_ms() / 1000


def steady() -> float:
    """Seconds that go on evenly, also while the machine is suspended, where there is such a clock."""
    return time.clock_gettime(_STEADY)


class ClockWatch:
    """Compares clocks. The clock of this machine tells at no cost that a step may have happened; then
    `now`, the time of the broker, which may be that of a server, decides."""

    def __init__(
        self,
        now: Callable[[], datetime],
        *,
        wall: Callable[[], float] = _wall,
        steady: Callable[[], float] = steady,
    ) -> None:
        self._now, self._wall, self._steady = now, wall, steady
        self._offset = self._broker_offset = 0.0

    def start(self) -> None:
        """Reads all clocks. Raises BrokerError."""
        self._offset = self._wall() - self._steady()
        self._broker_offset = self._read_broker()

    def look(self) -> None:
        """Logs a step of the broker's clock since the last call. Raises BrokerError, and looks again then."""
        offset = self._wall() - self._steady()
        if abs(offset - self._offset) < STEP:
            self._offset = offset
            return
        broker_offset = self._read_broker()
        step = broker_offset - self._broker_offset
        self._offset, self._broker_offset = offset, broker_offset
        if step <= -STEP:
            _log.warning(
                "clock.set_back seconds=%.0f: the broker's clock was set back by %s; jobs that wait, and "
                "jobs of workers that have died, start that much later",
                *(-step, span_words(round(-step))),
            )
        elif step >= STEP:
            _log.warning(
                "clock.set_forward seconds=%.0f: the broker's clock was set forward by %s; jobs that wait "
                "start that much earlier, and jobs that run may be claimed again, because their leases ended",
                *(step, span_words(round(step))),
            )

    def _read_broker(self) -> float:
        before = self._steady()
        now = self._now().timestamp()
        return now - (before + self._steady()) / 2
