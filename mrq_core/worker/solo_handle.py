"""The worker's side of one solo process: starts it, receives its messages, watches it and kills it."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import gevent
import msgspec
from gevent.event import Event
from gevent.monkey import get_original

from mrq_core.errors import Interrupt, JobInterrupt, MemoryLimitExceeded
from mrq_core.worker.process_memory import peak_of, tree_size
from mrq_core.worker.solo_messages import (
    HEARTBEAT,
    HEARTBEATS,
    MESSAGES,
    FromProcess,
    Inbox,
    Interrupting,
    Start,
    framed,
    from_process,
)

_SILENT = 5 * HEARTBEAT
"""Seconds without a heartbeat after which a process that must be interrupted is killed."""
_GRACE, _GRACE_WHEN_STOPPING = 5.0, 1.5
"""Seconds for the code to end after it was interrupted."""
EXIT_PATIENCE = 1.0
"""Seconds for a process to exit after it has sent the outcome."""
_POLL = 0.5
"""Seconds between two questions whether the process has exited, where the hub does not say so."""
_LOWEST_DESCRIPTOR = 10
"""Descriptors of the worker's side are above those that the process uses."""
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM, signal.SIGCHLD, signal.SIGPIPE)
_MEGABYTE = 1_000_000
_waitpid: Callable[[int, int], tuple[int, int]] = get_original("os", "waitpid")


class SoloProcess:
    """A process that runs one attempt. The constructor starts it, in the main thread. Raises OSError.

    The watchdog's thread calls `examine` and `interrupt`; the hub calls the other methods.
    """

    def __init__(self) -> None:
        self.memory = 0
        """The limit of the resident memory of the process and its children, in bytes. 0: no limit."""
        self.killed_for: Interrupt | MemoryLimitExceeded | None = None
        self.peak = 0
        """The largest resident memory that was seen, in bytes."""
        self._interrupted_at: float | None = None
        self._heard = time.monotonic()
        self._status: int | None = None
        self._exited = Event()
        self._started = time.monotonic()
        ours, theirs = socket.socketpair()
        self._heartbeats, beating = os.pipe()
        self._socket = ours
        try:
            os.set_blocking(self._heartbeats, False)
            os.set_blocking(beating, False)
            self.pid = _spawn(theirs.fileno(), beating)
        except BaseException:
            self.close()
            raise
        finally:
            theirs.close()
            os.close(beating)
        self._watcher: Any = gevent.get_hub().loop.child(self.pid, ref=False)
        self._watcher.start(self._on_exit)

    # --- in the hub --------------------------------------------------------------------------

    def send(self, start: Start) -> None:
        """Sends the first message. A process that is gone already is noticed by its exit."""
        with suppress(OSError):
            self._socket.sendall(framed(start))

    def messages(self) -> Iterator[FromProcess]:
        """The messages of the process, until it has exited and all were read."""
        inbox = Inbox()
        while True:
            is_last = self._exited.is_set()
            with suppress(OSError):
                self._read(inbox, wait=not is_last)
            while (frame := inbox.next_frame()) is not None:
                try:
                    yield from_process(frame)
                except msgspec.DecodeError:
                    self.kill(None)  # the task has written to the socket: its end counts as a death
                    self._wait_exit(None)
                    return
            if is_last:
                return

    def _read(self, inbox: Inbox, *, wait: bool) -> None:
        """Adds what was received. Waits until there is something, or the process exits."""
        if wait:
            reader = gevent.spawn(self._wait_readable)
            either: list[Any] = [reader, self._exited]
            if not gevent.wait(either, timeout=_POLL, count=1):
                self._poll()
            reader.kill()
        while True:
            try:
                data = os.read(self._socket.fileno(), 65536)
            except BlockingIOError:
                return
            if not data:
                if wait:
                    self._wait_exit(None)
                return
            inbox.add(data)

    def _wait_readable(self) -> None:
        with suppress(OSError):
            gevent.socket.wait_read(self._socket.fileno())

    def death(self) -> str:
        """How the process died, for people."""
        seconds = time.monotonic() - self._started
        code = 0 if self._status is None else os.waitstatus_to_exitcode(self._status)
        if self._status is None:
            how = "ended, and something else in the worker took its exit status,"
        elif code < 0:
            how = f"was killed by {_signal_name(-code)} (signal {-code})"
        else:
            how = f"exited with code {code}"
        return (
            f"the own process {self.pid} of this job {how} after {seconds:.1f} s, before its code had ended; "
            f"its peak memory was {self.peak / _MEGABYTE:.0f} MB"
        )

    def end(self) -> None:
        """Waits a moment for the process to exit, and kills it with everything that it has started."""
        if not self._wait_exit(EXIT_PATIENCE):
            self.kill(None)
            self._wait_exit(EXIT_PATIENCE)
        self._kill_group()
        self._watcher.stop()
        self._watcher.close()

    def _wait_exit(self, seconds: float | None) -> bool:
        """Waits until the process has exited, for these seconds at most. None: without limit."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._exited.wait(_POLL):
            self._poll()
            if deadline is not None and time.monotonic() > deadline:
                break
        return self._exited.is_set()

    def _poll(self) -> None:
        """Asks for the exit itself: a task may have taken SIGCHLD, or the status of all children."""
        with suppress(ChildProcessError):
            pid, status = _waitpid(self.pid, os.WNOHANG)
            if not pid:
                return
            self._status = status
        self._exited.set()

    def _on_exit(self) -> None:
        self._status = self._watcher.rstatus
        self._watcher.stop()
        self._exited.set()

    def close(self) -> None:
        """Closes the descriptors of the worker's side."""
        self._socket.close()
        os.close(self._heartbeats)

    # --- in the watchdog's thread --------------------------------------------------------------

    def examine(self, now: float) -> None:
        """Reads the heartbeats and the memory of the process, and kills it if it uses too much."""
        if self._exited.is_set():
            return
        try:
            if os.read(self._heartbeats, 4096):
                self._heard = now
        except OSError:
            pass  # none came
        self.peak = max(self.peak, peak_of(self.pid))
        if self.memory:
            size = tree_size(self.pid)
            self.peak = max(self.peak, size)
            if size > self.memory:
                self.kill(
                    MemoryLimitExceeded(
                        f"the job used {size / _MEGABYTE:.0f} MB, more than its memory of "
                        f"{self.memory / _MEGABYTE:.0f} MB, and its process was killed"
                    )
                )

    def interrupt(self, interrupt: Interrupt, now: float) -> None:
        """Interrupts the code; kills the process if it is silent, or if the code does not end."""
        grace = _GRACE_WHEN_STOPPING if isinstance(interrupt, JobInterrupt) else _GRACE
        if self._interrupted_at is None:
            self._interrupted_at = now
            message = framed(Interrupting(type(interrupt).__name__, str(interrupt)))
            with suppress(OSError):
                os.write(self._socket.fileno(), message)
        if now - self._heard > _SILENT or now - self._interrupted_at > grace:
            self.kill(interrupt)

    def kill(self, reason: Interrupt | MemoryLimitExceeded | None) -> None:
        """Kills the process and its group. The first reason counts."""
        if not self._exited.is_set():
            self.killed_for = self.killed_for or reason
            self._kill_group()

    def _kill_group(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def _spawn(messages: int, heartbeats: int) -> int:
    """Starts the interpreter with these descriptors, in a new process group. Returns its id."""
    code = (
        "import sys; "
        f"sys.path[:] = {sys.path!r}; "
        "from gevent import monkey; monkey.patch_all(); "
        "from mrq_core.worker.solo_process import main; main()"
    )
    gevent.get_hub().loop.install_sigchld()
    # Copies beyond the numbers that the process uses: the first dup2 must not overwrite the second source.
    copies = [fcntl.fcntl(one, fcntl.F_DUPFD_CLOEXEC, _LOWEST_DESCRIPTOR) for one in (messages, heartbeats)]
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-c", code],
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, copies[0], MESSAGES),
                (os.POSIX_SPAWN_DUP2, copies[1], HEARTBEATS),
            ],
            setpgroup=0,
            setsigmask=(),
            setsigdef=_SIGNALS,
        )
    finally:
        for copy in copies:
            os.close(copy)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a signal"
