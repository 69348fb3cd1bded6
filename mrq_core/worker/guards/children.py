"""Waits for child processes as a plain program does: a child that has ended stays until it is waited for.

gevent takes the status of every child that ends (`waitpid(-1)` in a handler of SIGCHLD). A task then finds
its child gone before it has waited, a native thread cannot have child processes at all, and a wait for any
child misses some. Here the handler is never installed: the loop watches a descriptor of the process
(pidfd_open(2)), or polls where the system has none, and the status stays with the system.
"""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import gevent
import gevent.os
import gevent.subprocess
from gevent import hub
from gevent.monkey import get_original

from mrq_core.clock import monotonic
from mrq_core.worker.reporting.process_memory import children_of

ours: set[int] = set()
"""The ids of child processes that belong to the worker, not to a task."""
_KEPT = 60.0
"""Seconds for which the status of an ended child is kept for a task that has not waited, as in gevent."""
_UNTAKEN_MOST = 1000
"""The other children whose statuses are kept: a task may wait late for a process that it has forked."""
_PAUSES = (0.001, 0.02)
"""Seconds from one look to the next where no descriptor tells of an end: the first pause, and the longest."""
_watches: dict[int, _Watch] = {}
_raw_waitpid: Callable[[int, int], tuple[int, int]] = get_original("os", "waitpid")
_raw_close: Callable[[int], None] = get_original("os", "close")
_gevent_os: Any = gevent.os
_Popen: Any = gevent.subprocess.Popen
_swept_at = 0.0


class _Watch:
    """Calls gevent's callback when a child has ended. Replaces a child watcher of gevent.

    Children of native threads are not watched: their loops run only while the thread waits.
    """

    def __init__(self, pid: int, callback: Callable[[Any], object] | None, loop: Any, ref: bool) -> None:
        self.pid = self.rpid = pid
        self.rstatus = 0
        self.owner = getattr(callback, "__self__", None)
        self.ended_at: float | None = None
        self._callback = callback
        self._loop = loop
        self._descriptor = -1
        self._watcher: Any = None
        if loop.default:
            self._descriptor = _open(pid)
            found = self._descriptor >= 0
            self._watcher = loop.io(self._descriptor, 1, ref=ref) if found else loop.timer(*_PAUSES, ref=ref)
            self._watcher.start(self.look)

    @property
    def is_watched_here(self) -> bool:
        """Whether the loop of the calling thread sees the end of the child."""
        return self._watcher is not None and hub.get_hub().loop is self._loop

    def look(self) -> None:
        """Examines whether the child has ended, and leaves its status with the system."""
        if self.ended_at is None and (status := _status_of(self.pid)) is not None:
            self.end(status)

    def end(self, status: int) -> None:
        """Tells gevent that the child has ended. Later calls have no effect."""
        if self.ended_at is not None:
            return
        self.ended_at = monotonic()
        self.rstatus = status
        if self._watcher is not None:
            self._loop.run_callback_threadsafe(self.forget)
            self._loop.run_callback_threadsafe(_gevent_os._on_child_hook)  # handlers of SIGCHLD
        if self._callback is not None:
            self._callback(self)

    def stop(self) -> None:
        """For the callback, which stops its watcher. Nothing is left to stop."""

    close = stop

    def forget(self) -> None:
        """Ends the watcher. In the thread of its loop."""
        if self._watcher is not None:
            self._watcher.stop()
            self._watcher.close()
            self._watcher = None
        if self._descriptor >= 0:
            with suppress(OSError):  # another thread closes it while this one forks
                _raw_close(self._descriptor)
            self._descriptor = -1


def _open(pid: int) -> int:
    """A descriptor that is readable once the process has ended. -1: there is none."""
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):  # an older system, or too many open files
        return -1


def _status_of(pid: int) -> int | None:
    """The wait status of the child, which stays with the system. None: it has not ended. 0 if something else
    has taken the status, as in `subprocess` of Python."""
    try:
        if not hasattr(os, "waitid"):  # as on macOS: the status cannot stay with the system
            ended, status = _raw_waitpid(pid, os.WNOHANG)
            return status if ended else None
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    if found is None:
        return None
    if found.si_code == os.CLD_EXITED:
        return found.si_status << 8
    return found.si_status | (0x80 if found.si_code == os.CLD_DUMPED else 0)


def _watch_child(pid: int, callback: Any = None, loop: Any = None, ref: bool = False) -> None:
    """Replaces the function with which gevent watches each child that it starts."""
    _sweep()
    loop = loop or hub.get_hub().loop
    earlier = _watches.get(pid)
    if earlier is not None:  # its status was taken by other code
        earlier.end(0)
    _watches[pid] = _Watch(pid, callback, loop.loop if isinstance(loop, _QuietLoop) else loop, ref)


def _sweep() -> None:
    """Takes the statuses that nothing has waited for, also those of orphans that the process inherited."""
    global _swept_at
    now = monotonic()
    if now < _swept_at + _KEPT / 6:
        return
    _swept_at = now
    for pid in children_of(os.getpid()):
        if pid not in ours and pid not in _watches:
            _watches[pid] = _Watch(pid, None, _Unwatched, ref=False)
    others = []
    for watch in list(_watches.values()):
        watch.look()
        if watch.ended_at is not None and watch.ended_at < now - _KEPT:
            if isinstance(watch.owner, _Popen):  # which knows its status
                _take(watch)
            else:
                others.append(watch)
    for watch in others[: max(0, len(others) - _UNTAKEN_MOST)]:  # the oldest
        _take(watch)


class _Late(BaseException):
    """The time of a wait is over."""


class _Unwatched:
    """Stands for the loop of a child that something else has started."""

    default = False


def _take(watch: _Watch) -> None:
    """Takes the status of an ended child from the system, unless another call has taken it."""
    if _watches.get(watch.pid) is watch:
        del _watches[watch.pid]
        with suppress(ChildProcessError):
            _raw_waitpid(watch.pid, os.WNOHANG)


def waitpid(pid: int, options: int, /) -> tuple[int, int]:
    """Replaces `os.waitpid`. Other greenlets go on meanwhile. Raises ChildProcessError where there is no such
    child."""
    pause = _PAUSES[0]
    while True:
        for child in _chosen(pid):
            try:
                ended = _raw_waitpid(child, options | os.WNOHANG)
            except ChildProcessError:
                if pid > 0:
                    raise
                continue  # other code has taken it meanwhile
            if ended[0]:
                watch = _watches.get(child)
                if watch is not None and not (os.WIFSTOPPED(ended[1]) or os.WIFCONTINUED(ended[1])):
                    del _watches[child]
                    watch.end(ended[1])
                return ended
        if options & os.WNOHANG:
            return 0, 0
        if pid > 0 and not options:
            _wait_for_end(pid, None)
        else:
            gevent.sleep(pause)
            pause = min(pause * 2, _PAUSES[1])


def _chosen(pid: int) -> list[int]:
    """The children that this argument of waitpid(2) means, without those of the worker. Raises
    ChildProcessError where it means none."""
    if pid > 0:
        return [pid]
    group = -pid or os.getpgrp()
    chosen = [
        child
        for child in children_of(os.getpid())
        if child not in ours and (pid == -1 or _group_of(child) == group)
    ]
    if not chosen:
        raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))
    return chosen


def _group_of(pid: int) -> int:
    try:
        return os.getpgid(pid)
    except OSError:
        return 0


def _wait_for_end(pid: int, seconds: float | None) -> bool:
    """Waits until the child has ended, in the hub of the calling thread. False: it has not in time."""
    deadline = None if seconds is None else monotonic() + seconds
    here = hub.get_hub()
    descriptor = _open(pid)
    watcher: Any = here.loop.io(descriptor, 1) if descriptor >= 0 else None
    pause = _PAUSES[0]
    try:
        while _status_of(pid) is None:
            left = None if deadline is None else deadline - monotonic()
            if left is not None and left <= 0:
                return False
            if watcher is None:
                gevent.sleep(pause if left is None else min(pause, left))
                pause = min(pause * 2, _PAUSES[1])
            else:
                with suppress(_Late), gevent.Timeout(left, _Late):
                    here.wait(watcher)
        return True
    finally:
        if watcher is not None:
            watcher.close()
            _raw_close(descriptor)


def forget_parents() -> None:
    """Forgets the children of the process that has forked this one."""
    for watch in _watches.values():
        watch.forget()
    _watches.clear()


def _wait() -> tuple[int, int]:
    """Replaces `os.wait`, which would block the hub."""
    return waitpid(-1, 0)


class _QuietLoop:
    """The loop that a Popen uses while it starts: it does not install gevent's handler of SIGCHLD."""

    def __init__(self, loop: Any) -> None:
        self.loop = loop

    def install_sigchld(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loop, name)


_start_popen: Callable[..., None] = _Popen._execute_child
_wait_popen: Callable[..., int | None] = _Popen.wait
_poll_popen: Callable[..., int | None] = _Popen._internal_poll


def _start(popen: Any, *arguments: Any, **named: Any) -> None:
    loop = popen._loop
    popen._loop = _QuietLoop(loop)
    try:
        _start_popen(popen, *arguments, **named)
    finally:
        popen._loop = loop


def _watch_of(popen: Any) -> _Watch | None:
    watch = _watches.get(popen.pid)
    return watch if watch is not None and watch.owner is popen else None


def _wait_for(popen: Any, timeout: float | None = None, _raise_exc: bool = True) -> int | None:
    watch = _watch_of(popen)
    if watch is not None and not watch.is_watched_here:
        if not _wait_for_end(popen.pid, timeout):
            if _raise_exc:
                raise subprocess.TimeoutExpired(popen.args, timeout or 0.0)
            return None
        watch.look()
    code = _wait_popen(popen, timeout, _raise_exc)
    return _taken(popen, code)


def _poll(popen: Any) -> int | None:
    watch = _watch_of(popen)
    if watch is not None:
        watch.look()
    return _taken(popen, _poll_popen(popen))


def _taken(popen: Any, code: int | None) -> int | None:
    watch = _watch_of(popen)
    if code is not None and watch is not None:
        _take(watch)
    return code


def install() -> None:
    """Replaces functions of `os` and methods of `subprocess.Popen`, if gevent has patched them."""
    if os.waitpid is not _gevent_os.waitpid:
        return
    for owner, name, replaced in (
        (os, "waitpid", waitpid),
        (os, "wait", _wait),
        (_gevent_os, "waitpid", waitpid),
        (_gevent_os, "_watch_child", _watch_child),
        (_Popen, "_execute_child", _start),
        (_Popen, "wait", _wait_for),
        (_Popen, "_internal_poll", _poll),
    ):
        setattr(owner, name, replaced)
