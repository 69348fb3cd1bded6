"""Native threads beside the hub, and the mailbox through which they reach the hub.

A native thread goes on while a job blocks the hub. It never logs, never calls hooks, and shares no lock
with greenlets, because gevent has patched the locks. It sends everything through a `Mailbox`. Signals that
mean nothing to the worker do not reach it.
"""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any, Generic, TypeVar

import gevent
import gevent.hub
from gevent.monkey import get_original

from mrq_core.clock import monotonic
from mrq_core.worker.guards.guarded_log import GuardedLog

T = TypeVar("T")

sleep: Callable[[float], None] = get_original("time", "sleep")
"""Sleeps the native thread that calls it, not a greenlet."""

_start_new_thread: Callable[..., int] = get_original("_thread", "start_new_thread")
_stack_size: Callable[[int], int] = get_original("_thread", "stack_size")
get_ident: Callable[[], int] = get_original("_thread", "get_ident")
_SLICE = 0.05
_PAUSE_AFTER_ERROR = 1.0
_PATIENCE_WITH_THREADS = 1.0
"""Seconds. Threads of pymongo look every half second whether their client is closed."""

_HEARD = frozenset(
    {
        *(signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD),  # of the worker
        *(signal.SIGXCPU, signal.SIGXFSZ, signal.SIGPIPE),  # limits and files
        *(signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV),  # faults of a thread
        *(signal.SIGSYS, signal.SIGTRAP),
    }
)
"""Signals that a native thread of the worker takes, also while a task has blocked them in the main thread."""
_UNHEARD = [int(one) for one in signal.valid_signals() if one not in _HEARD]
_raw: Any = import_module("_signal")
"""Without enums, which cost more than the call."""

_log = GuardedLog("mrq.worker")


def start_native_thread(run: Callable[..., None], *arguments: object) -> None:
    """Calls the function in a new native thread, which does not keep the process alive. Raises RuntimeError
    if the system starts no thread. A task may have chosen a size for the stacks of its threads."""
    size = _stack_size(0)
    try:
        with starting_threads():
            _start_new_thread(run, arguments)
    finally:
        _stack_size(size)


@contextmanager
def starting_threads() -> Iterator[None]:
    """Threads that are started in the block leave signals to the main thread, from their first instruction
    on: they block what the thread that starts them has blocked. A task that blocks a signal there, to wait
    for it with `signal.sigwait`, would not get it otherwise: the system gives it to any thread that does not
    block it, and its default ends the process."""
    mask = _raw.pthread_sigmask(signal.SIG_BLOCK, _UNHEARD)
    try:
        yield
    finally:
        _raw.pthread_sigmask(signal.SIG_SETMASK, mask)


def thread_id() -> int:
    """The number of the calling native thread, for signal.pthread_kill."""
    return get_ident()


def start_lasting_thread(run: Callable[..., None], *arguments: object) -> None:
    """Like `start_native_thread`, for a function that ends with the worker. It is called again after errors,
    because a task can raise one in any thread (`PyThreadState_SetAsyncExc`)."""

    def last(pause: float) -> None:
        is_over = False
        try:
            if pause:
                sleep(pause)
            run(*arguments)
            is_over = True
        except BaseException:  # one more may come in this block, so the next thread is started below
            pass
        finally:
            if not is_over:
                start_native_thread(last, _SLICE)

    start_native_thread(last, 0.0)


class NativeLoop:
    """A native thread that calls `step` repeatedly until it is stopped, and then `finish`.

    `step` returns the seconds to sleep before the next call. The hub's thread logs an exception of `step`,
    and the loop goes on. The thread does not keep the process alive.
    """

    def __init__(self, step: Callable[[], float], *, first_pause: float, finish: Callable[[], None]) -> None:
        self._step = step
        self._pause = first_pause
        self._finish = finish
        self._stopped = False
        self._errors: Mailbox[Exception] = Mailbox(_log_error)

    def start(self) -> None:
        start_lasting_thread(self._run)

    def stop(self) -> None:
        """Ends the thread within 50 ms, or when the current step returns."""
        self._stopped = True
        self._errors.close()

    def _run(self) -> None:
        pause = self._pause
        while True:
            ends = monotonic() + pause
            while not self._stopped and (left := ends - monotonic()) > 0:
                sleep(min(left, _SLICE))
            if self._stopped:
                break
            try:
                pause = self._step()
            except Exception as error:
                self._errors.send(error)
                pause = _PAUSE_AFTER_ERROR
        self._finish()
        _end_threads()


class Mailbox(Generic[T]):
    """Calls `deliver` in the hub's thread with each item that was sent.

    `send` may be called in any native thread and in a signal handler. `deliver` runs in the hub and must
    not block.
    """

    def __init__(self, deliver: Callable[[T], None]) -> None:
        self._deliver = deliver
        self._closed = False
        self._items: deque[T] = deque()
        self._watcher: Any = gevent.get_hub().loop.async_()
        self._watcher.start(self._drain)

    def send(self, item: T) -> None:
        if not self._closed:
            self._items.append(item)
            self._watcher.send()

    def close(self) -> None:
        """Delivers nothing more. Later calls of `send` have no effect."""
        self._closed = True
        self._watcher.stop()
        self._watcher.close()

    def _drain(self) -> None:
        while self._items:
            self._deliver(self._items.popleft())


def _end_threads() -> None:
    """Lets the threads that libraries have started in this native thread end, such as those of pymongo's
    clients: they are greenlets of its hub. At its exit, the process waits for them."""
    hubs: Any = gevent.hub
    if hubs._get_hub() is not None:
        gevent.wait(timeout=_PATIENCE_WITH_THREADS)


def _log_error(error: Exception) -> None:
    _log.error("thread.broke: it goes on", exc_info=error)
