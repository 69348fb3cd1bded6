"""Locks that are made anew in a forked child forget the greenlets that wait for them in the parent.

gevent keeps these greenlets: when the child gives such a lock back, it wakes the copy of a greenlet that it
must not run, another job for example, and that greenlet has the lock from then on.
"""

from __future__ import annotations

import gc
from typing import Any

from gevent import thread  # type: ignore[attr-defined]

_kind: Any = thread.LockType
_reinit: Any = _kind._at_fork_reinit


def forget_waiters_after_fork() -> None:
    """Changes the locks of this process. Call it early: `os.register_at_fork` keeps methods of locks."""
    _kind._at_fork_reinit = _reinit_without_waiters


def _reinit_without_waiters(lock: object) -> None:
    _reinit(lock)
    for waiting in gc.get_referents(lock):  # gevent hides the list
        if type(waiting) is list:
            waiting.clear()
