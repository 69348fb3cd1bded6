"""Tells code of the worker's process in which an exception from elsewhere would harm other jobs."""

from __future__ import annotations

import sys
from types import FrameType

_LOCKING_MODULES = frozenset(
    {
        *("gevent.thread", "gevent.lock", "threading", "_frozen_importlib", "importlib._bootstrap"),
        *("mrq_core.worker.guards.logging_lock", "mrq_core.worker.guards.thread_locks"),
    }
)
_LOCKING_FUNCTIONS = frozenset({"handle", "acquire", "release", "_acquireLock", "_releaseLock"})
_SHARED_PACKAGES = frozenset(
    {"mrq_broker_mongo", "mrq_broker_redis", "mrq_core", "bson", "gevent", "pymongo", "redis"}
)
_RUNNER, _GUARDS = "mrq_core.worker.", "mrq_core.worker.guards."


def may_hold_a_lock(frame: FrameType | None) -> bool:
    """Whether the frame may just have taken a lock, and not yet entered the `try` that releases it."""
    if frame is None:
        return False
    module = frame.f_globals.get("__name__", "")
    return module in _LOCKING_MODULES or (module == "logging" and frame.f_code.co_name in _LOCKING_FUNCTIONS)


def is_shared(frame: FrameType | None) -> bool:
    """Whether code of a task has called code here that works for all jobs: connections to the broker, whose
    replies others would get, the pool of native threads, or a lock."""
    if may_hold_a_lock(frame):
        return True
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        package = module.partition(".")[0]
        if package in _SHARED_PACKAGES:
            return module.startswith(_GUARDS) or not module.startswith(_RUNNER)
        if package not in sys.stdlib_module_names:
            return False
        frame = frame.f_back
    return False
