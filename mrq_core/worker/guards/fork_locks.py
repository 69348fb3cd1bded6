"""Locks are free in a forked child, and forget the greenlets that wait for them in the parent.

gevent keeps these greenlets when Python makes a lock anew: the child, when it gives the lock back, wakes the
copy of a greenlet that it must not run, another job for example, and that greenlet has the lock from then on.

The lock of `concurrent.futures`, which each fork of the process takes, works across greenlets and native
threads: one of gevent may not wake the thread that forks at the same time as another.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
from importlib import import_module
from typing import Any

from gevent import thread  # type: ignore[attr-defined]
from gevent import threading as threads  # type: ignore[attr-defined]

from mrq_core.worker.guards.logging_lock import PatientLock
from mrq_core.worker.guards.native import thread_id

_EXECUTORS = "concurrent.futures.thread"
_kind: Any = thread.LockType
_hooks: Any = threads._ForkHooks
_reinit: Any = _kind._at_fork_reinit


def free_locks_after_fork() -> None:
    """Changes the locks of this process. Call it early: `os.register_at_fork` keeps methods of locks."""
    _kind._at_fork_reinit = _reinit_without_waiters
    for name in ("_before_fork_current_thread", "_before_fork_ident"):
        setattr(_hooks, name, _OfThread())
    executors: Any = sys.modules[_EXECUTORS]
    # It was imported before gevent replaced its lock, and has registered the lock that it had then.
    os.register_at_fork(after_in_child=lambda: executors._global_shutdown_lock._at_fork_reinit())


class _OfThread:
    """An attribute with one value for each native thread. gevent notes there which thread forks."""

    def __init__(self) -> None:
        self._values: dict[int, Any] = {}

    def __get__(self, owner: object, kind: type) -> Any:
        return self._values.get(thread_id())

    def __set__(self, owner: object, value: Any) -> None:
        self._values[thread_id()] = value


def import_executors() -> None:
    """Imports the module of executors, with a `PatientLock` if it is imported now: it registers methods of
    its lock for each fork. Call it before gevent patches the library."""
    new_lock = threading.Lock
    setattr(threading, "Lock", PatientLock)  # noqa: B010
    try:
        import_module(_EXECUTORS)
    finally:
        setattr(threading, "Lock", new_lock)  # noqa: B010


def _reinit_without_waiters(lock: object) -> None:
    _reinit(lock)
    for waiting in gc.get_referents(lock):  # gevent hides the list
        if type(waiting) is list:
            waiting.clear()
