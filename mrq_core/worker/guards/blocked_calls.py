"""Calls of gevent's sockets that wait in the system, because a task has made the descriptor blocking.

gevent expects an error from a socket that has nothing to read, and then lets other greenlets run. A task that
makes the descriptors of its process blocking (`os.set_blocking`) makes the next such call keep the hub,
possibly for ever. The sockets of brokers belong to their clients, so the worker has no list of them: it finds
the socket in the frame of the thread that waits.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from gevent import socket

_MODULES = frozenset({"gevent._socketcommon", "gevent._socket3", "gevent.ssl", "gevent._ssl3"})


def unblock_calls() -> set[int]:
    """Makes the sockets non-blocking again in whose calls threads wait. Returns the threads, which a signal
    lets try again."""
    found: set[int] = set()
    for thread, frame in sys._current_frames().items():
        if frame.f_globals.get("__name__") in _MODULES:
            owner: object = frame.f_locals.get("self")
            if isinstance(owner, socket.socket) and _unblock(owner):
                found.add(thread)
    return found


def _unblock(waiting: Any) -> bool:
    """Whether the socket of gevent was blocking."""
    raw: Any = waiting._sock
    try:
        if raw.gettimeout() == 0.0 and not os.get_blocking(raw.fileno()):
            return False
        raw.setblocking(False)
    except (OSError, ValueError):  # it is closed
        return False
    return True
