"""The signals of the parent, which arrive through a pipe that its loop reads."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import suppress
from types import FrameType

STOP_SIGNALS = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def leave_while_starting() -> None:
    """Makes SIGTERM and SIGHUP end a parent that has started no worker yet. Unblocks them.

    As process 1 of a container, it would not get signals that it does not handle. A thread ends the process,
    because the main thread may be in C code.
    """
    pipe, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    numbers = _taken() - {signal.SIGINT}
    for number in numbers | {signal.SIGUSR1}:
        signal.signal(number, _nothing)
    threading.Thread(target=_leave_on, args=(numbers, pipe), daemon=True).start()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOP_SIGNALS)


def _taken() -> set[signal.Signals]:
    """The signals that stop the parent: not SIGHUP if it is ignored, as under nohup."""
    is_deaf = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return {number for number in STOP_SIGNALS if number != signal.SIGHUP or not is_deaf}


def _nothing(signum: int, frame: FrameType | None) -> None:
    """Handles a signal that the pipe has noted."""


def _leave_on(numbers: set[signal.Signals], pipe: int) -> None:
    while True:
        for number in numbers.intersection(os.read(pipe, 256)):
            name = signal.Signals(number).name
            try:
                os.write(2, f"mrq: no worker had started when {name} came\n".encode())
            finally:  # a closed terminal raises OSError
                os._exit(0)


class SignalPipe:
    """Notes the signals that stop the parent, and the ends of child processes, in a pipe."""

    def __init__(self) -> None:
        self.descriptor, self._writer = os.pipe()
        os.set_blocking(self.descriptor, False)
        os.set_blocking(self._writer, False)

    def start(self) -> None:
        """Takes over the signals. In the main thread."""
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        # A program that rotates logs sends SIGUSR1 to each process of mrq; the workers of the parent use it.
        for number in _taken() | {signal.SIGCHLD, signal.SIGUSR1}:
            signal.signal(number, _nothing)

    def read(self) -> list[int]:
        """The numbers of the signals that have arrived since the last call."""
        with suppress(BlockingIOError):
            return [number for number in os.read(self.descriptor, 4096) if number != signal.SIGUSR1]
        return []

    def ignore(self) -> None:
        """Ignores later signals: the process ends."""
        for number in _taken():
            signal.signal(number, signal.SIG_IGN)
