"""Connections to the file, and transactions on them.

Durability: the write-ahead log is on. `durable` transactions are on the disk when they return
(synchronous=FULL); the others survive the death of any process, but a power failure may take the
last of them back (NORMAL). Acknowledged changes are durable: enqueue, changes
by operators, and a claim of an at_most_once job. Other claims, settles, logs and shared state
are not: their loss repeats work as a lost claim does, and the order is kept, because a later sync covers
all earlier writes.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import TypeVar

from mrq_core import failpoints
from mrq_core.contract.driver import RunBlocking
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.drivers.exits import too_late
from mrq_core.embedded.server import failures, layout
from mrq_core.embedded.server.forks import NO_FORK, is_transaction_running
from mrq_core.embedded.server.location import make_parent, refuse_other_file
from mrq_core.errors import BrokerUnavailable, NotSupported

_log = logging.getLogger("mrq.sqlite")

T = TypeVar("T")
Connect = Callable[[str, float], sqlite3.Connection]

MAX_IDLE = 16
CHECKPOINT_PAGES = 4000
"""How long the log grows (16 MB) before a commit moves it to the file: four times SQLite's default, since
the same pages of the indexes are written again and again."""
MIN_SQLITE = (3, 38, 0)
"""The first version that always has json_each; RETURNING is older."""
_inherited: list[object] = []
"""Connections of a parent process: a child may neither use nor close them
(sqlite.org/howtocorrupt.html, "carrying an open database connection across a fork")."""


def connect(path: str, timeout: float) -> sqlite3.Connection:
    """A plain connection: the caller begins and ends transactions, in any thread."""
    return sqlite3.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)


class Database:
    """A pool of connections to one file. Safe in threads, greenlets and forked children.

    A call takes an idle connection, or opens one, and puts it back; nothing is locked meanwhile
    but by SQLite itself.
    """

    def __init__(
        self, path: str, *, timeout: float, run_blocking: RunBlocking, connect: Connect = connect
    ) -> None:
        if sqlite3.sqlite_version_info < MIN_SQLITE:
            raise NotSupported(
                f"this Python comes with SQLite {sqlite3.sqlite_version}, and the embedded broker needs "
                f"{'.'.join(map(str, MIN_SQLITE))} or later: use a newer Python, or another broker"
            )
        self.path = path
        self._timeout = timeout
        self._run_blocking = run_blocking
        self._connect = connect
        self._idle: deque[sqlite3.Connection] = deque()
        self._pid = os.getpid()
        self._closed = False
        self._writing: dict[int, sqlite3.Connection] = {}
        """Connections that write, by thread."""
        self._file: tuple[int, int] | None = None
        """The device and the inode of the file that the idle connections have open."""

    def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Runs work that only reads, on one snapshot."""
        return self._run_blocking(lambda: self._read(work))

    def write(self, work: Callable[[sqlite3.Connection], T], *, durable: bool = False) -> T:
        """Runs work in one transaction that may write. Any exception undoes all of it.

        Raises BrokerUnavailable at once inside another such transaction of the same thread, in which a signal
        handler or a finalizer runs: the wait for its lock could not end.
        """
        level = "FULL" if durable else "NORMAL"
        return self._run_blocking(lambda: self._write(work, level))

    def sync(self) -> None:
        """Makes durable what was committed before."""
        self.write(_touch, durable=True)

    def run_blocking(self, function: Callable[[], T]) -> T:
        """Runs a function where it may block."""
        return self._run_blocking(function)

    @contextmanager
    def lent(self) -> Iterator[sqlite3.Connection]:
        """A connection for the caller alone. SQLite's errors come out as the broker's."""
        with self._translating():
            connection = self._take()
            pool = self._idle
            try:
                yield connection
            except BaseException:
                self._discard_if_doubtful(connection, pool)
                raise
            self._put_back(connection, pool)

    def close(self) -> None:
        """Closes what is idle, and the rest as it comes back."""
        self._closed = True
        if self._pid == os.getpid():
            while True:
                try:
                    connection = self._idle.pop()
                except IndexError:
                    return
                connection.close()

    def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        with self.lent() as connection, NO_FORK:
            connection.execute("BEGIN")
            result = work(connection)
            connection.execute("COMMIT")
            return result

    def _write(self, work: Callable[[sqlite3.Connection], T], synchronous: str) -> T:
        with self.lent() as connection, NO_FORK:
            thread = get_ident()
            outer = self._writing.get(thread)
            if outer is not None and outer.in_transaction:
                raise BrokerUnavailable(
                    f"{self.path} cannot be written inside another call of the same thread, which a signal "
                    "handler or a finalizer has interrupted: repeat the call after that call, or in a thread"
                )
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._writing[thread] = connection
            try:
                connection.execute("BEGIN IMMEDIATE")
                result = work(connection)
                failpoints.reach("write.done")
                connection.execute("COMMIT")
            finally:
                self._writing.pop(thread, None)
            failpoints.reach("write.committed")
            return result

    def _take(self) -> sqlite3.Connection:
        if self._closed:
            raise BrokerUnavailable(f"the broker of {self.path} was closed: open another one")
        if sys.is_finalizing() and is_transaction_running():
            raise too_late(self.path)
        if self._pid != os.getpid():
            _inherited.append(self._idle)
            self._idle, self._writing = deque(), {}
            self._pid = os.getpid()
        self._notice_replacement()
        try:
            return self._idle.pop()
        except IndexError:
            with NO_FORK:
                connection = self._open()
        if self._file is None:
            self._file = _file_at(self.path)
        return connection

    def _notice_replacement(self) -> None:
        """Leaves the connections to a file that was deleted or replaced: what they write is lost."""
        file = _file_at(self.path)
        if file == self._file:
            return
        if self._file is not None:
            _log.error(
                "sqlite.replaced path=%s: the file was deleted or replaced while it was in use, and the file "
                "that is there now is used from here on; jobs that only the old file had are lost",
                self.path,
            )
            stale, self._idle = self._idle, deque()
            for connection in stale:
                connection.close()
        self._file = file

    def _put_back(self, connection: sqlite3.Connection, pool: deque[sqlite3.Connection]) -> None:
        """Puts the connection back into its pool, unless the pool was left meanwhile."""
        if pool is not self._idle or len(pool) >= MAX_IDLE:
            connection.close()
            return
        self._idle.append(connection)
        if self._closed:
            self.close()

    def _discard_if_doubtful(self, connection: sqlite3.Connection, pool: deque[sqlite3.Connection]) -> None:
        try:
            connection.rollback()
        except sqlite3.Error:
            connection.close()
        else:
            self._put_back(connection, pool)

    def _open(self) -> sqlite3.Connection:
        make_parent(self.path)
        refuse_other_file(self.path)
        connection = self._connect(self.path, self._timeout)
        try:
            connection.execute("BEGIN")
            ready = layout.is_ready(connection, self.path)
            connection.execute("COMMIT")
            if not ready:
                self._use_wal(connection)
                layout.prepare(connection, self.path)
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA cache_size = -16000")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        return connection

    def _use_wal(self, connection: sqlite3.Connection) -> None:
        """The journal mode is kept in the file. Changing it does not wait for locks by itself."""
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not failures.is_busy(error) or time.monotonic() > deadline:
                    raise
            time.sleep(0.01)

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if raised_by_handler(error) is not None:
                raise
            raise failures.translated(error, path=self.path, timeout=self._timeout) from error


def _file_at(path: str) -> tuple[int, int] | None:
    """The device and the inode of the file. None: there is none, or opening it tells why."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE numbers SET value = value + 1 WHERE name = 'syncs'")
