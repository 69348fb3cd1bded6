"""The worker's side of one solo process: starts it, receives its messages, watches it and kills it."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import gevent
import msgspec

from mrq_core.errors import Interrupt, JobInterrupt, MemoryLimitExceeded
from mrq_core.worker.fork_server import ForkServer
from mrq_core.worker.process_memory import tree_size
from mrq_core.worker.solo_messages import (
    HEARTBEAT,
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
_MEGABYTE = 1_000_000


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
        self._interrupted_at: float | None = None
        self._heard = time.monotonic()
        self._server = server
        self._started = time.monotonic()
        ours, theirs = socket.socketpair()
        self._heartbeats, beating = os.pipe()
        self._socket = ours
        try:
            os.set_blocking(self._heartbeats, False)
            os.set_blocking(beating, False)
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
                    self._wait_exit(None)
                return
            inbox.add(data)

    def _wait_readable(self) -> None:
        with suppress(OSError):
            gevent.socket.wait_read(self._socket.fileno())

    def death(self) -> str:
        """How the process died, for people."""
        seconds = time.monotonic() - self._started
        peak = max(self.peak, self._fork.peak)
        code = self._fork.exit_code
        if code is None:
            how = "ended with the process that had started it,"
        elif code < 0:
            how = f"was killed by {_signal_name(-code)} (signal {-code})"
        else:
            how = f"exited with code {code}"
        return (
            f"the own process {self.pid} of this job {how} after {seconds:.1f} s, before its code had ended; "
            f"its peak memory was {peak / _MEGABYTE:.0f} MB"
        )

    def end(self) -> None:
        """Waits a moment for the process to exit, and kills it. Its group ends with it."""
        if not self._wait_exit(EXIT_PATIENCE):
            self.kill(None)
            self._wait_exit(EXIT_PATIENCE)

    def _wait_exit(self, seconds: float | None) -> bool:
        """Waits until the process has exited, for these seconds at most. None: without limit."""
        return self._fork.exited.wait(seconds)

    def close(self) -> None:
        """Closes the descriptors of the worker's side."""
        self._socket.close()
        os.close(self._heartbeats)

    # --- in the watchdog's thread --------------------------------------------------------------

    def examine(self, now: float) -> None:
        """Reads the heartbeats and the memory of the process, and kills it if it uses too much."""
        if self._fork.exited.is_set():
            return
        try:
            if os.read(self._heartbeats, 4096):
                self._heard = now
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

    def kill(self, reason: Interrupt | MemoryLimitExceeded | None) -> None:
        """Kills the process and its group. The first reason counts."""
        if not self._fork.exited.is_set():
            self.killed_for = self.killed_for or reason
            self._server.kill(self._fork)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a signal"
