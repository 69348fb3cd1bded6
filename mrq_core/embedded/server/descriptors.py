"""Notices that other code has closed descriptors of a database by number (`os.closerange`), and that other
files have got the numbers.

SQLite reads, writes, locks and closes by number: it would write into these files. Nor can a new connection of
the process help, because SQLite shares the index of the log and the locks among all of them. So the
connections are left as they are, and the process is refused. Numbers that are only closed do no harm: all
connections are closed, and opened again.
"""

from __future__ import annotations

import atexit
import os
import sqlite3
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from os import fstat

from mrq_core.embedded.server.files import Files, Identity, identity

_left: list[object] = []
"""Connections that SQLite may never close. It would do so when Python frees them."""


class Descriptors:
    """The numbers under which one connection has its files open. Where other connections of the process are
    open, each file may have several numbers, of which one belongs to this connection."""

    __slots__ = ("_files", "_pid", "database", "exact")

    def __init__(self, files: Files, numbers: Mapping[Identity, tuple[int, ...]]) -> None:
        self.database = files[0]
        self._files = [(file, numbers[file]) for file in files if file is not None and file in numbers]
        self._pid = os.getpid()
        ours = [numbers.get(file, ()) for file in files[:2]]
        self.exact = {found[0] for found in ours if len(found) == 1}
        """The numbers that only this connection uses. All connections share that of the index."""

    def are_whole(self) -> bool:
        """Whether all files still have their numbers."""
        for (device, inode), numbers in self._files:
            for number in numbers:
                try:
                    status = fstat(number)
                except OSError:
                    continue
                if status.st_ino == inode and status.st_dev == device:
                    break
            else:
                return False
        return True

    def are_taken(self) -> bool:
        """Whether another file has got a number."""
        for file, numbers in self._files:
            found = [identity(number) for number in numbers]
            if file not in found and found.count(None) < len(found):
                return True
        return False

    def may_be_closed(self) -> bool:
        """Whether SQLite may close the connection: this process has opened it, and has its descriptors."""
        return self._pid == os.getpid() and not self.are_taken()


def descriptors_of(files: Files, others: Iterable[Descriptors]) -> Descriptors | None:
    """The descriptors of a connection that has just opened these files. None: SQLite uses a closed one for
    the index of the log, which earlier connections have opened."""
    numbers = _numbers_of(files) or {}
    if numbers.get(files[0]) and files[2] is not None and files[2] not in numbers:
        return None
    known = {number for other in others for number in other.exact}
    return Descriptors(
        files,
        {
            file: tuple(number for number in found if number not in known) or found
            for file, found in numbers.items()
        },
    )


def are_open(files: Files) -> bool:
    """Whether this process has the database and the index of its log open. True: so it is, or that cannot be
    known."""
    numbers = _numbers_of(files)
    return numbers is None or all(file in numbers for file in (files[0], files[2]) if file is not None)


def leave(*connections: object) -> None:
    """Keeps connections from being closed, also when the process exits."""
    _left.extend(connections)


def leave_where_not_own(connections: dict[sqlite3.Connection, Descriptors]) -> None:
    """Leaves connections that may not be closed. Their pool is gone, or the process exits."""
    # A copy: other threads, and the garbage collection of this one, may end connections meanwhile.
    left = [connection for connection, own in connections.copy().items() if not own.may_be_closed()]
    if left:
        _left.extend(left)
        _keep_for_ever()


def _keep_for_ever() -> None:
    """Python frees all that it can when it ends, but not this."""
    if _left:
        with suppress(Exception):
            import ctypes  # takes long to import

            ctypes.pythonapi.Py_IncRef(ctypes.py_object(_left))


atexit.register(_keep_for_ever)


def _numbers_of(files: Collection[Identity]) -> dict[Identity, tuple[int, ...]] | None:
    """The numbers of the descriptors that this process has of each file. None: that cannot be known."""
    numbers: dict[Identity, tuple[int, ...]] = {}
    try:
        for name in os.listdir("/proc/self/fd" if os.path.isdir("/proc/self/fd") else "/dev/fd"):
            file = identity(int(name))
            if file is not None and file in files:
                numbers[file] = (*numbers.get(file, ()), int(name))
    except OSError:
        return None
    return numbers
