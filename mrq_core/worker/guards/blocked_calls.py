"""Calls of gevent's sockets that wait in the system, because a task has made the descriptor blocking.

gevent expects an error from a socket that has nothing to read, and then lets other greenlets run. A task that
makes the descriptors of its process blocking (`os.set_blocking`) makes the next such call keep the hub,
possibly for ever. The sockets of brokers belong to their clients, so the worker has no list of them: it finds
the socket in the frame of the thread that waits.
"""

from __future__ import annotations

import os
from typing import Any
from weakref import ReferenceType, ref

from gevent import socket

from mrq_core.frames import current_frames, reading_frames

_MODULES = frozenset({"gevent._socketcommon", "gevent._socket3", "gevent.ssl", "gevent._ssl3"})


class BlockedCalls:
    """Looks at the threads of the process. Used by one thread."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[ReferenceType[Any], int]] = {}
        """The sockets of the calls that the earlier look has found, and where each call was, by thread. Weak:
        finalizers of jobs must not run in the thread that looks."""

    @reading_frames
    def unblock(self) -> set[int]:
        """Makes the sockets non-blocking again in whose calls threads have waited since the earlier look.
        Returns the threads, which a signal lets try again."""
        found: set[int] = set()
        calls: dict[int, tuple[ReferenceType[Any], int]] = {}
        for thread, frame in current_frames().items():
            if frame.f_globals.get("__name__") not in _MODULES:
                continue
            waiting: Any = frame.f_locals.get("self")
            if issubclass(type(waiting), socket.socket):
                calls[thread] = call = (ref(waiting), frame.f_lasti)
                # Others are calls that go on, for instance of a job that makes many sockets.
                if self._before.get(thread) == call and _unblock(waiting):
                    found.add(thread)
        self._before = calls
        return found


def _unblock(waiting: Any) -> bool:
    """Whether the socket of gevent was blocking."""
    try:
        raw: Any = waiting._sock
        if raw.gettimeout() == 0.0 and not os.get_blocking(raw.fileno()):
            return False
        raw.setblocking(False)
    except (OSError, ValueError, AttributeError, RecursionError):  # it is closed, or being made
        return False
    return True
