"""Handlers of signals that tasks set. The worker shares its signals with them.

Libraries that stop by themselves, asyncio's `add_signal_handler` and gevent's `signal_handler` would
otherwise keep SIGTERM from the worker for as long as jobs with such handlers follow each other.

Python calls a handler amid whatever the main thread runs: one that raises or waits there would break the
worker, or another job. So it is called at once amid the code of its job only, and else in a greenlet. Amid
code that the job shares with others, such as a call to the broker, it is held back until the watchdog calls.
"""

from __future__ import annotations

import functools
import os
import signal
from importlib import import_module
from types import FrameType, FunctionType, MethodType
from typing import Any

import gevent
import gevent.hub

from mrq_core.worker.guards.owners import is_any_in_task, owners
from mrq_core.worker.guards.shared_code import is_shared
from mrq_core.worker.guards.signals import SignalReader, reader_now

_raw: Any = import_module("_signal")
_OF_LOOPS_AND_WORKER = frozenset({"asyncio", "gevent", "mrq_core"})
_held_back: dict[TaskHandler, int] = {}
"""The handlers to call later, with their signals. Those that come meanwhile are one, too."""
_are_shared = False


class TaskHandler:
    """Calls the handler that a task has set."""

    def __init__(self, given: Any) -> None:
        self._jobs = owners.now() or ()
        self._process = os.getpid()
        self._is_scheduled = False
        self.given = given

    def is_in_use(self) -> bool:
        """Whether the code of the job still runs that has set it."""
        return is_any_in_task(self._jobs)

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:
            self.given(signum, frame)
        elif callable(self.given):
            self.call(signum, frame)

    def call(self, signum: int, frame: FrameType | None) -> None:
        """Calls it amid this frame of the main thread, in a greenlet, or later."""
        here = owners.here()
        if here is None or all(here is not job for job in self._jobs):
            self._schedule(signum, frame)
        elif is_shared(frame):
            _held_back[self] = signum
        else:
            self.given(signum, frame)

    def _schedule(self, signum: int, frame: FrameType | None) -> None:
        """Calls it in a greenlet soon. Signals that come meanwhile are one, as in the system."""
        if self._is_scheduled:
            return
        self._is_scheduled = True
        greenlet = gevent.Greenlet(self._run_scheduled, signum, frame)
        greenlet.spawn_tree_locals = owners.mark_of_first(self._jobs)  # not that of the code that runs now
        greenlet.start()

    def _run_scheduled(self, signum: int, frame: FrameType | None) -> None:
        self._is_scheduled = False
        self.given(signum, frame)


class SharedHandler(TaskHandler):
    """Passes a signal on to the worker, and to the handler that a task has set."""

    def __init__(self, reader: SignalReader, given: Any) -> None:
        super().__init__(given)
        self._reader = reader

    def __call__(self, signum: int, frame: FrameType | None) -> None:
        self._reader.on_signal(signum, frame)
        super().__call__(signum, frame)


def are_held_back() -> bool:
    """Whether handlers wait for `call_held_back`. In any thread."""
    return bool(_held_back)


def call_held_back(frame: FrameType | None) -> None:
    """Calls the handlers that were held back, if this frame of the main thread lets them."""
    while _held_back:
        handler, signum = _held_back.popitem()
        handler.call(signum, frame)
        if handler in _held_back:
            return


def share_signals() -> None:
    """Shares the signals of the reader with the handlers that are set from now on, and keeps these from the
    code of the worker. Has no effect after the first call."""
    global _are_shared
    if _are_shared:
        return
    _are_shared = True
    set_handler, get_handler = signal.signal, signal.getsignal
    watcher: Any = gevent.hub.signal
    watch = watcher.__init__

    @functools.wraps(set_handler)
    def share(signalnum: Any, handler: Any) -> Any:
        reader = reader_now()
        if reader is not None and reader.shares(signalnum, handler):
            handler = SharedHandler(reader, handler)
        elif reader is not None and callable(handler) and _package_of(handler) not in _OF_LOOPS_AND_WORKER:
            handler = TaskHandler(handler)
        return _given(set_handler(signalnum, handler))

    @functools.wraps(get_handler)
    def get_given(signalnum: Any) -> Any:
        return _given(get_handler(signalnum))

    @functools.wraps(watch)
    def watch_too(self: Any, signalnum: Any, handler: Any, *arguments: Any, **named: Any) -> None:
        reader = reader_now()
        if reader is not None and reader.shares(signalnum, handler):
            handler = functools.partial(_pass_on, reader, signalnum, handler)
        watch(self, signalnum, handler, *arguments, **named)

    setattr(signal, "signal", share)  # noqa: B010
    setattr(signal, "getsignal", get_given)  # noqa: B010
    watcher.__init__ = watch_too


def set_handler_in_child(signum: int) -> None:
    """Gives a signal its default in a child that was forked, or the handler that the task has set. The
    handlers of asyncio and gevent belong to loops that the child does not have."""
    found = _raw.getsignal(signum)
    handler = _given(found)
    if not callable(handler):
        is_deaf = type(found) is SharedHandler or signum == signal.SIGHUP  # which nohup ignores
        handler = handler if is_deaf and isinstance(handler, int) else _raw.SIG_DFL  # None: a handler in C
    elif _package_of(handler) in _OF_LOOPS_AND_WORKER:
        handler = signal.default_int_handler if signum == signal.SIGINT else _raw.SIG_DFL
    # Also where Python's handler is unchanged: a watcher of gevent replaces it in the system.
    _raw.signal(signum, int(handler) if isinstance(handler, int) else handler)


def _package_of(handler: object) -> str:
    """The package that defines it, without code of the handler's class."""
    if type(handler) is FunctionType:
        module: object = handler.__module__
    else:
        owner = type(handler.__self__ if type(handler) is MethodType else handler)
        module = type.__dict__["__module__"].__get__(owner)
    return module.partition(".")[0] if type(module) is str else ""


def _pass_on(reader: SignalReader, signum: int, handler: Any, *arguments: Any, **named: Any) -> Any:
    reader.receive(signum)
    return handler(*arguments, **named)


def _given(handler: Any) -> Any:
    return handler.given if issubclass(type(handler), TaskHandler) else handler
