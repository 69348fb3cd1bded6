"""Work that blocks its thread, done in a native thread beside the hub."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar
from weakref import WeakKeyDictionary

import gevent
from gevent.hub import Hub
from gevent.threadpool import ThreadPool

from mrq_core.running.context import shielded

T = TypeVar("T")

_threads: WeakKeyDictionary[Hub, ThreadPool] = WeakKeyDictionary()


def run_blocking(function: Callable[[], T], /) -> T:
    """Runs the function in a native thread while other greenlets go on, and returns what it returns.

    There is one such thread for a hub, and functions wait for their turn: two of them, claiming and
    settling at once, would only wait for each other inside the database, less politely.

    Never left before the function has ended, so that what it uses is not used by two threads: a
    greenlet that is interrupted or killed meanwhile sees that when the function is done.
    """
    ended: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        # gevent prints what is raised in its pool; here it is the caller's to handle.
        try:
            ended.append(function())
        except BaseException as error:
            failed.append(error)

    with shielded():
        thread = _thread_of(gevent.get_hub()).spawn(work)
        interrupt: BaseException | None = None
        while not thread.ready():
            try:
                thread.wait()
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
    if failed:
        raise failed[0]
    return ended[0]


def _thread_of(hub: Hub) -> ThreadPool:
    """The hub's thread. Not gevent's own pool, in which host names are looked up."""
    pool = _threads.get(hub)
    if pool is None:
        pool = _threads[hub] = ThreadPool(1, hub=hub)
    return pool
