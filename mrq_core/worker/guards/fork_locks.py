"""Locks are free in a forked child, and forget the greenlets that wait for them in the parent.

gevent keeps these greenlets when Python makes a lock anew: the child, when it gives the lock back, wakes the
copy of a greenlet that it must not run, another job for example, and that greenlet has the lock from then on.
"""

from __future__ import annotations

import concurrent.futures.thread as executors
import gc
import os
from typing import Any

from gevent import thread  # type: ignore[attr-defined]

_executors: Any = executors
_kind: Any = thread.LockType
_reinit: Any = _kind._at_fork_reinit


def free_locks_after_fork() -> None:
    """Changes the locks of this process. Call it early: `os.register_at_fork` keeps methods of locks."""
    _kind._at_fork_reinit = _reinit_without_waiters
    # The module was imported before gevent replaced its lock, and has registered the lock that it had then.
    os.register_at_fork(after_in_child=lambda: _executors._global_shutdown_lock._at_fork_reinit())


def _reinit_without_waiters(lock: object) -> None:
    _reinit(lock)
    for waiting in gc.get_referents(lock):  # gevent hides the list
        if type(waiting) is list:
            waiting.clear()
