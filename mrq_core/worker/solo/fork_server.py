"""The worker's side of the fork server, which starts the processes of solo jobs.

A new interpreter needs a quarter of a second of the processor until it has imported mrq. A fork of the worker
needs none, but copies its threads' locks, its hub and its connections. The fork server is a process between
the two: it has imported mrq, runs no thread and no hub, and forks for each job (`fork_server_process.py`). It
ends with its worker, and its children end with it.

`mrq worker` forks it first of all (`fork_early`). A worker in another program starts it with posix_spawn for
its first solo job, and each worker does so after its server was killed.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import struct
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.monkey import get_original

from mrq_core.clock import monotonic
from mrq_core.worker.guards import children
from mrq_core.worker.guards.own_descriptors import own

CONTROL = 3
"""The file descriptor of the server's socket."""
REQUEST = struct.Struct("!cq")
"""FORK, with two descriptors; KILL and the id of a process; or PRELOAD and the size of what follows: names of
modules."""
REPLY = struct.Struct("!cqqq")
"""FORKED and the id; FAILED and the number of the error; or EXITED, the id, the exit code and the peak
memory."""
FORK, KILL, PRELOAD, FORKED, FAILED, EXITED = b"F", b"K", b"P", b"S", b"E", b"X"

_LOWEST_DESCRIPTOR = 10
"""The copy of the server's socket is above the number that it gets in the server."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD, signal.SIGPIPE)
"""Handled as in a new process when the server starts."""
_PATIENCE = 5.0
"""Seconds for the server to answer. A server that does not is killed and replaced."""
_START_PATIENCE = 60.0
"""Seconds from its start for the server to answer for the first time. On a machine with a high load, its
imports take long, and those of a replacement would take as long."""
_END_PATIENCE = 1.2
"""Seconds for the server to kill what its children have started, and to exit."""
_waitpid: Callable[[int, int], tuple[int, int]] = get_original("os", "waitpid")


_early: list[tuple[int, int]] = []
"""The process id and the socket of the server that `fork_early` has forked, until a worker uses it."""


def keep_early(pid: int, control: int) -> None:
    """Gives the forked server and our end of its socket to the next `ForkServer`."""
    _early.append((pid, control))
    children.ours.add(pid)
    own.add(control)


class Fork:
    """A process that the server has forked. `exit_code` is negative for a signal. None: it runs, or it ended
    with the server, which says nothing about it. `peak` is the largest resident memory of the process, in
    bytes; 0 while it runs."""

    __slots__ = ("exit_code", "exited", "peak", "pid")

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exited = Event()
        self.exit_code: int | None = None
        self.peak = 0


class ForkServer:
    """A running fork server. The constructor starts it, in the main thread, if `fork_early` has not. Raises
    OSError."""

    def __init__(self, modules: Iterable[str]) -> None:
        """`modules` are imported by the server, so that its children need not."""
        self._forks: dict[int, Fork] = {}
        self._asked: deque[AsyncResult[Any]] = deque()
        self._given_up: set[AsyncResult[Any]] = set()
        self._started = monotonic()
        self._first_answer = Event()
        if _early:
            self.pid, control = _early.pop()
            self._socket = socket.socket(fileno=control)
        else:
            self.pid, self._socket = _spawn()
        children.ours.add(self.pid)
        own.add(self._socket.fileno())
        self._socket.settimeout(None)  # a task may have set a default timeout
        self.is_alive = True
        names = " ".join(modules).encode()
        with suppress(OSError):  # `fork` raises it
            self._socket.sendall(REQUEST.pack(PRELOAD, len(names)) + names)
        self._reader = gevent.spawn(self._read)

    def fork(self, messages: int, heartbeats: int) -> Fork:
        """Starts a process with these descriptors, in a new process group. Waits up to 5 s for the server. A
        server that does not answer is killed, unless it is still starting. Raises OSError."""
        if self._given_up and not self._first_answer.wait(_PATIENCE):  # it has enough to do
            raise self._no_answer()
        answer: AsyncResult[Any] = AsyncResult()
        self._asked.append(answer)
        socket.send_fds(self._socket, [REQUEST.pack(FORK, 0)], [messages, heartbeats])
        answer.wait(_PATIENCE / 2)
        answer.wait(_PATIENCE / 2)  # a job may have blocked the hub for all of the first half
        if not answer.ready():
            self._given_up.add(answer)
            raise self._no_answer()
        fork = answer.get()
        assert isinstance(fork, Fork)
        return fork

    def _no_answer(self) -> OSError:
        """The error of a request without an answer. Kills the server, unless it may still be starting."""
        seconds = monotonic() - self._started
        if not self._first_answer.is_set() and seconds < _START_PATIENCE:
            return OSError(
                f"the process that starts solo jobs has started {seconds:.0f} s ago, and is not ready"
            )
        self.kill_server()
        return OSError(
            f"the process that starts solo jobs did not answer for {_PATIENCE:.0f} s, and was killed"
        )

    def kill(self, fork: Fork) -> None:
        """Kills the process and its group. Has no effect on a process that has exited. Native threads may
        call it. The server, which knows what runs, sends the signal, so that it never reaches a later process
        with the same id."""
        with suppress(OSError):
            os.write(self._socket.fileno(), REQUEST.pack(KILL, fork.pid))

    def kill_server(self) -> None:
        """Kills a server that does not respond, and with it its children."""
        self.is_alive = False
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends the server, all its children and what these have started."""
        self.is_alive = False
        self._reader.kill()
        own.discard(self._socket.fileno())
        with suppress(OSError):  # not `close`: a process that a task has forked may have a copy
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGCONT)
        if not self._has_exited_within(_END_PATIENCE):
            self._end()

    def _read(self) -> None:
        """Receives the replies until the server is gone. Its children are gone then too."""
        received = bytearray()
        # OSError: the server is gone. The others: code of a job has written to the socket.
        with suppress(OSError, LookupError, ValueError):
            while data := self._socket.recv(65536):
                received += data
                while len(received) >= REPLY.size:
                    self._take(*REPLY.unpack(received[: REPLY.size]))
                    del received[: REPLY.size]
        self.is_alive = False
        own.discard(self._socket.fileno())
        self._end()
        for answer in self._asked:
            answer.set_exception(OSError("the process that starts solo jobs has ended"))
        for fork in self._forks.values():
            fork.exited.set()

    def _take(self, kind: bytes, first: int, code: int, peak: int) -> None:
        self._first_answer.set()
        if kind == EXITED:
            fork = self._forks.pop(first)
            fork.exit_code, fork.peak = code, peak
            fork.exited.set()
        elif kind == FORKED:
            self._forks[first] = fork = Fork(first)
            answer = self._asked.popleft()
            if answer in self._given_up:
                self._given_up.discard(answer)
                self.kill(fork)
            answer.set(fork)
        elif kind == FAILED:
            self._asked.popleft().set_exception(OSError(first, os.strerror(first)))
        else:
            raise ValueError(kind)

    def _end(self) -> None:
        """Kills the server and takes its exit status, unless a task has taken it."""
        self.kill_server()
        self._has_exited_within(1.0)

    def _has_exited_within(self, seconds: float) -> bool:
        end = monotonic() + seconds
        try:
            while not _waitpid(self.pid, os.WNOHANG)[0]:
                if monotonic() > end:
                    return False
                time.sleep(0.01)
        except ChildProcessError:  # a task has taken the exit status
            pass
        children.ours.discard(self.pid)
        return True


def _spawn() -> tuple[int, socket.socket]:
    """Starts an interpreter for the server, in a new process group. Returns its id, and our end of its
    socket."""
    code = (
        "import sys; "
        # First is the folder of the project, whose files must not hide modules that the server imports.
        f"path = {sys.path!r}; sys.path[:] = path[1:] + path[:1]; "
        "from mrq_core.worker.guards.patching import patch_all; patch_all(); "
        "from mrq_core.worker.solo.fork_server_process import main; "
        "from mrq_core.config.hidden import import_hidden_by; import_hidden_by(path[0]); "
        f"sys.path[:] = path; main({os.getpid()})"
    )
    ours, theirs = socket.socketpair()
    with theirs:
        copy = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, _LOWEST_DESCRIPTOR)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, copy, CONTROL),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=SIGNALS,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        os.close(copy)
    return pid, ours
