"""An outage of the broker, as one worker sees it: when the worker calls again, and what it logs.

A circuit breaker (M. Nygard, Release It!, 2007). While the broker is away, the steps of the worker wait, and
one step at a time makes a trial call. Its success ends the outage for all steps. The time to the next trial
is random, so that many workers that lose one server do not all come back at the same moment.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import gevent
from gevent.event import Event

from mrq_core.worker.guards.guarded_log import GuardedLog

FIRST_MOST = 4.0
"""Seconds: the first trial comes at a random time within them."""
LEAST, MOST = 2.5, 4.2
"""Seconds between later trials, at random."""
_STOPPING_MOST = 0.3
"""Seconds between trials of a worker that stops: few are left for its outcomes."""
_AGAIN = 0.5
"""Seconds after which a step asks again while another one tries."""
_PATIENCE = 1.0
"""Seconds for which steps that have not failed leave a trial to those that have."""
_TRIAL_MOST = 15.0
"""Seconds after which a trial without an answer no longer keeps other steps from trying."""

_log = GuardedLog("mrq.worker")


class Outage:
    """The steps that wait for the broker, and the time of the next trial. Only the hub calls the methods; the
    native thread reads `is_on`. `on_end` is called when the broker is back."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self.steps: set[str] = set()
        """The steps that have failed since the broker is away. Empty: the broker is there."""
        self._trial = ""
        """The step that has made the latest trial."""
        self.began = 0.0
        """The monotonic time at which the latest outage began."""
        self._next = self._trial_ends = 0.0
        self._stopping = Event()
        self._over = Event()
        self._over.set()

    @property
    def is_on(self) -> bool:
        """Whether the broker is away."""
        return bool(self.steps)

    def failed(self, step: str, error: Exception) -> None:
        """Notes that a call of this step has found the broker away. Logs the first one."""
        now = time.monotonic()
        is_first = not self.steps
        self.steps.add(step)
        if is_first:
            self.began, self._next = now, now + random.uniform(0.0, FIRST_MOST)
            self._over.clear()
            _log.error("broker.away step=%s: the worker goes on when it is back error=%s", step, error)
        elif self._trial_ends:
            self._next = now + random.uniform(LEAST, MOST)
        self._trial_ends = 0.0
        if self._stopping.is_set():
            self._hurry(now)

    def worked(self, step: str) -> None:
        """Notes that a call of this step has succeeded: if it was the trial, the outage is over."""
        if step in self.steps or (step == self._trial and self.steps):
            self.steps.clear()
            self._trial_ends = 0.0
            _log.warning("broker.back after=%.1fs", time.monotonic() - self.began)
            self._over.set()
            self._on_end()

    def may_call(self, step: str) -> bool:
        """Whether this step may call the broker now. In an outage, the call is the trial, and the caller must
        report `worked` or `failed`. The steps that have failed try first: others may succeed where a broker
        answers reads and refuses writes."""
        if not self.steps:
            return True
        now = time.monotonic()
        if now < self._next + (0.0 if step in self.steps else _PATIENCE):
            return False
        if now < self._trial_ends and not self._stopping.is_set():
            return False
        self._trial, self._trial_ends = step, now + _TRIAL_MOST
        return True

    @property
    def pause(self) -> float:
        """The seconds after which a step asks again whether it may call."""
        left = self._next - time.monotonic()
        if left > 0.0:
            return left
        return _STOPPING_MOST if self._stopping.is_set() else _AGAIN

    def wait(self) -> None:
        """Waits for the end of the outage, or until a step may call."""
        if self._stopping.is_set():
            self._over.wait(self.pause)
        else:
            gevent.wait([self._over, self._stopping], timeout=self.pause, count=1)

    def wait_for_end(self) -> None:
        """Waits for the end of the outage."""
        self._over.wait()

    def hurry(self) -> None:
        """Tries often from now on: the worker stops."""
        if self.steps:
            self._hurry(time.monotonic())
        self._stopping.set()

    def _hurry(self, now: float) -> None:
        self._next = min(self._next, now + random.uniform(0.0, _STOPPING_MOST))
