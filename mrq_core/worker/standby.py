"""The native thread that goes on with the worker's duties while a job blocks the hub.

It has its own broker, and takes its duties one after the other: `LeaseKeeper` renews leases (`leases.py`),
`NativeSettler` settles outcomes that wait for the hub (`native_settling.py`), and three parts of `reporting/`
go on if the hub is late: `Reports` writes the report (`report.py`), `Requests` answers requests
(`requests.py`), and `Profiler` answers with the profiles of runs that have ended (`profiling.py`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
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
        thread's broker, and opens it first if needed: raises what opening raises, and
        BrokerUnavailable during an outage."""


class Standby:
    """The thread and its broker."""

    def __init__(self, state: WorkerState, duties: Sequence[Duty]) -> None:
        self._state = state
        self._duties = duties
        self._broker: Broker | None = None
        self._next_trial = self._trial_ends = self._outage_began = 0.0
        self._loop = NativeLoop(self._perform_all, first_pause=TICK, finish=self._close)

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread soon; the thread closes its broker itself."""
        self._loop.stop()

    def _perform_all(self) -> float:
        now = monotonic()
        for duty in self._duties:
            duty.perform(now, self._opened)
        return TICK

    def _opened(self) -> Broker:
        if self._state.outage.is_on:
            self._wait_with_the_hub(monotonic())
        if self._broker is None:
            self._broker = self._state.open_broker()
        return self._broker

    def _wait_with_the_hub(self, now: float) -> None:
        """Raises BrokerUnavailable except at random moments: many workers must not come back at once."""
        outage = self._state.outage
        is_new = self._outage_began != outage.began
        if is_new or now >= self._next_trial:
            self._trial_ends = 0.0 if is_new else now + 2 * TICK
            self._outage_began = outage.began
            self._next_trial = now + min(random.uniform(LEAST, MOST), self._state.config.lease / 3)
        if now >= self._trial_ends:
            raise BrokerUnavailable("the broker is away; the next trial comes later")

    def _close(self) -> None:
        if self._broker is not None:
            self._broker.close()
