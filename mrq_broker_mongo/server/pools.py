"""Pools of pymongo, with differences that signal handlers, greenlets and forks need."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from operator import attrgetter
from types import FrameType
from typing import Any
from weakref import WeakSet

from pymongo.synchronous.pool import Connection, Pool

from mrq_core.drivers import child_sockets
from mrq_core.drivers.forks import start_anew_in_children

_OF_CONNECTING = frozenset({__name__.partition(".")[0], "pymongo", "gevent", "ssl", "socket"})
"""The packages whose code connects. The sockets of other code there, such as a log handler, stay."""


class Condition(threading.Condition):
    """A condition for `with` blocks that enter its lock by a call into C. `Condition.__enter__` is Python
    code, in which a handler can raise when the lock is taken: the same call of pymongo then waits without
    end, because it takes the lock again to put its counters right."""

    def __init__(self, lock: Any) -> None:
        super().__init__(lock)
        self.enter_lock, self.exit_lock = lock.__enter__, lock.__exit__

    __enter__ = property(attrgetter("enter_lock"))
    __exit__ = property(attrgetter("exit_lock"))


class MrqPool(Pool):
    """A pool whose connections a forked child does not use."""

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self.size_cond = Condition(self.lock)
        self._max_connecting_cond = Condition(self.lock)
        self._connecting: WeakSet[Any] = WeakSet()
        self._monitors: WeakSet[threading.Thread] = WeakSet()
        start_anew_in_children(self)

    def connect(self, *args: Any, **more: Any) -> Connection:
        """Opens a connection."""
        if self.is_sdam:
            self._monitors.add(threading.current_thread())
        known: Any = sys.modules.get("greenlet")
        me = {known.getcurrent()} if known is not None else set()
        try:
            self._connecting |= me
            made = super().connect(*args, **more)
        finally:
            self._connecting -= me
        child_sockets.keep_from_children(made.conn.fileno())
        return made

    def start_anew(self) -> None:
        """See `StartsAnew`. Replaces sockets that greenlets were connecting at the moment of the fork: only
        the frames of pymongo know these."""
        left, self._connecting = self._connecting, WeakSet()
        child_sockets.replace({number for one in left for number in _sockets_in(one.gr_frame)})
        for thread in self._monitors:
            # Under gevent a copy of it ends here. The child has forgotten it, and each Thread forgets itself.
            thread._delete = _do_nothing  # type: ignore[attr-defined]


def _do_nothing() -> None:
    """Replaces a method of a thread."""


def _sockets_in(frame: FrameType | None) -> Iterator[int]:
    """The descriptors of the sockets in the frames of a greenlet that connects."""
    frames: list[FrameType] = []
    while frame is not None:
        frames.append(frame)
        if frame.f_code is MrqPool.connect.__code__:
            break
        frame = frame.f_back
    for inner in reversed(frames):
        if inner.f_globals.get("__name__", "").partition(".")[0] not in _OF_CONNECTING:
            return
        for value in inner.f_locals.values():
            if issubclass(type(value), Connection):
                value = value.conn
            elif not issubclass(type(value), socket.socket):
                continue
            number = value.fileno()
            if number >= 0:
                yield number
