"""The worker's side of one solo process: starts it, receives its messages, watches it and kills it."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gevent
import msgspec
from msgspec.structs import replace

from mrq_core.clock import monotonic
from mrq_core.errors import Interrupt, JobInterrupt, MemoryLimitExceeded
from mrq_core.operations.workers import IoState
from mrq_core.worker.guards.own_descriptors import own
from mrq_core.worker.reporting.process_memory import tree_size
from mrq_core.worker.solo.fork_server import ForkServer
from mrq_core.worker.solo.solo_messages import (
    HEARTBEAT,
    Beats,
    FromProcess,
    Inbox,
    Interrupting,
    StackWanted,
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
_KILL_PATIENCE = 5.0
"""Seconds for a killed process to be gone."""
_MEGABYTE = 1_000_000
_CUT = (
    "its code closed the connection to the worker, or replaced the process by another program (os.exec), and "
    "no outcome can come"
)


class SoloProcess:
    """A process that runs one attempt. The constructor starts it. Raises OSError.

    The watchdog's thread calls `examine` and `interrupt`; the hub calls the other methods.
    """

    def __init__(self, server: ForkServer) -> None:
        self.memory = 0
        """The limit of the resident memory of the process and its children, in bytes. 0: no limit."""
        self.killed_for: Interrupt | MemoryLimitExceeded | None = None
        self.peak = 0
        """The largest resident memory that was seen, in bytes."""
        self._io: tuple[IoState, float] | None = None
        self._interrupted_at: float | None = None
        self._killed_at: float | None = None
        self._fault = ""
        """Why the worker can expect no outcome of the process, which it kills."""
        self._heard = monotonic()
        self._beats = Beats()
        self._server = server
        self._started = monotonic()
        ours, theirs = socket.socketpair()
        ours.settimeout(None)  # a task may have set a default timeout
        self._heartbeats, beating = os.pipe()
        self._socket = ours
        try:
            os.set_blocking(self._heartbeats, False)
            os.set_blocking(beating, False)
            own.keep_non_blocking(ours.fileno(), self._heartbeats)
            self._fork = server.fork(theirs.fileno(), beating)
        except BaseException:
            self.close()
            raise
        finally:
            theirs.close()
            os.close(beating)
        self.pid = self._fork.pid

    # --- in the hub --------------------------------------------------------------------------

    def send(self, start: Start) -> None:
        """Sends the first message. A process that is gone already is noticed by its exit."""
        with suppress(OSError):
            self._socket.sendall(framed(start))

    def messages(self) -> Iterator[FromProcess]:
        """The messages of the process, until it has exited and all were read."""
        inbox = Inbox()
        while True:
            is_last = self._fork.exited.is_set()
            with suppress(OSError):
                self._read(inbox, wait=not is_last)
            while (frame := inbox.next_frame()) is not None:
                try:
                    yield from_process(frame)
                except msgspec.DecodeError:  # its end counts as a death
                    self._fault = "its code wrote into the connection to the worker"
                    self.kill(None)
                    self.end()
                    return
            if is_last:
                return

    @property
    def io(self) -> IoState | None:
        """What the I/O of the job waits for, as far as the process has told. In any thread."""
        if self._io is None:
            return None
        io, received = self._io
        later = monotonic() - received
        calls = tuple(replace(call, seconds=round(call.seconds + later, 3)) for call in io.calls)
        return replace(io, calls=calls)

    @io.setter
    def io(self, told: IoState) -> None:
        self._io = (told, monotonic())

    def _read(self, inbox: Inbox, *, wait: bool) -> None:
        """Adds what was received. Waits until there is something, or the process exits."""
        if wait:
            reader = gevent.spawn(self._wait_readable)
            either: list[Any] = [reader, self._fork.exited]
            gevent.wait(either, count=1)
            reader.kill()
        while True:
            try:
                data = os.read(self._socket.fileno(), 65536)
            except BlockingIOError:
                return
            if not data:
                if wait:
                    self._fault = _CUT
                    self.end()
                return
            inbox.add(data)

    def _wait_readable(self) -> None:
        with suppress(OSError):
            gevent.socket.wait_read(self._socket.fileno())

    def death(self) -> str | None:
        """How the process died, for people. None: it ended with the fork server, and nothing is known."""
        seconds = monotonic() - self._started
        peak = max(self.peak, self._fork.peak)
        code = self._fork.exit_code
        if code is None:
            return None
        if self._fault and self._killed_at is not None and self.killed_for is None:
            how = f"was killed by the worker, because {self._fault},"
        elif code < 0:
            how = f"was killed by {_signal_name(-code)} (signal {-code})"
        else:
            how = f"exited with code {code}"
        return (
            f"the own process {self.pid} of this job {how} after {seconds:.1f} s, before its code had ended; "
            f"its peak memory was {peak / _MEGABYTE:.0f} MB"
        )

    def end(self) -> None:
        """Waits a moment for the process to exit, and kills it. What it has started ends with it."""
        exited = self._fork.exited
        if not exited.wait(EXIT_PATIENCE):
            self.kill(None)
            while not exited.wait(_KILL_PATIENCE):
                self._check_server(monotonic())

    def close(self) -> None:
        """Closes the descriptors of the worker's side."""
        own.discard(self._socket.fileno(), self._heartbeats)
        self._socket.close()
        os.close(self._heartbeats)

    # --- in the watchdog's thread --------------------------------------------------------------

    def examine(self, now: float) -> None:
        """Reads the heartbeats and the memory of the process, and kills it if it uses too much."""
        if self._fork.exited.is_set():
            return
        self._check_server(now)
        try:
            # Not until nothing is left: a task may have made the pipe blocking.
            if data := os.read(self._heartbeats, 65536):
                self._heard = now
                self._beats.add(data)
        except OSError:
            pass  # none came
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

    @property
    def stack(self) -> str | None:
        """The answer to the latest `ask_stack`, once it has come."""
        return self._beats.stack

    def ask_stack(self) -> None:
        """Asks the process for its stacks. In any thread."""
        self._beats.stack = None
        with suppress(OSError):
            os.write(self._socket.fileno(), framed(StackWanted()))

    def kill(self, reason: Interrupt | MemoryLimitExceeded | None) -> None:
        """Kills the process and its group. The first reason counts."""
        if not self._fork.exited.is_set():
            self.killed_for = self.killed_for or reason
            self._killed_at = self._killed_at or monotonic()
            self._server.kill(self._fork)

    def _check_server(self, now: float) -> None:
        """Kills a fork server that does not kill this process, such as a stopped one."""
        if self._killed_at is None or now - self._killed_at < _KILL_PATIENCE:
            return
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return  # the hub has not read the answer yet
        self._server.kill_server()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a signal"
