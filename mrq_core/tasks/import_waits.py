"""Waits for modules that another thread or greenlet imports, unless that import waits for the caller.

Python finds a circle of imports, and hands out the unfinished module. It finds no circle with a wait for a
thread: a module that starts a thread, and waits for it, hangs if the thread imports the module.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

from mrq_core.clock import monotonic
from mrq_core.config.awaited import awaits, current_greenlet, sleep
from mrq_core.contract.module_fields import is_initializing
from mrq_core.frames import current_frames

_FIRST_CHECK, _LONGEST_CHECK = 0.05, 5.0
"""Seconds until the first check whether the import waits for the caller. The pauses double."""
_LOOK_MOST = 0.02
"""The longest pause between two looks whether the import has ended."""
_PATIENCE_WITH_WAIT = 10.0
"""Seconds in one wait of `threading` after which an import seems to wait for the caller."""
_PATIENCE_WITH_SPAWNER = 2.0
"""Seconds in one place after which an import seems to wait for a greenlet that it has spawned."""


class ImportWaits(Exception):
    """The import of a module waits for the caller, who would wait for the import."""


def wait_for_import(name: str, *, gives_up: bool) -> bool:
    """Waits while other threads import this module or a package around it. False: that import waits for the
    caller. `gives_up`: also if it only seems to, because it does not go on."""
    parts = name.split(".")
    return all(_wait_for(".".join(parts[: length + 1]), gives_up) for length in range(len(parts)))


def _wait_for(name: str, gives_up: bool) -> bool:
    if _importer(name) is None:
        return True
    began = changed = monotonic()
    look, interval, position = 0.001, _FIRST_CHECK, None
    check_at = began + interval
    while (importer := _importer(name)) is not None:
        now = monotonic()
        if now >= check_at:
            interval = min(2 * interval, _LONGEST_CHECK)
            check_at = now + interval
            frames = _frames()
            frame = frames.get(importer)
            if _waits_for_caller(importer, frames) and _importer(name) == importer:
                return False
            place = None if frame is None else (frame, frame.f_lasti)
            if place is None or place != position:
                position, changed = place, now
            elif gives_up and now - changed > _patience(importer, place[0]):
                return False
            del frames, frame, place
        sleep(look)
        look = min(2 * look, _LOOK_MOST)
    return True


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


def _patience(importer: int, frame: FrameType) -> float:
    """The seconds for which an import may stay in this place."""
    spawner = current_greenlet()
    while (of := getattr(spawner, "spawning_greenlet", None)) is not None:
        spawner = of()
        if id(spawner) == importer:
            return _PATIENCE_WITH_SPAWNER
    return _PATIENCE_WITH_WAIT if frame.f_code.co_filename == threading.__file__ else float("inf")
