"""Receives signals in a native thread, whatever the main thread does.

Python runs signal handlers in the main thread between two instructions, and so not while that thread is in C
code, such as a driver that connects. The C half of a handler runs at once: it writes the number of the signal
to a pipe (`signal.set_wakeup_fd`), which the thread reads. The Python half only checks that pipe.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import stat
import sys
import threading
from collections.abc import Callable, Iterable
from importlib import import_module
from types import FrameType, MethodType
from typing import Any, NoReturn

from mrq_core.worker.guards.native import start_lasting_thread
from mrq_core.worker.guards.own_descriptors import own
from mrq_core.worker.guards.process_end import (
    LEAVE_WITHIN,
    end_process_within,
    exit_now,
    set_exit_code,
    write_and_exit,
)

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_set_wakeup_fd: Callable[..., int] = import_module("_signal").set_wakeup_fd
"""The call before `noted_calls` notes it."""
_set_handler: Callable[..., Any] = signal.signal
_get_handler: Callable[..., Any] = signal.getsignal
_END = 0
"""The byte that ends the thread; no signal has this number."""

_active: list[SignalReader] = []
"""The readers, the current reader last."""

_INTERRUPTED = 130


class SignalReader:
    """The pipe and the thread, which calls `receive` with the number of each signal that arrives."""

    def __init__(self, receive: Callable[[int], None]) -> None:
        self.receive = receive
        self._signums: frozenset[int] = frozenset()
        self._earlier: dict[int, Any] = {}
        self._earlier_pipe = -1
        self._pipe = -1
        self._ends: tuple[int, ...] = ()
        self._process = os.getpid()

    def start(self, signums: Iterable[int]) -> None:
        """Takes over these signals, except SIGHUP if it is ignored, as under nohup. In the main thread."""
        is_deaf = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._signums = frozenset(s for s in signums if s != signal.SIGHUP or not is_deaf)
        pipe, self._pipe = os.pipe()
        os.set_blocking(self._pipe, False)
        self._ends = (pipe, self._pipe)
        own.add(*self._ends)
        self._earlier_pipe = _set_wakeup_fd(self._pipe, warn_on_full_buffer=False)
        _active.append(self)
        start_lasting_thread(self._read, pipe)
        for signum in self._signums:
            self._earlier[signum] = _set_handler(signum, self.on_signal)
        # Blocked by the program that has started this one, or while the process changes its role.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signums)

    def stop(self, *, ignores_later: bool = False) -> None:
        """Restores the earlier handlers and ends the thread. In the main thread.

        `ignores_later`: later signals are ignored, also while the interpreter finalises, when a handler in
        Python would be replaced by the default, which kills.
        """
        if self not in _active:
            return
        self._restore(signal.SIG_IGN if ignores_later else None)
        own.discard(*self._ends)
        os.write(self._pipe, bytes([_END]))
        os.close(self._pipe)

    def _restore(self, instead: signal.Handlers | None = None) -> None:
        for signum, handler in self._earlier.items():
            _set_handler(signum, handler if instead is None else instead)
        _set_wakeup_fd(self._earlier_pipe, warn_on_full_buffer=False)
        _active.remove(self)

    def leave_to_child(self) -> None:
        """Restores the earlier handlers in a child that was forked, except those that a task has set. A
        signal to the child must not reach its parent through the pipe."""
        for signum, handler in self._earlier.items():
            if self._is_own(_get_handler(signum)):
                _set_handler(signum, handler)
        _set_wakeup_fd(self._earlier_pipe, warn_on_full_buffer=False)
        _active.remove(self)

    def _is_own(self, handler: object) -> bool:
        return type(handler) is MethodType and handler.__self__ is self

    def on_signal(self, signum: int, frame: FrameType | None) -> None:
        """Handles a signal in the main thread. In a child that was forked, where the handler of a task may
        call the one that it has found, it does what Python's default would do there."""
        if os.getpid() != self._process:
            if signum == signal.SIGINT:
                raise KeyboardInterrupt
            return
        if _set_wakeup_fd(self._pipe, warn_on_full_buffer=False) != self._pipe:
            self.receive(signum)  # a task had replaced the pipe, as asyncio's add_signal_handler does

    def shares(self, signum: object, handler: object) -> bool:
        """Whether the worker has to learn of this signal although other code handles it."""
        return (
            not self._is_own(handler)
            and isinstance(signum, int)
            and signum in self._signums
            and os.getpid() == self._process
            and (callable(handler) or handler in (signal.SIG_IGN, signal.SIG_DFL))
        )

    def _read(self, pipe: int) -> None:
        while True:
            for number in os.read(pipe, 256):
                if number == _END:
                    os.close(pipe)
                    return
                if number in self._signums:
                    self.receive(number)


def reader_now() -> SignalReader | None:
    """The current reader. None: signals have their usual handlers."""
    return _active[-1] if _active else None


def restore_pipe(*, is_alone: bool) -> bool:
    """Makes signals write to the pipe of the current reader again. A task may have told them another
    descriptor, and have closed it: each signal would write a byte to the file that has its number now. In the
    main thread. `is_alone`: also where another job may need it, as asyncio's `add_signal_handler` does.
    Returns whether a task had left its descriptor."""
    if not _active:
        return False
    pipe = _active[-1]._pipe
    found = _set_wakeup_fd(pipe, warn_on_full_buffer=False)
    if found in (pipe, -1):
        return False
    if not is_alone and _is_socket(found):
        _set_wakeup_fd(found)
        return False
    return True


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def leave_while_starting() -> None:
    """Makes signals end a process whose worker has not started yet: it holds no claims. SIGINT ends it with
    130: Python may drop a KeyboardInterrupt in a callback of the import system."""

    def leave(signum: int) -> None:
        if signum == signal.SIGINT:
            os._exit(_INTERRUPTED)
        line = f"the worker had not started when {signal.Signals(signum).name} came"
        end_process_within(1.0, 0, line)  # standard error may be a full pipe
        write_and_exit(line, 0)

    SignalReader(leave).start(STOP_SIGNALS)


def leave_after_work(code: int) -> None:
    """Prepares the exit of a process whose worker has stopped: all outcomes are stored. Whatever else keeps
    the process, such as a thread of a task, is not waited for longer than `LEAVE_WITHIN`, and does not change
    the exit code."""
    set_exit_code(code)
    end_process_within(LEAVE_WITHIN, code, "the worker had stopped")
    handlers: object = getattr(logging.root, "handlers", None)
    for flushable in (*(handlers if type(handlers) is list else ()), *_streams()):
        _try(flushable, "flush")


def end_after_work(code: int) -> NoReturn:
    """Ends the process as Python does, after threads and exit handlers, but does not finalise the
    interpreter: a native thread that runs code of gevent meanwhile would crash it."""
    leave_after_work(code)
    _try(threading, "_shutdown")
    _try(atexit, "_run_exitfuncs")
    for stream in _streams():
        _try(stream, "flush")
    exit_now(code)


def _streams() -> tuple[object, object]:
    """The standard streams, or None for those that a task has deleted."""
    return getattr(sys, "stdout", None), getattr(sys, "stderr", None)


def _try(owner: object, method: str) -> None:
    """Calls the method: code of a task, or a terminal that was closed, may raise."""
    try:
        getattr(owner, method)()
    except BaseException:
        pass


def _in_child() -> None:
    for reader in reversed(_active[:]):
        reader.leave_to_child()


os.register_at_fork(after_in_child=_in_child)
