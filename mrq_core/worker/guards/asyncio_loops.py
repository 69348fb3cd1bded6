"""Lets several jobs run an asyncio loop at the same time.

asyncio keeps the running loop per thread, and the greenlets of a worker share one thread: a job that calls
`asyncio.run` would find the loop of another job. While a loop runs, each switch between greenlets therefore
exchanges the running loop of the thread.
"""

from __future__ import annotations

import asyncio.events as events
from collections.abc import Callable
from typing import Any

import greenlet
from gevent.monkey import get_original

from mrq_core.worker.guards.greenlet_traces import follow_switches, unfollow_switches

_get_ident: Callable[[], int] = get_original("_thread", "get_ident")
_module: Any = events
_get_native: Callable[[], Any] = _module._get_running_loop
_set_native: Callable[[Any], None] = _module._set_running_loop

_running: dict[int, set[object]] = {}
"""The greenlets that run a loop, by native thread."""
_left: dict[object, Any] = {}
"""The loops of greenlets that do not run now."""


def keep_loops_apart() -> None:
    """Gives each greenlet its own running loop. Call this before code of tasks is imported."""
    _module._set_running_loop = _set_running_loop


def _set_running_loop(loop: Any) -> None:
    _set_native(loop)
    here = greenlet.getcurrent()
    thread = _get_ident()
    running = _running.setdefault(thread, set())
    if loop is not None:
        running.add(here)
        follow_switches(_exchange)
        return
    running.discard(here)
    if not running:
        del _running[thread]
        unfollow_switches()


def _exchange(event: str, greenlets: tuple[object, object]) -> None:
    """Called in the greenlet that runs from now on, after each switch."""
    before, now = greenlets
    loop = _get_native()
    if loop is not None:
        _left[before] = loop
    mine = _left.pop(now, None)
    if loop is not mine:
        _set_native(mine)
