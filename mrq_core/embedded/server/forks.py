"""Keeps the process from forking amid a transaction.

SQLite keeps its locks in memory, beside those of the system. A child would take the locks of a transaction of
another thread for those of a connection in its own process, and wait for them in vain.
"""

from __future__ import annotations

import _queue
import os
from collections import deque
from contextlib import suppress

from mrq_core.clock import monotonic

_FORK_WAITS = 3.0
"""Seconds for which a fork waits for running transactions."""
_SLICE = 0.001

_transactions: deque[None] = deque()
"""An item for each transaction that runs in this process."""
_is_forking = False
_sleeper: _queue.SimpleQueue[None] = _queue.SimpleQueue()
"""Always empty: to wait for an item is a sleep that gevent has not patched."""


class _NoFork:
    """A context in which the process does not fork. Transactions of several threads may be in it."""

    __slots__ = ()

    def __enter__(self) -> None:
        _transactions.append(None)
        while _is_forking:
            _transactions.pop()
            sleep()
            _transactions.append(None)

    def __exit__(self, *error: object) -> None:
        _transactions.pop()


NO_FORK = _NoFork()


def is_transaction_running() -> bool:
    """Whether a thread of this process is in a transaction."""
    return bool(_transactions)


def sleep() -> None:
    """Sleeps the calling thread for a moment, not a greenlet."""
    with suppress(_queue.Empty):
        _sleeper.get(timeout=_SLICE)


def _before_fork() -> None:
    global _is_forking
    _is_forking = True
    deadline = monotonic() + _FORK_WAITS
    while _transactions and monotonic() < deadline:
        sleep()


def _after_fork() -> None:
    global _is_forking
    _is_forking = False


def _after_fork_in_child() -> None:
    _transactions.clear()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
