"""Keeps a process that a task forks from acting as a second worker.

The child has the task's greenlet and copies of all other greenlets: the worker's loop, the other jobs. If
the child waited, its copy of the hub would run them a second time. Therefore the child gets a new hub, on
which only the task's greenlet and the greenlets that it starts run, signal handlers of the task but none of
the worker, and no exit handlers of the worker. Locks, queues and events that know the worker's hub use the
new one from then on, and wake no greenlet of the worker.

The child ends where the code that forked ends: the task (`end_if_child`), the greenlet, the function of a
pool's thread, or what mrq's own code has called or Python has run amid it, such as a log handler, a hook or a
finalizer. Its exit code is that of a Python program that ends in the same way.
"""

from __future__ import annotations

import atexit
import builtins
import gc
import os
import signal
import sys
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import gevent
import gevent.os
from gevent import hub
from gevent._hub_local import get_hub_if_exists, set_hub, set_loop
from gevent.exceptions import LoopExit
from gevent.monkey import get_original
from gevent.threadpool import ThreadResult
from greenlet import GreenletExit, getcurrent
from greenlet import greenlet as RawGreenlet

from mrq_core.drivers.forks import call_others_outside, forget_imports, leave_loop_alone
from mrq_core.worker.guards import children
from mrq_core.worker.guards.called_code import end_process, end_with_called_code, guard_called_code
from mrq_core.worker.guards.closing import close_in_child
from mrq_core.worker.guards.fork_waits import follow_hub
from mrq_core.worker.guards.native import thread_id
from mrq_core.worker.guards.shared_signals import set_handler_in_child
from mrq_core.worker.guards.signals import STOP_SIGNALS  # whose hook for children must run before this one

is_child = False
"""Whether this process was forked by a task."""
_left_behind: list[Any] = []
"""The hubs of the worker. Kept: their deletion would wake their greenlets with GreenletExit."""
_workers = 0
_SIGNALS = (*STOP_SIGNALS, signal.SIGALRM)
_EVBREAK_CANCEL = 0
_set_handler: Callable[..., object] = get_original("signal", "signal")
_masks: dict[int, set[int | signal.Signals]] = {}
"""The signals that threads had blocked before they began to fork, by thread."""
_forks = 0
"""The threads that fork now."""
_collects = True
"""Whether the garbage collector was enabled before they began. What it calls, finalizers and `gc.callbacks`,
may wait, and in a child that still has the hub of the worker, this would run the other jobs."""


def enter_worker() -> None:
    """Makes forked children of this process leave the worker behind from now on. In the thread of the hub."""
    global _workers
    guard_called_code(False)
    _workers += 1
    _left_behind.append(hub.get_hub())


def leave_worker() -> None:
    """Undoes `enter_worker`."""
    global _workers
    _workers -= 1
    _left_behind.pop()


def end_if_child(error: BaseException | None = None) -> None:
    """Ends this process if a task has forked it. Call this where the task's code ends; `error`: with which
    exception."""
    if is_child:
        end_process(error)


class _ChildHub(hub.Hub):
    """The hub of a forked child. It ends the process when `forker`, the outermost greenlet of the code that
    forked, has ended."""

    def __init__(self, forker: Any) -> None:
        super().__init__(default=True)  # only the default loop watches child processes
        # libev keeps these two of the default loop that this one replaces.
        for _ in range(self.loop.activecnt):
            self.loop.unref()
        self.loop.break_(_EVBREAK_CANCEL)
        self._forker = forker
        self._error: BaseException | None = None
        self._check: Any = self.loop.prepare(ref=False)
        self._check.start(self._end_with_forker)

    def run(self, *ignored: object) -> None:
        """Runs the loop. `ignored`: the result of `forker`, if its end starts this."""
        self._end_with_forker()
        while True:
            loop: Any = self.loop
            loop.error_handler = self
            loop.run()
            self._end_with_forker()
            self._forker.throw(LoopExit("This operation would block forever", self))

    def handle_error(self, context: object, type: Any, value: Any, tb: TracebackType | None) -> None:
        """Handles an exception that ends a greenlet or a callback. SystemExit and KeyboardInterrupt end the
        process."""
        if issubclass(builtins.type(value), (SystemExit, KeyboardInterrupt)):
            end_process(value)
        if context is self._forker and issubclass(builtins.type(value), BaseException):
            self._error = value  # reported when it has ended
        else:
            super().handle_error(context, type, value, tb)

    def _end_with_forker(self) -> None:
        if self._forker.dead:
            value = getattr(self._forker, "value", None)
            end_process(value if issubclass(type(value), GreenletExit) else self._error)


def _before() -> None:
    global _forks, _collects
    if _workers:
        if not _forks:
            _collects = gc.isenabled()
        _forks += 1
        gc.disable()
        # A signal that reached the child before it has its own handlers would be lost, and the handler of a
        # task that forks may not begin amid a fork.
        _masks[thread_id()] = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


def _in_parent() -> None:
    global _forks
    mask = _masks.pop(thread_id(), None)
    if mask is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _forks -= 1
        if _collects and not _forks:
            gc.enable()


def _in_child() -> None:
    global is_child, _forks
    if not _workers:
        return
    is_child = True
    gc.disable()  # a thread of the worker may have enabled it
    _forks = 1
    for signum in _SIGNALS:
        set_handler_in_child(signum)
    children.forget_parents()
    close_in_child()
    forget_imports()
    _start_hub()
    follow_hub(lambda one: type(one) is _LeftHub)
    atexit._clear()  # the end of what it has kept may call code of tasks
    end_with_called_code()
    _in_parent()


def _start_hub() -> None:
    """Replaces the hub, and makes the outermost greenlet of the current code a greenlet of the new hub."""
    left = get_hub_if_exists()
    if left is not None and left not in _left_behind:
        _left_behind.append(left)
    forker: Any = getcurrent()
    while not (forker.parent is None or forker.parent.parent is None or forker.parent in _left_behind):
        forker = forker.parent
    for worker in _left_behind:
        if worker.loop is not None and worker.loop.default:
            worker.loop.destroy()
    nothing: Any = None
    set_hub(nothing)
    set_loop(nothing)
    handler = signal.getsignal(signal.SIGCHLD)
    new = _ChildHub(forker)
    # A second default loop installs gevent's handler, which takes the status of every child.
    _set_handler(signal.SIGCHLD, handler if isinstance(handler, int) else signal.SIG_DFL)
    outer = forker.parent
    if outer is not None:
        new.parent = _bottom(outer.parent if outer in _left_behind else outer)
        forker.parent = new
        if isinstance(forker, gevent.Greenlet):
            forker.unlink_all()
    set_hub(new)
    for worker in _left_behind:
        worker.loop = _LeftLoop(new)
        worker.__class__ = _LeftHub
    result = _find_result()
    if result is not None:
        result.async_watcher = _End(result)


def _bottom(worker: Any) -> Any:
    """A greenlet in place of the worker's, below the hub of the child: it ends the process if that hub ends,
    as when the child destroys it."""
    bottom = RawGreenlet(_end_with_hub, worker)
    bottom.switch(getcurrent())
    return bottom


def _end_with_hub(starter: RawGreenlet) -> None:
    error: BaseException | None = None
    try:
        starter.switch()  # returns or raises when the hub has ended
    except BaseException as raised:
        error = raised
    end_process(error)


class _LeftHub(hub.Hub):
    """A hub of the worker, in a child: greenlets that wait with it switch to the hub of the child."""

    def switch(self) -> Any:
        """Switches to the hub of the child."""
        loop: Any = self.loop
        return loop.hub.switch()


class _LeftLoop:
    """The loop of a hub of the worker, in a child: the loop of the child, without greenlets of the worker."""

    def __init__(self, new: _ChildHub) -> None:
        self.hub = new

    def __getattr__(self, name: str) -> Any:
        return getattr(self.hub.loop, name)

    def run_callback(self, function: Any, *arguments: Any) -> Any:
        """Calls the function soon, unless it concerns a greenlet of the worker."""
        owner = getattr(function, "__self__", None)
        # gevent hides the list of the greenlets that wait for an object.
        for waiting in gc.get_referents(owner):
            if type(waiting) is list:
                waiting[:] = [link for link in waiting if not self._is_left(getattr(link, "__self__", None))]
        if self._is_left(owner) or any(map(self._is_left, arguments)):
            return self.hub.loop.run_callback(int)
        return self.hub.loop.run_callback(function, *arguments)

    run_callback_threadsafe = run_callback

    def _is_left(self, greenlet: object) -> bool:
        """Whether this is a greenlet of the worker."""
        if not isinstance(greenlet, RawGreenlet):
            return False
        outer: Any = greenlet
        while outer is not None and outer is not self.hub:
            outer = outer.parent
        return outer is None


def _find_result() -> Any:
    """The result of the function that a thread of `gevent.threadpool` runs now. None: no such thread."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_globals.get("__name__") == ThreadResult.__module__:
            result = frame.f_locals.get("thread_result")
            if isinstance(result, ThreadResult):
                return result
        frame = frame.f_back
    return None


class _End:
    """Replaces the watcher of a result in a thread of a pool, which would wait for the next function."""

    def __init__(self, result: Any) -> None:
        self._result = result

    def send(self) -> None:
        """Ends the process: the function has ended."""
        end_process(self._result.exception)


children.install()
leave_loop_alone()
os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
call_others_outside(_before, _in_parent, _in_child)
