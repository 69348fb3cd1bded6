"""Keeps the garbage collector out of transactions that write.

The collector starts at any allocation, and calls the `__del__` methods of a job's garbage. One that waits or
computes for long would keep the file locked for all other processes.
"""

from __future__ import annotations

import gc
import os
from collections import deque

_transactions: deque[None] = deque()
"""An item for each thread that is in such a transaction."""
_has_paused: deque[None] = deque()
"""One item while the collector is paused here. Empty: a task has disabled it, or nothing has."""


class _NoGarbage:
    """A context in which the collector does not run. Threads that write to different files may be in it."""

    __slots__ = ()

    def __enter__(self) -> None:
        _transactions.append(None)
        if gc.isenabled():
            gc.disable()
            _has_paused.append(None)

    def __exit__(self, *error: object) -> None:
        _transactions.pop()
        if _has_paused and not _transactions:
            _has_paused.clear()
            gc.enable()


def _in_child() -> None:
    _transactions.clear()
    if _has_paused:
        _has_paused.clear()
        gc.enable()


NO_GARBAGE = _NoGarbage()
os.register_at_fork(after_in_child=_in_child)
