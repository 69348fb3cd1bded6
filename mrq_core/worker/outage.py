"""An outage of the broker, as one worker sees it: when the worker calls again, and what it logs.

A circuit breaker (M. Nygard, Release It!, 2007). While the broker is away, the steps of the worker wait, and
one step at a time makes a trial call. The success of a claim ends the outage for all steps. Where a broker
refuses some calls only, the steps that work go on, and the others wait. The time to the next trial is random,
so that many workers that lose one server do not all come back at the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import gevent
from gevent.event import Event

from mrq_core.clock import monotonic
from mrq_core.errors import BrokerLost, CallRefused
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
"""Seconds for which other failed steps leave a trial to the claim."""
_OTHERS_AFTER = 10.0
"""Seconds of an outage after which steps that have not failed try too."""
_ASKS_WITHIN = 6.0
"""Seconds. A failed step that has not asked for so long has nothing to do, and decides nothing."""
_CLAIM = "claim"
"""The step that decides: the broker is not back for a worker whose claims are refused."""
_TRIAL_MOST = 15.0
"""Seconds after which a trial without an answer no longer keeps other steps from trying."""

_log = GuardedLog("mrq.worker")


class Outage:
    """The steps that wait for the broker, and the time of the next trial. Only the hub calls the methods;
    native threads read `is_on` and `lost`. `on_end` is called when the broker is back."""

    def __init__(self, on_end: Callable[[], None]) -> None:
        self._on_end = on_end
        self.steps: set[str] = set()
        """The steps that have failed since the broker is away. Empty: the broker is there."""
        self._working: set[str] = set()
        """The steps that have worked since the broker is away."""
        self._asked: dict[str, float] = {}
        """When each step has failed or asked for a trial."""
        self._answers = False
        """Whether the broker has answered the latest failed call: it refuses some calls."""
        self._trial = ""
        """The step that has made the latest trial."""
        self.lost = ""
        """Why only another process can use the broker. The worker is given up then."""
        self.began = 0.0
        """The monotonic time at which the latest outage began."""
        self._next = self._next_of_others = self._trial_ends = 0.0
        """The times of the next trial of a step that has failed, and of another one."""
        self._stopping = Event()
        self._over = Event()
        self._over.set()

    @property
    def is_on(self) -> bool:
        """Whether the broker is away."""
        return bool(self.steps)

    def failed(self, step: str, error: Exception) -> None:
        """Notes that a call of this step has found the broker away. Logs the first one."""
        now = monotonic()
        is_first = not self.steps
        self.steps.add(step)
        self._working.discard(step)
        self._asked[step] = now
        self._answers = isinstance(error, CallRefused)
        if isinstance(error, BrokerLost):
            self.lost = str(error)
        if is_first:
            self.began, self._next = now, now + random.uniform(0.0, FIRST_MOST)
            self._next_of_others = now + _OTHERS_AFTER
            self._over.clear()
            if not self.lost:
                _log.error("broker.away step=%s: the worker goes on when it is back error=%s", step, error)
        elif self._trial_ends:
            self._next = now + random.uniform(LEAST, MOST)
        self._trial_ends = 0.0
        if self._stopping.is_set():
            self._hurry(now)

    def worked(self, step: str) -> None:
        """Notes that a call of this step has succeeded. The outage is over if the step had failed, unless
        claims fail, or if no failed step tries any more."""
        if not self.steps:
            return
        now = monotonic()
        if step == self._trial:
            self._trial_ends = 0.0
        is_over = step in self.steps and (step == _CLAIM or not self._is_trying(_CLAIM, now))
        self.steps.discard(step)
        self._working.add(step)
        if is_over or not any(self._is_trying(failed, now) for failed in self.steps):
            self.steps.clear()
            self._working.clear()
            self._trial_ends = 0.0
            _log.warning("broker.back after=%.1fs", now - self.began)
            self._over.set()
            self._on_end()

    def may_call(self, step: str) -> bool:
        """Whether this step may call the broker now. In an outage, the call is the trial, unless the step has
        worked since, and the caller must report `worked` or `failed`. The claim tries first. A step that has
        not failed tries at once if the broker has refused the call of another step, else after a while: the
        broker may refuse other calls only."""
        if not self.steps or step in self._working:
            return True
        now = monotonic()
        has_failed = step in self.steps
        if self._answers and not has_failed:
            return True
        leaves_it = has_failed and step != _CLAIM and self._is_trying(_CLAIM, now)
        self._asked[step] = now
        if now < (self._next if has_failed else self._next_of_others) + (_PATIENCE if leaves_it else 0.0):
            return False
        if now < self._trial_ends and not self._stopping.is_set():
            return False
        self._trial, self._trial_ends = step, now + _TRIAL_MOST
        if not has_failed:
            self._next_of_others = now + random.uniform(LEAST, MOST)
        return True

    def _is_trying(self, step: str, now: float) -> bool:
        """Whether this step has failed and will try again."""
        if step not in self.steps:
            return False
        is_in_trial = step == self._trial and now < self._trial_ends
        return is_in_trial or now < self._asked[step] + _ASKS_WITHIN

    @property
    def pause(self) -> float:
        """The seconds after which a step asks again whether it may call."""
        now = monotonic()
        again = _STOPPING_MOST if self._stopping.is_set() else _AGAIN
        return min(at - now if at > now else again for at in (self._next, self._next_of_others))

    def wait(self) -> None:
        """Waits for the end of the outage, or until a step may call."""
        if self._stopping.is_set():
            self._over.wait(self.pause)
        else:
            gevent.wait([self._over, self._stopping], timeout=self.pause, count=1)

    def wait_for_end(self, timeout: float | None = None) -> None:
        """Waits for the end of the outage, or for `timeout` seconds."""
        self._over.wait(timeout)

    def hurry(self) -> None:
        """Tries often from now on: the worker stops."""
        if self.steps:
            self._hurry(monotonic())
        self._stopping.set()

    def _hurry(self, now: float) -> None:
        soon = now + random.uniform(0.0, _STOPPING_MOST)
        self._next, self._next_of_others = min(self._next, soon), min(self._next_of_others, soon)
