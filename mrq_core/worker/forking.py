"""Keeps a process that a task forks from acting as a second worker.

The child has the task's greenlet and copies of all other greenlets: the worker's loop, the other jobs. If
the child waited, its copy of the hub would run them a second time. Therefore the child gets a new hub, on
which only the task's greenlet runs, and the default signal handlers.
"""

from __future__ import annotations

import os
import signal
from typing import Any

from gevent import hub
from gevent._hub_local import get_hub_if_exists, set_hub, set_loop

from mrq_core.worker.signals import STOP_SIGNALS  # whose hook for children must run before this one

_left_behind: list[object] = []
"""The hub of the worker. Kept: its deletion would wake its greenlets with GreenletExit."""
_workers = 0
_SIGNALS = (*STOP_SIGNALS, signal.SIGALRM)
_masks: list[set[int | signal.Signals]] = []


def enter_worker() -> None:
    """Makes forked children of this process leave the worker behind from now on."""
    global _workers
    _workers += 1


def leave_worker() -> None:
    """Undoes `enter_worker`."""
    global _workers
    _workers -= 1


def _before() -> None:
    # A signal that reached the child before it has its own handlers would be lost.
    if _workers:
        _masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS))


def _in_parent() -> None:
    if _masks:
        signal.pthread_sigmask(signal.SIG_SETMASK, _masks.pop())


def _in_child() -> None:
    if not _workers:
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for signum in (signal.SIGTERM, signal.SIGALRM):
        signal.signal(signum, signal.SIG_DFL)
    _left_behind.append(get_hub_if_exists())
    nothing: Any = None
    set_hub(nothing)
    set_loop(nothing)
    set_hub(hub.Hub(default=False))
    _in_parent()


os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
