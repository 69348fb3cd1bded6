"""The descriptors without which a worker cannot work: of its loop, its signals and its other processes.

A task that closes a descriptor twice, or all descriptors from 3 on, may close one of them, and the next file
or connection of the process gets its number. Without the loop, a worker hangs or spins; without the pipe of
its signals, nothing stops it. The watchdog notices and gives the worker up.

A task that makes all descriptors blocking makes the worker wait in a system call where it expects an error.
The watchdog makes them non-blocking again. `blocked_calls.py` does so for connections.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import gevent
from gevent._hub_local import get_hub_if_exists

from mrq_core.worker.guards.native import sleep

_LOOKS_AGAIN, _BETWEEN = 4, 0.025
"""Looks at a descriptor that seems to be lost, and the seconds between them."""


class OwnDescriptors:
    """What has each number now, and whether that is still so. `lost` and `unblock` may be called in any
    thread."""

    def __init__(self) -> None:
        self._files: dict[int, object] = {}
        self._non_blocking: dict[int, object] = {}
        self._loop: Any = None
        self._loop_number: int | None = None
        """The descriptor of the loop, among the others."""

    def add(self, *numbers: int) -> None:
        """Watches open descriptors from now on. Leaves out others."""
        for number in numbers:
            file = _file_of(number)
            if file is not None:
                self._files[number] = file
        self.keep_non_blocking(*numbers)

    def keep_non_blocking(self, *numbers: int) -> None:
        """Watches only whether these become blocking. Leaves out descriptors that are blocking now."""
        for number in numbers:
            file = _file_of(number)
            if file is not None and not os.get_blocking(number):
                self._non_blocking[number] = file

    def discard(self, *numbers: int) -> None:
        """Watches these no more. Call this before they are closed."""
        for number in numbers:
            self._files.pop(number, None)
            self._non_blocking.pop(number, None)

    def add_loop(self) -> None:
        """Makes the hub of this thread, and watches the descriptors of its loop. Has no effect if there is a
        hub already: its descriptors cannot be told from others."""
        if get_hub_if_exists() is not None:
            return
        before = _open_numbers()
        self._loop = gevent.get_hub().loop
        self._loop_number = self._loop.fileno()
        watcher: Any = self._loop.async_()
        watcher.start(lambda: None)  # makes the descriptor through which other threads wake the loop
        self.add(*(_open_numbers() - before))
        watcher.stop()
        watcher.close()

    def unblock(self) -> bool:
        """Makes what a task has made blocking non-blocking again. Returns whether there was something."""
        found = False
        for number, file in self._non_blocking.copy().items():
            with suppress(OSError):  # it is closed
                if os.get_blocking(number) and _file_of(number) == file:
                    os.set_blocking(number, False)
                    found = True
        return found

    def _follow_loop(self) -> None:
        """Watches the descriptor that the loop has now. libev makes another one when it gets events of a
        connection that is closed here, and that a forked child has still open."""
        now = None
        with suppress(Exception):  # a task has destroyed it
            now = self._loop.fileno()
        if now is not None and now != self._loop_number and self._loop_number in self._files:
            self._files[now] = self._files.pop(self._loop_number)
            self._loop_number = now

    def lost(self) -> str | None:
        """The first number that is closed or that another file has, and what it is now. None: all are as they
        were. Looks several times before it says so, in up to 0.1 s."""
        for number, file in self._files.copy().items():
            found, looks = _file_of(number), 0
            while found != file and number in self._files:
                if looks == _LOOKS_AGAIN:
                    return f"{number} (now {'closed' if found is None else found})"
                if number == self._loop_number:
                    self._follow_loop()
                sleep(_BETWEEN)
                found, looks = _file_of(number), looks + 1
        return None


own = OwnDescriptors()
"""Those of the worker of this process."""


def _file_of(number: int) -> object:
    """What identifies the open file. None: the number is free."""
    try:
        return os.readlink(f"/proc/self/fd/{number}")  # tells one kind of anonymous file from another
    except OSError:
        pass
    try:
        status = os.fstat(number)
    except OSError:
        return None
    return status.st_mode, status.st_dev, status.st_ino


def _open_numbers() -> set[int]:
    for folder in ("/proc/self/fd", "/dev/fd"):
        try:
            numbers = map(int, os.listdir(folder))
        except OSError:
            continue
        return {number for number in numbers if _file_of(number) is not None}  # without that of the listing
    return set()
