"""Finalizers of a job's garbage do not keep the greenlets of the worker.

Python runs the `__del__` methods and the `weakref.finalize` callbacks of garbage wherever its collector runs,
which may be in the greenlet that claims jobs or in one that settles outcomes. One that waits, for instance
for a server that is away, keeps that greenlet. A callback of the hub looks for such greenlets and raises an
exception in them, which Python prints and which ends the finalizer alone.
"""

from __future__ import annotations

from types import FrameType
from typing import Any
from weakref import WeakKeyDictionary, finalize

import gevent

from mrq_core.clock import monotonic
from mrq_core.worker.guards.guarded_log import GuardedLog

PATIENCE = 5.0
"""Seconds for which a finalizer may keep a greenlet of the worker."""
TRIES = 3
"""How often a finalizer that goes on is interrupted, before the worker is given up."""
_LOOK = 1.0
"""Seconds from one look to the next."""
_NEXT = 0.01
"""Seconds from one interrupt to a look whether the next finalizer waits."""
_SOON = 1.0
"""Seconds after an interrupt in which other finalizers are the next ones."""

_FINALIZE = finalize.__call__.__code__
_log = GuardedLog("mrq.worker")


class FinalizerInterrupt(BaseException):
    """Raised in a finalizer that has kept a greenlet of the worker for too long."""


class FinalizerWatch:
    """Looks at the greenlets of the worker. Start it in the hub's thread."""

    def __init__(self) -> None:
        self.fault = ""
        """Why the worker cannot go on: a finalizer has ignored `TRIES` interrupts."""
        self._greenlets: list[Any] = []
        self._found: dict[Any, tuple[FrameType, float, int]] = {}
        """The finalizer in each greenlet, since when it is known or was interrupted, and how often it was."""
        self._interrupted: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
        self._timer: Any = None

    def start(self) -> None:
        """Looks from now on."""
        self._timer = gevent.get_hub().loop.timer(_LOOK, _LOOK, ref=False)
        self._timer.start(self._look)

    def stop(self) -> None:
        """Looks no more."""
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def add(self, greenlet: Any) -> None:
        """Watches this greenlet too, until it ends."""
        self._greenlets.append(greenlet)

    def _look(self) -> None:
        for greenlet in self._greenlets:
            self._examine(greenlet)
        self._greenlets[:] = [one for one in self._greenlets if not one.dead]

    def _examine(self, greenlet: Any) -> None:
        finalizer = None if greenlet.dead else _finalizer_in(greenlet)
        if finalizer is None:
            self._found.pop(greenlet, None)
            return
        now = monotonic()
        known, since, tries = self._found.get(greenlet, (None, now, 0))
        if finalizer is not known:
            self._found[greenlet] = (finalizer, now, 0)
            # The collector calls the finalizers of all garbage one after the other: those that follow one
            # that was too long get no time.
            if now - self._interrupted.get(greenlet, -_SOON) < _SOON:
                self._interrupt(greenlet, finalizer, 0, is_told=True)
        elif now - since >= PATIENCE:
            self._found[greenlet] = (finalizer, now, tries + 1)
            self._interrupt(greenlet, finalizer, tries, is_told=False)

    def _interrupt(self, greenlet: Any, finalizer: FrameType, tries: int, *, is_told: bool) -> None:
        code = finalizer.f_code
        name = f"{getattr(code, 'co_qualname', code.co_name)} ({code.co_filename}, line {finalizer.f_lineno})"
        if tries >= TRIES:
            self.fault = f"{name} of a job's garbage keeps a greenlet of the worker"
            return
        if not is_told:
            _log.error(
                "finalizer.interrupted: %s of a job's garbage has kept a greenlet of the worker for %g s",
                name, PATIENCE,
            )  # fmt: skip
        loop = gevent.get_hub().loop
        self._interrupted[greenlet] = monotonic()
        loop.run_callback(greenlet.throw, FinalizerInterrupt)
        again = loop.timer(_NEXT, ref=False)
        again.start(self._look_again, greenlet, again)

    def _look_again(self, greenlet: Any, timer: Any) -> None:
        timer.close()
        self._examine(greenlet)


watch = FinalizerWatch()
"""That of the worker of this process."""


def _finalizer_in(greenlet: Any) -> FrameType | None:
    """The frame of the outermost finalizer in a greenlet that waits."""
    found = None
    frame: FrameType | None = greenlet.gr_frame
    while frame is not None:
        if frame.f_code.co_name == "__del__" or frame.f_code is _FINALIZE:
            found = frame
        frame = frame.f_back
    return found
