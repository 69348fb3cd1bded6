"""The fork server: forks a process for each solo job, and reports how each one exited.

It has one thread, no hub and no connection, so that its children start from a clean state. A child leaves the
server's loop and runs its job (`solo_process.py`).

Nothing that a job has started outlives the job, on Linux. A process whose parent exits is adopted by its
nearest ancestor that is a subreaper (prctl(2)). Each child is one, so that all processes of a job stay below
the child. The server is the next one: whatever it adopts was left by a job that has ended, and is killed.

The server and its children ignore the signals that end a worker: service managers send them to all processes
of a service, and the worker decides when its jobs end.
"""

from __future__ import annotations

import _socket
import ctypes
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Container
from contextlib import suppress
from importlib import import_module
from select import POLLIN
from typing import Any, NoReturn

import psutil
from gevent._hub_local import get_hub_if_exists
from gevent.monkey import get_original

from mrq_core.clock import monotonic
from mrq_core.worker.guards.process_end import keep_exit_code
from mrq_core.worker.guards.signals import end_after_work
from mrq_core.worker.reporting.process_memory import children_of
from mrq_core.worker.solo import solo_process
from mrq_core.worker.solo.fork_server import (
    CONTROL,
    EXITED,
    FAILED,
    FORK,
    FORKED,
    KILL,
    PRELOAD,
    REPLY,
    REQUEST,
    SIGNALS,
    keep_early,
)
from mrq_core.worker.solo.solo_messages import HEARTBEATS, MESSAGES

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_IGNORED_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
"""Signals to the worker that a service manager sends to all processes of a service."""
_END_PATIENCE = 1.0
"""Seconds for killed processes to exit when the server ends."""
_ORPHAN_PATIENCE = 3.8
"""Seconds for a worker to end after the death of its parent. The server then kills it: it is suspended, or C
code holds its GIL."""
_IS_LINUX = sys.platform == "linux"
_PARENT_CHECK = None if _IS_LINUX else 1.0
"""Seconds between two checks whether the worker lives, where the kernel does not end the server with it."""
_MAXRSS_UNIT = 1024 if _IS_LINUX else 1
"""Bytes."""
# The patched functions would start a hub.
_fork: Callable[[], int] = get_original("os", "fork")
_select: Callable[..., tuple[list[Any], list[Any], list[Any]]] = get_original("select", "select")
_poll: Callable[[], Any] = get_original("select", "poll")
_handle_signal: Callable[..., object] = get_original("signal", "signal")


def fork_early(*, grandparent: int = -1, then: Callable[[], None] = lambda: None) -> None:
    """Forks the server from this process, if nothing runs yet that a fork must not copy. `grandparent`: the
    descriptor of a pipe whose writer is the parent of this worker, as with `--processes`. `then`: called in
    the server, before it serves."""
    if get_hub_if_exists() is not None or threading.active_count() > 1:
        return
    worker = os.getpid()
    ours, theirs = _socket.socketpair()
    pid = _fork()
    if pid:
        theirs.close()
        with suppress(OSError):  # the child does the same
            os.setpgid(pid, pid)
        keep_early(pid, ours.detach())
        return
    ours.close()
    with suppress(OSError):
        os.setpgid(0, 0)
    for number in SIGNALS:
        if number != signal.SIGPIPE:  # Python ignores it: a write to a closed pipe or connection is an error
            _handle_signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    descriptor = theirs.detach()
    if descriptor != CONTROL:
        os.dup2(descriptor, CONTROL)
        os.close(descriptor)
    then()
    main(worker, grandparent)


def main(worker: int, grandparent: int = -1) -> NoReturn:
    """Serves until the worker with this process id is gone. In each child, runs a job instead."""
    keep_exit_code()
    server_id = os.getpid()
    server = _Server(worker, grandparent)
    # Not SIGKILL: the server ends the processes of the jobs first.
    _when_parent_dies(worker, signal.SIGTERM)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    if server.serve():
        _when_parent_dies(server_id, signal.SIGKILL)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        solo_process.main(server_id)
        end_after_work(0)
    else:
        server.end_all()
        os._exit(0)  # not by an exception, which a program that calls the command could catch


class _Server:
    """The loop, and the children that run."""

    def __init__(self, worker: int, grandparent: int) -> None:
        self._worker = worker
        self._worker_ends_at: float | None = None
        """The monotonic time at which the server kills a worker whose parent is gone."""
        os.set_inheritable(CONTROL, False)
        self._control = _socket.socket(socket.AF_UNIX, socket.SOCK_STREAM, 0, CONTROL)
        self._control.setblocking(True)
        self._running: set[int] = set()
        self._awake, self._waker = os.pipe()
        os.set_blocking(self._awake, False)
        os.set_blocking(self._waker, False)
        for number in (signal.SIGCHLD, *_IGNORED_SIGNALS):
            # Not SIG_IGN, which programs that a job starts would inherit.
            _handle_signal(number, lambda signum, frame: None)
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        self._poll: Any = _poll()
        self._poll.register(CONTROL, POLLIN)
        self._poll.register(self._awake, POLLIN)
        self._grandparent = grandparent
        if grandparent >= 0:
            self._poll.register(grandparent, 0)  # its end only: the worker reads it

    def serve(self) -> bool:
        """Answers requests until the worker is gone. Returns True in a child, once for each."""
        control: Any = self._control
        while True:
            readable = self._wait()
            if self._awake in readable:
                with suppress(BlockingIOError):
                    os.read(self._awake, 4096)
            self._report_exits()
            if os.getppid() != self._worker:
                return False
            if CONTROL in readable:
                try:
                    request, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 2)
                except OSError:
                    return False
                if len(request) < REQUEST.size:
                    return False
                kind, number = REQUEST.unpack(request)
                if kind == FORK and len(descriptors) == 2:
                    if self._fork(descriptors):
                        return True
                elif kind == KILL:
                    if number in self._running:
                        _kill(number)
                elif kind == PRELOAD:
                    _preload(control.recv(number, socket.MSG_WAITALL))
                else:  # code of a job has written to the socket
                    return False

    def _wait(self) -> Container[int]:
        """The descriptors that can be read. Kills a worker that does not end though its parent is gone."""
        left = None if self._worker_ends_at is None else max(0.0, self._worker_ends_at - monotonic())
        if left == 0.0:
            with suppress(ProcessLookupError):
                os.kill(self._worker, signal.SIGKILL)
        times = [seconds for seconds in (_PARENT_CHECK, left or None) if seconds is not None]
        events = dict(self._poll.poll(min(times) * 1000 if times else None))
        if self._grandparent in events:
            self._poll.unregister(self._grandparent)
            self._worker_ends_at = monotonic() + _ORPHAN_PATIENCE
        return events

    def end_all(self) -> None:
        """Kills the processes of all jobs, and what they have started."""
        for pid in self._running:
            _kill(pid)
        end = monotonic() + _END_PATIENCE
        while (self._running or self._kill_adopted()) and monotonic() < end:
            self._report_exits()
            _select([], [], [], 0.01)

    def _fork(self, descriptors: list[int]) -> bool:
        """Forks. True in the child, which has the descriptors at their numbers."""
        try:
            pid = _fork()
        except OSError as error:
            self._reply(FAILED, error.errno or 0)
        else:
            if pid == 0:
                self._become_child(descriptors)
                return True
            with suppress(OSError):  # the child does the same
                os.setpgid(pid, pid)
            self._running.add(pid)
            self._reply(FORKED, pid)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        return False

    def _become_child(self, descriptors: list[int]) -> None:
        signal.set_wakeup_fd(-1)
        _handle_signal(signal.SIGCHLD, signal.SIG_DFL)  # the other signals stay ignored
        with suppress(OSError):
            os.setpgid(0, 0)
        os.close(self._awake)
        os.close(self._waker)
        self._control.detach()
        # The received descriptors are above these two: the server has its socket and its pipe there.
        for descriptor, number in zip(descriptors, (MESSAGES, HEARTBEATS), strict=True):
            os.dup2(descriptor, number, inheritable=False)

    def _report_exits(self) -> None:
        for pid in list(self._running):
            if not _has_exited(pid):
                continue
            _kill(pid)  # what it has left in its group; its id is not free until the next line
            _, status, usage = os.wait4(pid, 0)
            self._running.discard(pid)
            self._kill_adopted()
            self._reply(EXITED, pid, os.waitstatus_to_exitcode(status), usage.ru_maxrss * _MAXRSS_UNIT)
        self._kill_adopted()

    def _kill_adopted(self) -> bool:
        """Kills what jobs that have ended had started. Each exit wakes the loop, which then meets what the
        killed processes had started. False: nothing was left."""
        if not _IS_LINUX:
            return False
        adopted = [pid for pid in children_of(os.getpid()) if pid not in self._running]
        for pid in adopted:
            _kill(pid)
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        return bool(adopted)

    def _reply(self, kind: bytes, first: int, code: int = 0, peak: int = 0) -> None:
        with suppress(OSError):  # the worker is gone: the loop ends soon
            self._control.sendall(REPLY.pack(kind, first, code, peak))


def _preload(names: bytes) -> None:
    """Imports the modules of these names, once for all children."""
    for name in names.decode().split():
        with suppress(BaseException):  # the child meets the error again, and reports it
            import_module(name)
    gc.collect()
    gc.freeze()


def _has_exited(pid: int) -> bool:
    """Whether the child is a zombie now."""
    if hasattr(os, "waitid"):
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def _kill(pid: int) -> None:
    """Kills the child and its group."""
    for kill in (os.kill, os.killpg):
        with suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def _when_parent_dies(parent: int, number: int) -> None:
    """Makes the kernel send this process the signal when its parent dies, where the kernel can."""
    _prctl(_PR_SET_PDEATHSIG, number)
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _prctl(option: int, value: int) -> None:
    if _IS_LINUX:
        ctypes.CDLL(None).prctl(option, value)
