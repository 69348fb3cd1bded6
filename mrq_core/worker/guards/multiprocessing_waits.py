"""The pipes and locks of `multiprocessing` let other greenlets run while a job waits for them.

gevent leaves them as they are: a read of an empty pipe then keeps the whole worker, and with it the greenlets
that take the place of the threads of a `multiprocessing.Pool`, so that the read waits for ever.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any

import gevent
import gevent.hub
from gevent.monkey import get_original
from gevent.socket import wait_read, wait_write

from mrq_core.clock import monotonic
from mrq_core.debug.patching import ImportHook

_PACKAGES = ("multiprocessing", "multiprocess")
_CHUNK = select.PIPE_BUF
"""The bytes that one write may have without waiting for a reader, when the pipe is writable."""
_PAUSES = (0.001, 0.05)
"""Seconds from one try to take a lock to the next: the first pause, and the longest."""
_Read = Callable[[int, int], bytes]
_Write = Callable[[int, Any], int]
_Acquire = Callable[..., bool]
_hubs: Any = gevent.hub
_poll: Callable[[], Any] = get_original("select", "poll")


def let_multiprocessing_wait() -> None:
    """Changes the two modules when a task imports them, or now; also those of `multiprocess`, a copy of the
    package for other pickles."""
    ImportHook(
        {
            **{f"{package}.connection": _change_pipes for package in _PACKAGES},
            **{f"{package}.synchronize": _change_locks for package in _PACKAGES},
        }
    ).install()


def _change_pipes(module: Any) -> None:
    connection = module.Connection
    if connection._recv.__defaults__ == (os.read,) and connection._send.__defaults__ == (os.write,):
        connection._recv.__defaults__ = (_reading(os.read),)
        connection._send.__defaults__ = (_writing(os.write),)


def _reading(read: _Read) -> _Read:
    def wait_and_read(fd: int, size: int) -> bytes:
        while True:
            _wait(fd, select.POLLIN)
            try:
                return read(fd, size)
            except BlockingIOError:  # another reader was faster, or the end of a socket of gevent
                continue

    return wait_and_read


def _writing(write: _Write) -> _Write:
    def wait_and_write(fd: int, data: Any) -> int:
        while True:
            _wait(fd, select.POLLOUT)
            try:
                return write(fd, data[:_CHUNK])
            except BlockingIOError:
                continue

    return wait_and_write


def _wait(fd: int, events: int) -> None:
    """Returns when the descriptor is ready, or has failed."""
    poll = _poll()
    poll.register(fd, events)
    if not _may_wait():
        poll.poll()
    elif not poll.poll(0):
        (wait_read if events == select.POLLIN else wait_write)(fd)


def _may_wait() -> bool:
    """Whether the calling code can let other greenlets run: it is not in the hub, nor in a native thread."""
    hub: Any = _hubs._get_hub()
    return hub is not None and gevent.getcurrent() is not hub


def _change_locks(module: Any) -> None:
    kind = module.SemLock
    make_methods = kind._make_methods

    def make_and_change(self: Any) -> None:
        make_methods(self)
        self.acquire = _acquiring(self.acquire)

    kind._make_methods = make_and_change
    kind.__enter__ = lambda self: self.acquire()


def _acquiring(acquire: _Acquire) -> _Acquire:
    """`acquire` of a semaphore. It looks again and again, for no descriptor tells of a semaphore; not in a
    forked child, which mostly has one greenlet, and may wait long for work."""
    worker = os.getpid()

    def acquire_between(block: bool = True, timeout: float | None = None) -> bool:
        if not block or os.getpid() != worker or not _may_wait():
            return acquire(block, timeout)
        end = None if timeout is None else monotonic() + timeout
        pause, longest = _PAUSES
        while not acquire(False):
            if end is not None and (pause := min(pause, end - monotonic())) <= 0:
                return False
            gevent.sleep(pause)
            pause = min(2 * pause, longest)
        return True

    return acquire_between
