"""Keeps the process from forking amid a transaction.

SQLite keeps its locks in memory, beside those of the system. A child would take the locks of a transaction of
another thread for those of a connection in its own process, and wait for them in vain.
"""

from __future__ import annotations

import _queue
import os
from collections import deque
from contextlib import suppress
from threading import get_ident

from mrq_core.clock import monotonic
from mrq_core.drivers.forks import call_others_outside

_FORK_WAITS = 3.0
"""Seconds for which a fork waits for running transactions."""
_CALL_WAITS = 0.25
"""Seconds for which calls wait for a fork in another thread. The process itself forks under the GIL, so that
calls wait only while functions run before and after it: one of them may wait for a lock of a caller."""
_SLICE = 0.001

_transactions: deque[None] = deque()
"""An item for each transaction that runs in this process."""
_forking: int | None = None
"""The thread that forks, as long as calls wait for it."""
_sleeper: _queue.SimpleQueue[None] = _queue.SimpleQueue()
"""Always empty: to wait for an item is a sleep that gevent has not patched."""


class _NoFork:
    """A context in which the process does not fork. Transactions of several threads may be in it.

    The thread that forks may enter it: a function that a program runs before or after each fork calls mrq.
    Other threads may enter it after `_CALL_WAITS`.
    """

    __slots__ = ()

    def __enter__(self) -> None:
        _transactions.append(None)
        if _is_forking_elsewhere():
            _transactions.pop()
            _wait_for_fork()

    def __exit__(self, *error: object) -> None:
        _transactions.pop()


NO_FORK = _NoFork()


def is_transaction_running() -> bool:
    """Whether a thread of this process is in a transaction."""
    return bool(_transactions)


def sleep(seconds: float = _SLICE) -> None:
    """Sleeps the calling thread for a moment, not a greenlet."""
    with suppress(_queue.Empty):
        _sleeper.get(timeout=seconds)


def _is_forking_elsewhere() -> bool:
    return _forking is not None and _forking != get_ident()


def _wait_for_fork() -> None:
    """Waits until no other thread forks, and notes a transaction."""
    global _forking
    deadline = monotonic() + _CALL_WAITS
    while True:
        while _is_forking_elsewhere():
            if monotonic() > deadline:
                _forking = None
            sleep()
        _transactions.append(None)
        if not _is_forking_elsewhere():
            return
        _transactions.pop()


def _before_fork() -> None:
    global _forking
    _forking = get_ident()
    deadline = monotonic() + _FORK_WAITS
    while _transactions and monotonic() < deadline:
        sleep()


def _after_fork() -> None:
    global _forking
    _forking = None


def _after_fork_in_child() -> None:
    _transactions.clear()
    _after_fork()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
call_others_outside(_before_fork, _after_fork, _after_fork_in_child)
