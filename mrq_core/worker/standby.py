"""The native thread that goes on with the worker's duties while a job blocks the hub.

It has its own broker, and takes its duties one after the other: `LeaseKeeper` renews leases (`leases.py`),
`NativeSettler` settles outcomes that wait for the hub (`native_settling.py`), `Reports` writes the report if
the hub is late (`reporting.py`), and `Requests` answers requests then (`requests.py`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Protocol

from mrq_core.contract.broker import Broker
from mrq_core.worker.native import NativeLoop
from mrq_core.worker.worker_state import WorkerState

TICK = 0.05


class Duty(Protocol):
    """Periodic work of the native thread. It keeps its own pace, and handles its own errors: the thread logs
    any other error and pauses."""

    def perform(self, now: float, broker: Callable[[], Broker]) -> None:
        """Does what is due at this monotonic time. Called about every TICK seconds. `broker` returns the
        thread's broker, and opens it first if needed: raises what opening raises."""


class Standby:
    """The thread and its broker."""

    def __init__(self, state: WorkerState, duties: Sequence[Duty]) -> None:
        self._state = state
        self._duties = duties
        self._broker: Broker | None = None
        self._loop = NativeLoop(self._perform_all, first_pause=TICK, finish=self._close)

    def start(self) -> None:
        """Starts the thread."""
        self._loop.start()

    def stop(self) -> None:
        """Ends the thread soon; the thread closes its broker itself."""
        self._loop.stop()

    def _perform_all(self) -> float:
        now = time.monotonic()
        for duty in self._duties:
            duty.perform(now, self._opened)
        return TICK

    def _opened(self) -> Broker:
        if self._broker is None:
            self._broker = self._state.open_broker()
        return self._broker

    def _close(self) -> None:
        if self._broker is not None:
            self._broker.close()
