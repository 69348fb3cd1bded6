"""Runs functions that block their thread in a native thread beside the hub, without the hooks of tasks."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import gevent
from gevent.hub import Hub
from gevent.threadpool import ThreadPool

from mrq_core.drivers.unwanted_calls import Call, current_call
from mrq_core.worker.guards.native import starting_threads

T = TypeVar("T")

_threads: WeakKeyDictionary[Hub, ThreadPool] = WeakKeyDictionary()
_hooks = (threading.gettrace(), threading.getprofile())


def run_blocking(function: Callable[[], T], /) -> T:
    """Runs the function in a native thread while other greenlets go on, and returns its result.

    Each hub has one such thread, which runs functions one after the other: a claim and a settle at the
    same time would wait for each other inside the database.

    Returns only after the function has ended, so that two threads never share its objects: a greenlet
    that is interrupted or killed meanwhile raises the exception when the function is done, or at once where
    it has not begun.
    """
    call = Call()
    taken: dict[str, str] = {}
    """Who has taken the function: the thread, or the caller, who takes it back."""
    ended: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        # gevent would print the exception; the caller handles it.
        try:
            _restore_own_hooks()
            if taken.setdefault("by", "thread") == "thread":
                current_call.set(call)
                ended.append(function())
        except BaseException as error:
            failed.append(error)
        finally:
            current_call.set(None)

    interrupt: BaseException | None = None
    while not taken:  # a trace function can raise before the first line of `work`
        failed.clear()
        _restore_hooks_of_threads()
        thread = _thread_of(gevent.get_hub()).spawn(work)
        while not thread.ready():
            try:
                thread.wait()
            except BaseException as error:
                interrupt, call.is_unwanted = error, True
                if taken.setdefault("by", "caller") == "caller":
                    raise
    if interrupt is not None:
        raise interrupt
    if failed:
        raise failed[0]
    return ended[0]


def _restore_hooks_of_threads() -> None:
    """Keeps the trace and profile functions that a task has set for threads out of the worker's thread, which
    would run them within the calls of the broker: gevent's threads take them anew for each function."""
    trace, profile = _hooks
    if threading.gettrace() is not trace:
        threading.settrace(trace)
    if threading.getprofile() is not profile:
        threading.setprofile(profile)


def _restore_own_hooks() -> None:
    """Removes what a task has set after `_restore_hooks_of_threads`, before the thread looked."""
    trace, profile = _hooks
    if sys.gettrace() is not trace:
        sys.settrace(trace)
    if sys.getprofile() is not profile:
        sys.setprofile(profile)


def _call_without_hooks(function: Callable[..., T], *arguments: Any, **named: Any) -> T:
    _restore_own_hooks()
    return function(*arguments, **named)


class _Pool(ThreadPool):
    """gevent's native threads, which leave signals to the main thread."""

    def _add_thread(self) -> None:
        of_gevent: Any = super()
        with starting_threads():
            of_gevent._add_thread()


class GuardedPool(_Pool):
    """gevent's native threads, for functions of the worker that must not run the hooks of tasks."""

    def apply(self, func: Callable[..., Any], args: Any = None, kwds: Any = None) -> Any:
        """Calls the function in a thread, and returns its result."""
        _restore_hooks_of_threads()
        return super().apply(partial(_call_without_hooks, func), args, kwds)


def _thread_of(hub: Hub) -> ThreadPool:
    """The thread of the hub. gevent's default pool resolves host names meanwhile."""
    pool = _threads.get(hub)
    if pool is None:
        pool = _threads[hub] = _Pool(1, hub=hub)
    return pool
