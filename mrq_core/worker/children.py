"""Waits for child processes where gevent would wait for ever.

gevent handles SIGCHLD from its first watcher on. It makes that watcher after the start of the process, so it
never hears of a first child that has ended by then. It also waits for any child (`os.waitpid(-1, 0)`) where
there is none, and reports a child a second time that such a call has returned.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any

import gevent
import gevent.os
from gevent import hub

ours: set[int] = set()
"""The ids of child processes that belong to the worker, not to a task."""
_ROUND = 0.01
"""Seconds. By then the loop has called the watchers of children whose end it knows."""
_watched: dict[int, Any] = getattr(gevent.os, "_watched_children", {})
_waitpid: Callable[[int, int], tuple[int, int]] = gevent.os.waitpid


def watch_ends() -> None:
    """Handles SIGCHLD from now on. Call this before a process starts."""
    hub.get_hub().loop.install_sigchld()


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """Replaces `os.waitpid`. Raises ChildProcessError where there is no such child."""
    if pid == -1 and not options and not _has_ended() and not _has_children():
        gevent.sleep(_ROUND)
        if not _has_ended():
            raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))
    ended = _waitpid(pid, options)
    if ended[0] in _watched:
        if not isinstance(_watched[ended[0]], tuple):  # its watcher is about to be called
            gevent.sleep(_ROUND)
        _watched.pop(ended[0], None)
    return ended


def _has_ended() -> bool:
    return any(isinstance(watcher, tuple) for watcher in _watched.values())


def _has_children() -> bool:
    """Whether this process has a child, one that has ended included, that is not the worker's own."""
    import psutil  # here: its import would make each `mrq run` 10 ms longer

    return any(child.pid not in ours for child in psutil.Process().children())


def forget_parents() -> None:
    """Forgets the ended children of the process that has forked this one."""
    for pid in [pid for pid, watcher in _watched.items() if isinstance(watcher, tuple)]:
        del _watched[pid]


def _watching(start: Callable[..., int]) -> Callable[..., int]:
    def started(*arguments: Any, **named: Any) -> int:
        watch_ends()
        return start(*arguments, **named)

    return started


def _wait() -> tuple[int, int]:
    """Replaces `os.wait`, which would block the hub."""
    return waitpid(-1, 0)


def install() -> None:
    """Replaces the functions of `os`, if gevent has patched it."""
    if os.waitpid is not _waitpid:
        return
    for name, replaced in {
        "waitpid": waitpid,
        "wait": _wait,
        "posix_spawn": _watching(os.posix_spawn),
        "posix_spawnp": _watching(os.posix_spawnp),
    }.items():
        setattr(os, name, replaced)
