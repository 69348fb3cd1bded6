"""`os.close` closes at once, as in a plain program.

gevent closes the end of a pipe only when its loop has run once more, and in a process whose loop waits, this
may be much later: a reader that waits for the end of the pipe waits as long (gevent#2100).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent.hub
import gevent.os
from gevent.monkey import get_original

_close_now: Callable[[int], None] = get_original("os", "close")
_gevent_os: Any = gevent.os
_hubs: Any = gevent.hub
_os: Any = os
_closing: dict[int, object] = getattr(gevent.os, "_closing_fd_to_event", {})
"""The descriptors that gevent is about to close. Before 25.8 it closed all of them at once."""


def close_at_once() -> None:
    """Replaces `os.close`. Call it after gevent has patched `os`, before other modules keep the function."""
    if os.close is not _close_now:
        _os.close = _close


def close_in_child() -> None:
    """In a forked child: closes what the loop of the parent was about to close, for that loop never runs
    here, and leaves the loop out from now on."""
    for descriptor in list(_closing):
        with suppress(OSError):
            _close_now(descriptor)
    _closing.clear()
    _os.close = _close_now


def _close(fd: int) -> None:
    """Closes the file descriptor. Raises OSError for a closed one."""
    loop: Any = getattr(_hubs._get_hub(), "loop", None)
    number = fd if isinstance(fd, int) else -1
    if loop is None or not _is_watched(loop, number):
        _close_now(fd)
        return
    _gevent_os.close(fd)  # once the loop has left it
    loop.run_callback_threadsafe(_wake)


def _is_watched(loop: Any, fd: int) -> bool:
    """Whether the loop waits for this descriptor, or is about to close it."""
    return fd in _closing or (fd >= 0 and loop.closing_fd(fd))


def _wake() -> None:
    """Lets the loop run."""
