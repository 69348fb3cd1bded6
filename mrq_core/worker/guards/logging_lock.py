"""Locks for the logging module and its handlers that no job can hold for ever.

The module has one lock for its loggers, handlers and levels. A job that configures logging holds it, also
while a slow handler connects to its server, and a job that is interrupted may never release it. Then all code
that asks for a logger waits: jobs, the worker, and the native threads that renew leases.

Each handler has a lock, too, which an interrupt in `Handler.release` leaves locked. And a lock of gevent that
a native thread has used may not wake a greenlet: it leaves that to the loop of the thread, which is idle.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists
from gevent.monkey import get_original
from greenlet import getcurrent

from mrq_core.clock import monotonic

_PATIENCE, _PATIENCE_WITH_HANDLER = 1.0, 5.0
"""Seconds that a caller waits for the lock of the module, or of a handler, before the holder loses it."""
_STEP = 0.005
"""Seconds between two looks at the lock."""

_sleep_natively = get_original("time", "sleep")
_new_mutex: Callable[[], Any] = get_original("_thread", "allocate_lock")


class PatientLock:
    """A reentrant lock whose holder loses it to a caller that has waited for `patience` seconds, or when the
    holder's greenlet has ended. Works across greenlets and native threads; the hub does not wait.

    What the lock protects may then be changed by two greenlets at once: dictionaries of loggers, whose single
    operations are atomic, or what a handler writes.
    """

    def __init__(self, patience: float = _PATIENCE) -> None:
        self._patience = patience
        self._owner: Any = None
        self._depth = 0
        self._slow: Any = None
        """The owner that has lost the lock: it gets no time again."""
        self._mutex = _new_mutex()

    def acquire(self, blocking: bool = True, timeout: float = -1.0) -> bool:
        """Takes the lock. False: another greenlet holds it, and the caller does not wait so long."""
        me = getcurrent()
        started = monotonic()
        while not self._take(me, is_over=monotonic() - started >= self._patience):
            if not blocking or 0 <= timeout <= monotonic() - started:
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


def guard_logging_locks() -> None:
    """Makes the logging module, and handlers that have a lock, use a `PatientLock`. Has no effect after the
    first call."""
    module: Any = logging
    if isinstance(module._lock, PatientLock):
        return
    module._lock = PatientLock()
    module.Handler.createLock = _create_lock
    for reference in tuple(module._handlerList):
        handler = reference()
        if handler is not None and handler.lock is not None:
            handler.lock = PatientLock(_PATIENCE_WITH_HANDLER)


_create_plain_lock = logging.Handler.createLock


def _create_lock(handler: logging.Handler) -> None:
    _create_plain_lock(handler)  # which also frees the lock after a fork
    handler.lock = PatientLock(_PATIENCE_WITH_HANDLER)  # type: ignore[assignment]
