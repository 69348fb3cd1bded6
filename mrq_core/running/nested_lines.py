"""Ends log calls that make log calls without end.

The text of a value, or a handler, may log again, and that line calls the same code. The library ends this
with a RecursionError. Here each line goes to two handlers, and much code catches the error and goes on
(`traceback` does, and handlers do): the calls would double with each level.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident  # that of greenlets, where gevent has patched the library
from types import CodeType, FrameType

_MOST = 4
"""How many log calls may be inside one another. With two handlers, one line makes at most 14 others."""

_inside: dict[int, int] = {}
"""The log calls that each thread, or greenlet, is in. Too high after an interrupt at the wrong moment."""
_told: list[None] = []

Handle = Callable[[logging.Logger, logging.LogRecord], None]


def limits_nesting(handle: Handle) -> Handle:
    """Leaves out a line that is logged while `_MOST` others are on their way in the same thread. Standard
    error gets a note for the first."""

    def limited(logger: logging.Logger, record: logging.LogRecord) -> None:
        here = get_ident()
        depth = _inside.get(here, 0)
        if depth >= _MOST:
            depth = _depth_of(limited.__code__)
            if depth >= _MOST:
                _tell()
                return
        try:
            _inside[here] = depth + 1
            handle(logger, record)
        finally:
            if depth:
                _inside[here] = depth
            else:
                _inside.pop(here, None)

    return limited


def _depth_of(code: CodeType) -> int:
    """How many callers of this function, and of the one that calls it, run this code."""
    frame: FrameType | None = sys._getframe(2)
    depth = 0
    while frame is not None:
        depth += frame.f_code is code
        frame = frame.f_back
    return depth


def _tell() -> None:
    if not _told:
        _told.append(None)
        with suppress(OSError):
            os.write(
                2, f"mrq: a log line was left out: it was logged inside {_MOST} other log calls\n".encode()
            )
