"""Native threads beside the hub, and how they hand something over to it.

A native thread goes on while a job blocks the hub. It never logs, never calls hooks, and shares
no lock with greenlets: gevent has patched those. What it has to say goes through a `Mailbox`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import gevent
from gevent.monkey import get_original

T = TypeVar("T")

sleep: Callable[[float], None] = get_original("time", "sleep")
"""Sleeps the native thread that calls it, not a greenlet."""

_start_new_thread: Callable[..., int] = get_original("_thread", "start_new_thread")
_SLICE = 0.05


def start_thread(function: Callable[[], None]) -> None:
    """Runs the function in a native thread, which does not keep the process alive."""
    _start_new_thread(function, ())


def sleep_unless(stopped: Callable[[], bool], seconds: float) -> None:
    """Sleeps the native thread for that long, or until `stopped` says so (seen within 50 ms)."""
    while seconds > 0 and not stopped():
        sleep(min(seconds, _SLICE))
        seconds -= _SLICE


class Mailbox(Generic[T]):
    """Calls `deliver` in the hub's thread with each item that was sent from anywhere.

    `send` may be called in any native thread and in a signal handler. `deliver` runs in the hub:
    it must not block.
    """

    def __init__(self, deliver: Callable[[T], None]) -> None:
        self._deliver = deliver
        self._items: deque[T] = deque()
        self._watcher: Any = gevent.get_hub().loop.async_()
        self._watcher.start(self._drain)

    def send(self, item: T) -> None:
        self._items.append(item)
        self._watcher.send()

    def close(self) -> None:
        self._watcher.stop()
        self._watcher.close()

    def _drain(self) -> None:
        while self._items:
            self._deliver(self._items.popleft())
