"""The frames of other threads, read while Python collects no garbage.

Until Python 3.12, a collection may begin with any new object, also with one that stands for a frame, within
the functions of Python that read frames. A finalizer may let other threads run there. Then a frame that is
being read ends, and the process dies of a segmentation fault; or the other threads wait without end for a
lock that `sys._current_frames` holds (python/cpython#106883).
"""

from __future__ import annotations

import gc
import os
import sys
from collections import deque
from contextlib import ContextDecorator
from types import FrameType

_COLLECTS_ANYWHERE = sys.version_info < (3, 12)
_readers: deque[None] = deque()
"""An item for each block that reads frames now, in any thread. No lock: a fork may copy it while
it is taken."""
_is_held = False
"""Whether collections are to begin again after the last block."""


class _Reading(ContextDecorator):
    """See `reading_frames`."""

    def __enter__(self) -> None:
        global _is_held
        if _COLLECTS_ANYWHERE:
            _readers.append(None)
            if gc.isenabled():
                _is_held = True
                gc.disable()

    def __exit__(self, *error: object) -> None:
        if _COLLECTS_ANYWHERE:
            _readers.pop()
            _collect_again()


reading_frames = _Reading()
"""For a block, or as a decorator: no collection begins by itself while frames of other threads, their outer
frames and local variables are read."""


def current_frames() -> dict[int, FrameType]:
    """The innermost frame of each native thread, by its identifier."""
    with reading_frames:
        return sys._current_frames()


def _collect_again() -> None:
    global _is_held
    if _is_held and not _readers:
        _is_held = False
        gc.enable()
        if _readers:  # another thread has begun meanwhile
            _is_held = True
            gc.disable()


def _in_child() -> None:
    """The other threads are not in the child, nor are their blocks."""
    _readers.clear()
    _collect_again()


os.register_at_fork(after_in_child=_in_child)
