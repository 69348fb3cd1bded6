"""A lock for the logging module that no job can hold for ever.

The module has one lock for its loggers, handlers and levels. A job that configures logging holds it, also
while a slow handler connects to its server, and a job that is interrupted may never release it. Then all code
that asks for a logger waits: jobs, the worker, and the native threads that renew leases.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists
from gevent.monkey import get_original
from greenlet import getcurrent

_PATIENCE = 1.0
"""Seconds that a caller waits for the lock before the holder loses it."""
_STEP = 0.005
"""Seconds between two looks at the lock."""

_sleep_natively = get_original("time", "sleep")
_new_mutex: Callable[[], Any] = get_original("_thread", "allocate_lock")


class PatientLock:
    """A reentrant lock whose holder loses it to a caller that has waited for a second, or when the holder's
    greenlet has ended. Works across greenlets and native threads; the hub does not wait.

    What the lock protects may then be changed by two greenlets at once: dictionaries of loggers, whose single
    operations are atomic.
    """

    def __init__(self) -> None:
        self._owner: Any = None
        self._depth = 0
        self._slow: Any = None
        """The owner that has lost the lock: it gets no time again."""
        self._mutex = _new_mutex()

    def acquire(self, blocking: bool = True, timeout: float = -1.0) -> bool:
        """Takes the lock. False: another greenlet holds it, and the caller does not wait so long."""
        me = getcurrent()
        started = time.monotonic()
        while not self._take(me, is_over=time.monotonic() - started >= _PATIENCE):
            if not blocking or 0 <= timeout <= time.monotonic() - started:
                return False
            hub = get_hub_if_exists()
            if hub is None:
                _sleep_natively(_STEP)
            elif me is hub:
                return self._take(me, is_over=True)
            else:
                gevent.sleep(_STEP)
        return True

    def release(self) -> None:
        """Releases the lock once. Does nothing for a greenlet that has lost it."""
        with self._mutex:
            if self._owner is getcurrent():
                self._depth -= 1
                if not self._depth:
                    self._owner = None

    def _take(self, me: Any, *, is_over: bool) -> bool:
        with self._mutex:
            owner = self._owner
            if owner is me:
                self._depth += 1
                return True
            if owner is not None:
                if not is_over and not owner.dead and owner is not self._slow:
                    return False
                self._slow = owner
            self._owner, self._depth = me, 1
            return True

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()

    def _at_fork_reinit(self) -> None:
        """In a forked child: nothing holds the lock. `logging` calls this by its name."""
        self._owner, self._depth, self._slow = None, 0, None
        self._mutex = _new_mutex()


def guard_logging_lock() -> None:
    """Makes the logging module use a `PatientLock`. Has no effect after the first call."""
    if not isinstance(logging._lock, PatientLock):  # type: ignore[attr-defined]
        setattr(logging, "_lock", PatientLock())  # noqa: B010
