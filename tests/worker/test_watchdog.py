"""The thread that interrupts jobs, by itself."""

from __future__ import annotations

import signal

from mrq_core.clock import monotonic
from mrq_core.worker.executions import Executions
from mrq_core.worker.watchdog import Watchdog
from tests.support import until


def test_a_timer_of_a_task_goes_on_after_the_signal_that_replaces_it() -> None:
    received: list[int] = []
    watchdog = Watchdog(
        Executions(), give_up=lambda execution: None, tick=lambda now: None, is_killing=lambda: False
    )
    before = signal.signal(signal.SIGALRM, lambda number, frame: received.append(number))
    signal.setitimer(signal.ITIMER_REAL, 100.0, 7.0)
    try:
        now = monotonic()
        watchdog._signal_at_random(now)
        watchdog._signal_at_random(now)
        until(lambda: received, what="the signal")
        watchdog._give_timer_back(now + 10.0)
        left, interval = signal.getitimer(signal.ITIMER_REAL)
        assert (round(left), interval) == (90, 7.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
