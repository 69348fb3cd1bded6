"""Greenlets that wait for a lock look at it once a second, whether or not they are woken.

A lock of gevent that is released belongs to no hub. If a native thread takes it before a greenlet that waits,
and releases it, nothing wakes this greenlet (`BoundedSemaphore.release`, `_notify_link_list` of gevent). It
would wait for ever if nothing else uses the lock. Log handlers have other locks, see `logging_lock`.
"""

from __future__ import annotations

from typing import Any

from gevent import thread  # type: ignore[attr-defined]
from gevent._hub_local import get_hub_if_exists
from gevent.lock import BoundedSemaphore

_LOOK = 1.0
"""Seconds between two looks."""

_kind: Any = thread.LockType
_acquire_once: Any = _kind.acquire
_take: Any = BoundedSemaphore.acquire


def guard_thread_locks() -> None:
    """Changes the locks of this process, also those that exist."""
    _kind.acquire = _acquire


def _acquire(lock: Any, blocking: bool = True, timeout: float | None = -1) -> bool:
    """Replaces LockType.acquire."""
    if not blocking or (timeout != -1 and timeout is not None):
        return bool(_acquire_once(lock, blocking, timeout))
    if _take(lock, False):
        return True
    if get_hub_if_exists() is None:  # a native thread, which waits natively
        return bool(_acquire_once(lock))
    while not _acquire_once(lock, True, _LOOK):
        pass
    return True
