"""Which threads and greenlets wait for which others, as far as their stacks show it, and how to wait."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from types import FrameType
from typing import Any
from weakref import ref

from mrq_core.frames import reading_frames

_IMPORTS = "<frozen importlib._bootstrap>"
_WAITING_MODULES = frozenset({"threading", "selectors"})
"""The modules whose functions are the innermost of a thread that waits for another: for an event, a condition
or a queue, and in an event loop of asyncio."""


@reading_frames
def awaits(waiting: Iterable[int], wanted: int, frames: Mapping[int, FrameType]) -> int | None:
    """The first of the waiting threads that waits for the wanted thread, maybe by way of other threads.

    Recognizes waits in `Thread.join`, for futures of a thread pool, and for a module that another thread
    imports. `frames` are the innermost frames of the threads.
    """
    edges = list(_waits(frames))
    reached = {wanted}
    while more := {thread for thread, other in edges if other in reached} - reached:
        reached |= more
    return next((thread for thread in waiting if thread in reached), None)


def _waits(frames: Mapping[int, FrameType]) -> Iterator[tuple[int, int]]:
    """Pairs of a thread, and a thread for which it waits."""
    pool: Any = sys.modules.get("concurrent.futures.thread")
    run = pool._WorkItem.run.__code__ if pool is not None else None
    workers = {
        id(frame.f_locals["self"].future): thread
        for thread, innermost in frames.items()
        for frame in _stack(innermost)
        if run is not None and frame.f_code is run
    }
    for thread, innermost in frames.items():
        for frame in _stack(innermost):
            for other in _awaited_in(frame, workers):
                if other is not None and other != thread:
                    yield thread, other


def _awaited_in(frame: FrameType, workers: Mapping[int, int]) -> Iterator[int | None]:
    code = frame.f_code
    if code is threading.Thread.join.__code__:
        yield frame.f_locals["self"].ident
    elif code.co_filename == _IMPORTS and code.co_name == "acquire":
        yield getattr(frame.f_locals.get("self"), "owner", None)
    elif workers:
        base: Any = sys.modules["concurrent.futures._base"]
        if code in (base.Future.result.__code__, base.Future.exception.__code__):
            yield workers.get(id(frame.f_locals.get("self")))
        elif code in (base.wait.__code__, base.as_completed.__code__):
            for future in frame.f_locals.get("fs", ()):
                yield workers.get(id(future))


def _stack(innermost: FrameType) -> Iterator[FrameType]:
    frame: FrameType | None = innermost
    while frame is not None:
        yield frame
        frame = frame.f_back


def is_in_wait(frame: FrameType) -> bool:
    """Whether this innermost frame of a thread shows that the thread waits, maybe for another one."""
    module = frame.f_globals.get("__name__")
    return type(module) is str and module in _WAITING_MODULES


def sleep(seconds: float) -> None:
    """Lets other greenlets of the thread run, if it has some. `time.sleep` of gevent would give a native
    thread a hub, and gevent may hang when many threads with hubs begin and end."""
    gevent: Any = sys.modules.get("gevent.monkey")
    if gevent is None or sys.modules["gevent._hub_local"].get_hub_if_exists() is not None:
        time.sleep(seconds)
    else:
        gevent.get_original("time", "sleep")(seconds)


def current_greenlet() -> Any:
    """The greenlet of the caller. None: this process has not loaded greenlets."""
    greenlet: Any = sys.modules.get("greenlet")
    return greenlet.getcurrent() if hasattr(greenlet, "getcurrent") else None


def main_greenlet() -> Any:
    """The greenlet in which the thread of the caller began. None: this process has not loaded greenlets."""
    found = current_greenlet()
    while found is not None and found.parent is not None:
        found = found.parent
    return found


class SpawnMark:
    """Tells which greenlets are spawned by a greenlet while the mark is set, or by such greenlets. gevent's
    threads are greenlets.

    The mark is the dict `spawn_tree_locals`, which a greenlet of gevent has from the greenlet that spawns it.

    The greenlet is held weakly. When a native thread ends, greenlet frees the main greenlet of the thread if
    nothing that `gc.get_referrers` finds holds it, and a holder that another thread just collects is not
    found: the process then dies of a segmentation fault.
    """

    def __init__(self) -> None:
        greenlet = current_greenlet()
        self._is_known = greenlet is not None
        """Whether greenlets are loaded already. If not, all are spawned later."""
        self._reference = ref(greenlet) if self._is_known else None
        self._before: dict[str, object] | None = getattr(greenlet, "spawn_tree_locals", None)
        self._locals = dict(self._before or {})

    @property
    def greenlet(self) -> Any:
        """The greenlet that spawns. None: greenlets were not loaded when the mark was made, or it is gone."""
        return None if self._reference is None else self._reference()

    def spawner(self) -> Any:
        """The greenlet that spawns. To be called in the same native thread."""
        return self.greenlet if self._is_known else main_greenlet()

    def set(self) -> None:
        """From now on, greenlets get the mark."""
        if self._is_known:
            self.greenlet.spawn_tree_locals = self._locals

    def remove(self) -> None:
        """The next greenlets get no mark."""
        greenlet = self.greenlet
        if greenlet is None:
            return
        if self._before is not None:
            greenlet.spawn_tree_locals = self._before
        elif hasattr(greenlet, "spawn_tree_locals"):
            del greenlet.spawn_tree_locals

    def is_on_caller(self) -> bool:
        """Whether the calling greenlet has the mark. To be called in the same native thread."""
        here = found = current_greenlet()
        spawner = self.spawner()
        while found is not None and found is not spawner:
            if self._is_known and hasattr(found, "spawn_tree_locals"):
                return found.spawn_tree_locals is self._locals
            if hasattr(found, "spawning_greenlet"):
                found = found.spawning_greenlet and found.spawning_greenlet()
            else:
                found = found.parent  # of a greenlet without gevent: its end continues the parent
        return found is not None and found is not here
