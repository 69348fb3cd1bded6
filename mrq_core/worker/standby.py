"""The native thread that goes on with the worker's duties while a job blocks the hub.

It has its own broker, and takes its duties one after the other: `LeaseKeeper` renews leases (`leases.py`),
`NativeSettler` settles outcomes that wait for the hub (`native_settling.py`), and three parts of `reporting/`
go on if the hub is late: `Reports` writes the report (`report.py`), `Requests` answers requests
(`requests.py`), and `Profiler` answers with the profiles of runs that have ended (`profiling.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.errors import BrokerUnavailable
from mrq_core.worker.guards.native import NativeLoop
from mrq_core.worker.outage import LEAST, MOST
from mrq_core.worker.worker_state import WorkerState

TICK = 0.05


class Duty(Protocol):
    """Periodic work of the native thread. It keeps its own pace, and handles its own errors: the thread logs
    any other error and pauses."""

    def perform(self, now: float, broker: Callable[[], Broker]) -> None:
        """Does what is due at this monotonic time. Called about every TICK seconds. `broker` returns the
        thread's broker, and opens it first if needed: raises what opening raises, and TrialLater during an
        outage, except at the moments of this duty's trials."""


class TrialLater(BrokerUnavailable):
    """The broker was away when it was last called. It has not been called now: that says nothing new."""


class Standby:
    """The thread and its broker. The first duty is urgent, and gets a turn after each other duty, because a
    call of a broker that does not answer takes BROKER_TIMEOUT."""

    def __init__(self, state: WorkerState, duties: Sequence[Duty]) -> None:
        self._state = state
        self._broker: Broker | None = None
        first, *others = [(duty, _Trials(state)) for duty in duties]
        self._turns = [turn for other in others for turn in (first, other)] or [first]
        self._loop = NativeLoop(self._perform_all, first_pause=TICK, finish=self._close)

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread soon; the thread closes its broker itself."""
        self._loop.stop()

    def _perform_all(self) -> float:
        for duty, trials in self._turns:
            duty.perform(monotonic(), partial(self._opened, trials))
        return TICK

    def _opened(self, trials: _Trials) -> Broker:
        if self._state.outage.is_on:
            trials.wait_with_the_hub(monotonic())
        if self._broker is None:
            self._broker = self._state.open_broker()
        return self._broker

    def _close(self) -> None:
        if self._broker is not None:
            self._broker.close()


class _Trials:
    """When one duty calls a broker that is away. Each has separate times: another one's call says nothing
    of this duty's, as where one of two servers is away, and does not take its turn."""

    def __init__(self, state: WorkerState) -> None:
        self._state = state
        self._next = self._ends = self._outage_began = 0.0

    def wait_with_the_hub(self, now: float) -> None:
        """Raises TrialLater except at random moments: many workers must not come back at once."""
        began = self._state.outage.began
        is_new = self._outage_began != began
        if now >= self._next:
            self._ends = 0.0 if is_new else now + 2 * TICK
            self._next = now + min(random.uniform(LEAST, MOST), self._state.config.lease / 3)
        self._outage_began = began
        if now >= self._ends:
            raise TrialLater("the broker is away; the next trial comes later")
