"""Waits for modules that another thread or greenlet imports, unless that import waits for the caller.

Python finds a circle of imports, and hands out the unfinished module. It finds no circle with a wait for a
thread: a module that starts a thread, and waits for it, hangs if the thread imports the module.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any

from mrq_core.clock import monotonic
from mrq_core.config.awaited import awaits, current_greenlet, is_in_wait, sleep
from mrq_core.contract.module_fields import is_initializing
from mrq_core.frames import current_frames, reading_frames

_FIRST_CHECK, _LONGEST_CHECK = 0.05, 5.0
"""Seconds until the first check whether the import waits for the caller. The pauses double."""
_LOOK_MOST = 0.02
"""The longest pause between two looks whether the import has ended."""
_PATIENCE_WITH_TASK = 10.0
"""Seconds until a caller uses a task of a module whose import has not ended, whatever that import does."""
_PATIENCE_WITH_WAIT = 10.0
"""Seconds in one wait after which an import seems to wait for the caller."""
_PATIENCE_WITH_SPAWNER = 2.0
"""Seconds after which an import seems to wait for a greenlet that it has spawned: in one place, if the task
is not defined yet."""
_PATIENCE_WITHOUT_PROGRESS = 60.0
"""Seconds of one wait, of one loop or of one call after which an import seems to wait for the caller."""


class ImportWaits(Exception):
    """The import of a module waits for the caller, who would wait for the import; or it seems to."""


def wait_for_import(name: str, *, has_task: Callable[[], bool] | None = None) -> ImportWaits | None:
    """Waits while other threads import this module or a package around it. Returns an error if that import
    waits for the caller.

    With `has_task`, also if the import only seems to wait, because it does not go on; or if it takes long,
    and `has_task` tells that the module has what the caller needs.
    """
    parts = name.split(".")
    waits = (_wait_for(".".join(parts[: length + 1]), has_task) for length in range(len(parts)))
    return next((found for found in waits if found is not None), None)


def _wait_for(name: str, has_task: Callable[[], bool] | None) -> ImportWaits | None:
    if _importer(name) is None:
        return None
    began = monotonic()
    look, interval, progress = 0.001, _FIRST_CHECK, _Progress(began)
    check_at = began + interval
    while (importer := _importer(name)) is not None:
        now = monotonic()
        if now >= check_at:
            interval = min(2 * interval, _LONGEST_CHECK)
            check_at = now + interval
            frames = _frames()
            if _waits_for_caller(importer, frames) and _importer(name) == importer:
                return ImportWaits(f"the import of {name} waits for this call, which needs the module")
            if has_task is not None:
                progress.note(frames.get(importer), now)
                if progress.seems_over(now, is_spawner=_has_spawned_caller(importer), has_task=has_task()):
                    return ImportWaits(
                        f"the import of {name} has not ended for {now - began:.0f} s, and seems to wait for "
                        "this call, which needs the module"
                    )
            del frames
        sleep(look)
        look = min(2 * look, _LOOK_MOST)
    return None


class _Progress:
    """Tells whether an import goes on: whether samples of its stack show places in the code that no earlier
    sample has shown."""

    def __init__(self, now: float) -> None:
        self._began = self._moved = self._progressed = now
        self._place: tuple[FrameType, int] | None = None
        self._seen: set[tuple[CodeType, int]] = set()

    @reading_frames
    def note(self, frame: FrameType | None, now: float) -> None:
        """Notes the innermost frame of the import. None: not known."""
        # The frame itself, not its id, which another frame may have later.
        place = None if frame is None else (frame, frame.f_lasti)
        if place is None or place != self._place:
            self._place, self._moved = place, now
        while frame is not None:
            step = (frame.f_code, frame.f_lasti)
            if step not in self._seen:
                self._seen.add(step)
                self._progressed = now
            frame = frame.f_back

    def seems_over(self, now: float, *, is_spawner: bool, has_task: bool) -> bool:
        """Whether to wait no longer. `is_spawner`: the import has spawned the greenlet that waits for it."""
        if has_task:
            return now - self._began > (_PATIENCE_WITH_SPAWNER if is_spawner else _PATIENCE_WITH_TASK)
        if now - self._progressed > _PATIENCE_WITHOUT_PROGRESS:
            return True
        if is_spawner:
            return now - self._moved > _PATIENCE_WITH_SPAWNER
        is_waiting = self._place is not None and is_in_wait(self._place[0])
        return is_waiting and now - self._moved > _PATIENCE_WITH_WAIT


def _importer(name: str) -> int | None:
    """The thread that imports the module now; in a process that gevent has patched, the greenlet. None: no
    other thread does."""
    if not is_initializing(sys.modules.get(name)):
        return None
    machinery: Any = sys.modules["_frozen_importlib"]
    reference = machinery._module_locks.get(name)
    owner: int | None = getattr(reference() if reference is not None else None, "owner", None)
    return None if owner == threading.get_ident() else owner


def _waits_for_caller(importer: int, frames: dict[int, FrameType]) -> bool:
    here = threading.get_ident()
    if importer not in frames:
        # The importing thread has ended. In a process that gevent has patched, its greenlet may be running.
        return here in current_frames()
    return awaits([importer], here, {**frames, here: sys._getframe()}) is not None


def _frames() -> dict[int, FrameType]:
    """The innermost frames of threads, and of greenlets that wait."""
    frames = current_frames()
    if threading.get_ident() not in frames:
        frames |= {id(one): one.gr_frame for one in _greenlets() if one.gr_frame is not None}
    return frames


def _greenlets() -> Iterator[Any]:
    kind: Any = getattr(sys.modules.get("greenlet"), "greenlet", None)
    if kind is not None:
        yield from (one for one in gc.get_objects() if isinstance(one, kind))


def _has_spawned_caller(importer: int) -> bool:
    """Whether the caller runs in a greenlet that the importing one has spawned, or a greenlet of that one."""
    spawner = current_greenlet()
    while (of := getattr(spawner, "spawning_greenlet", None)) is not None:
        spawner = of()
        if id(spawner) == importer:
            return True
    return False
