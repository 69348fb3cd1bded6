"""Ends the process at a given time, whatever still runs in it.

A process may be kept by threads and children that the interpreter joins when it exits, by exit handlers, by a
call to a broker or a pipe that blocks, and by C code that holds the GIL. Two guards end it:

1. A native thread writes the reason to standard error, and exits. It needs the interpreter.
2. A timer of the kernel calls `_exit` of the C library (`SIGEV_THREAD` of timer_create(2)). It needs no
   Python, so it also ends a process whose GIL is held or whose interpreter is finalised. Systems other than
   Linux have the thread of `faulthandler` instead, whose exit code is 1.

Neither guard passes to a child that the process forks.

The exit code is the worker's own, also where an exit handler of a task calls `os._exit` or `os.abort`.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

from mrq_core.clock import monotonic
from mrq_core.worker.guards.native import sleep, start_native_thread

LEAVE_WITHIN = 3.0
"""Seconds for a worker's process to end, from the interrupt of its jobs or from the end of its work."""
_EARLIER = 0.1
"""Seconds by which the thread comes before the kernel, to write the reason."""
_SIGEV_THREAD, _CLOCK_MONOTONIC = 2, 1

_exit: Callable[[int], NoReturn] = os._exit
_abort: Callable[[], NoReturn] = os.abort
_final: tuple[int, int] | None = None
"""The process that ends, and its exit code. None: it does not end yet, and a task may end it."""
_ends_at: float | None = None
"""The monotonic time at which the process ends. None: no end is set."""


def end_process_within(
    seconds: float, code: int, reason: str, *, loss: Callable[[], str] | None = None
) -> None:
    """Ends the process after these seconds with this exit code. An earlier end that is already set stays.
    `loss` says at the end what is lost; empty: nothing.

    Safe in any native thread. The end cannot be taken back. Code that must not be cut off, such as storing
    outcomes, must end before.
    """
    global _ends_at
    at = monotonic() + seconds
    if _ends_at is not None and _ends_at <= at:
        return
    _ends_at = at
    if not _start_kernel_timer(seconds, code):
        nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)  # a traceback could block on a full pipe
        with suppress(RuntimeError):  # no thread can be started
            faulthandler.dump_traceback_later(seconds, exit=True, file=nowhere)

    def end() -> None:
        sleep(max(0.0, at - _EARLIER - monotonic()))
        lost = loss() if loss is not None else ""
        text = f"{reason}, and something kept the process for {seconds:g} s: it ends now"
        write_and_exit(f"{text}; {lost}" if lost else text, code)

    with suppress(RuntimeError):  # no thread can be started, and the timer ends the process without a word
        start_native_thread(end)


def keep_exit_code() -> None:
    """Replaces the functions that end a process at once, before code of a task can take references to them.

    They behave as usual until `set_exit_code`, and in every child.
    """
    setattr(os, "_exit", _exit_with_final_code)  # noqa: B010
    setattr(os, "abort", _abort_with_final_code)  # noqa: B010


def set_exit_code(code: int) -> None:
    """Makes `os._exit` and `os.abort` end this process with this exit code from now on."""
    global _final
    _final = (os.getpid(), code)


def exit_now(code: int) -> NoReturn:
    """`os._exit`, whatever a task has put in its place."""
    _exit(code)


def _exit_with_final_code(status: int) -> NoReturn:
    """Replaces os._exit in a worker."""
    _exit(_final[1] if _final is not None and _final[0] == os.getpid() else status)


def _abort_with_final_code() -> NoReturn:
    """Replaces os.abort in a worker."""
    if _final is not None and _final[0] == os.getpid():
        _exit(_final[1])
    _abort()


def write_and_exit(line: str, code: int) -> NoReturn:
    """Writes the line to standard error, and ends the process without any exit handler. In any thread."""
    try:
        os.write(2, f"mrq: {line}\n".encode())
    finally:  # a closed terminal raises OSError
        _exit(code)


class _SigEvent(ctypes.Structure):
    """`struct sigevent` of Linux."""

    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("function", ctypes.c_void_p),
        ("attributes", ctypes.c_void_p),
        ("reserved", ctypes.c_char * 64),
    )


class _TimerSpec(ctypes.Structure):
    """`struct itimerspec`: the interval of a repeated timer, and the time to its first end."""

    _fields_ = (
        ("interval_seconds", ctypes.c_long),
        ("interval_nanoseconds", ctypes.c_long),
        ("seconds", ctypes.c_long),
        ("nanoseconds", ctypes.c_long),
    )


def _load_library() -> Any:
    """The C library, if its timers can call a function. Loaded early: a thread that comes to the end of the
    process must not wait for the loader's lock."""
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(None)
        return library if library.timer_create and library.timer_settime else None
    except (OSError, AttributeError):
        return None


_library = _load_library()


def _start_kernel_timer(seconds: float, code: int) -> bool:
    """Starts a timer that calls `_exit(code)`. False: this system has no such timer."""
    if _library is None:
        return False
    function = ctypes.cast(_library._exit, ctypes.c_void_p)
    event = _SigEvent(value=code, notify=_SIGEV_THREAD, function=function)
    timer = ctypes.c_void_p()
    if _library.timer_create(_CLOCK_MONOTONIC, ctypes.byref(event), ctypes.byref(timer)):
        return False
    nanoseconds = max(1, int(seconds * 1e9))  # 0 would stop the timer
    spec = _TimerSpec(seconds=nanoseconds // 10**9, nanoseconds=nanoseconds % 10**9)
    return not _library.timer_settime(timer, 0, ctypes.byref(spec), None)
