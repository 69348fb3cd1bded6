"""File descriptors that a task has left open, or has closed.

A worker without a free descriptor can neither connect to its broker nor read a file: outcomes wait, and each
job fails. It has to stop; the outcomes are stored with the descriptors that it has kept.

A closed standard descriptor gets its number again with the next connection, which then gets log lines and
what jobs print.
"""

from __future__ import annotations

import fcntl
import os
import stat
import weakref
from contextlib import suppress
from typing import NamedTuple

from mrq_core.clock import monotonic
from mrq_core.worker.guards.guarded_log import GuardedLog

_ABOVE = 10
"""The lowest number of a copy."""
_KEPT = 16
_NEEDED = 4
"""Free descriptors without which hardly any job can do anything."""
_PATIENCE = 5.0
"""Seconds. A job that opens many descriptors for a while, and closes them, does no harm."""

_log = GuardedLog("mrq.worker")


class _Kept(NamedTuple):
    """A copy of a standard descriptor, and what identifies its file."""

    copy: int
    file: tuple[int, int]
    is_inheritable: bool
    is_blocking: bool


class StandardDescriptors:
    """The descriptors 0 to 2, as the worker has found them."""

    def __init__(self) -> None:
        self._kept: dict[int, _Kept] = {}
        for number in range(3):
            with suppress(OSError):  # it is closed, or no descriptor is free
                copy = fcntl.fcntl(number, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
                status = os.fstat(copy)
                file = (status.st_dev, status.st_ino)
                self._kept[number] = _Kept(copy, file, os.get_inheritable(number), os.get_blocking(number))
        # Not standard input: to read what is meant for it would take a job.
        self._examined = [(number, kept.is_inheritable) for number, kept in self._kept.items() if number]
        _all.add(self)

    def is_intact(self) -> bool:
        """Whether standard output and error are open, and are no connection or file that Python has opened
        since: these are not inheritable. Costs little."""
        try:
            for number, expected in self._examined:
                if os.get_inheritable(number) is not expected:
                    return False
        except OSError:
            return False
        return True

    def restore(self, *, is_alone: bool) -> None:
        """Sets back what is closed, or has become a connection. `is_alone`: also what a job has replaced by a
        file or a pipe, or has made non-blocking, as asyncio does, which another job may need."""
        for number in self.set_back(is_alone=is_alone):  # standard error, the last of them, is there again
            _log.warn_of_change("descriptor.restored number=%d: a task had closed or replaced it", number)

    def set_back(self, *, is_alone: bool) -> list[int]:
        """Does what `restore` does, and logs nothing. Returns the numbers of the descriptors."""
        restored = []
        for number, kept in self._kept.items():
            try:
                status = os.fstat(number)
                is_taken = is_alone or stat.S_ISSOCK(status.st_mode)
                is_kept = (status.st_dev, status.st_ino) == kept.file
                if is_kept and os.get_inheritable(number) is not kept.is_inheritable:
                    os.set_inheritable(number, kept.is_inheritable)
                if is_kept and is_alone and os.get_blocking(number) is not kept.is_blocking:
                    os.set_blocking(number, kept.is_blocking)
                if not is_taken or is_kept:
                    continue
            except OSError:
                pass
            status = os.fstat(kept.copy)
            if (status.st_dev, status.st_ino) == kept.file:  # a task may have closed it, too
                os.dup2(kept.copy, number, inheritable=kept.is_inheritable)
                restored.append(number)
        return restored

    def __del__(self) -> None:
        self.close()

    def close(self) -> None:
        """Closes the copies, and restores nothing more."""
        for kept in self._kept.values():
            with suppress(OSError):
                os.close(kept.copy)
        self._kept, self._examined = {}, []


_all: weakref.WeakSet[StandardDescriptors] = weakref.WeakSet()


def _in_child() -> None:
    # A forked child may close its standard descriptors, to leave the terminal or the pipe.
    for descriptors in _all:
        descriptors.close()


os.register_at_fork(after_in_child=_in_child)


class DescriptorReserve:
    """Descriptors that are open for nothing until the process needs them."""

    def __init__(self) -> None:
        self._kept: list[int] = []
        self._exhausted_since: float | None = None
        try:
            read, write = os.pipe()
            os.close(write)
            self._kept.append(read)
            self._inode = os.fstat(read).st_ino
            while len(self._kept) < _KEPT:
                self._kept.append(os.dup(read))
        except OSError:
            pass  # the process starts with hardly any: it keeps fewer

    def is_exhausted(self) -> bool:
        """Whether hardly any descriptor has been free for some seconds. Call this about once a second."""
        opened: list[int] = []
        try:
            while len(opened) < _NEEDED:
                opened.append(os.open(os.devnull, os.O_RDONLY))
            self._exhausted_since = None
        except OSError:
            self._exhausted_since = self._exhausted_since or monotonic()
        finally:
            for descriptor in opened:
                os.close(descriptor)
        return self._exhausted_since is not None and monotonic() - self._exhausted_since > _PATIENCE

    def release(self) -> None:
        """Closes the descriptors, so that the process can open others."""
        while self._kept:
            descriptor = self._kept.pop()
            try:
                if os.fstat(descriptor).st_ino == self._inode:  # a task may have closed it
                    os.close(descriptor)
            except OSError:
                pass
