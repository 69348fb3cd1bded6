"""Transactions on the file, over connections that calls take from a pool and put back.

Durability: the write-ahead log is on. `durable` transactions are on the disk when they return
(synchronous=FULL); the others survive the death of any process, but a power failure may take the
last of them back (NORMAL). Acknowledged changes are durable: enqueue, changes
by operators, and a claim of an at_most_once job. Other claims, settles, logs and shared state
are not: their loss repeats work as a lost claim does, and the order is kept, because a later sync covers
all earlier writes.
"""

from __future__ import annotations

import os
import random
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from sqlite3 import dbapi2
from threading import get_ident
from typing import TypeVar

from mrq_core import failpoints
from mrq_core.clock import monotonic
from mrq_core.contract.driver import RunBlocking
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.drivers.answers import UNREADABLE, raise_if_unreadable
from mrq_core.drivers.exits import too_late
from mrq_core.drivers.unwanted_calls import is_unwanted
from mrq_core.embedded.server import failures, layout
from mrq_core.embedded.server.forks import NO_FORK, is_transaction_running, sleep
from mrq_core.embedded.server.garbage import NO_GARBAGE
from mrq_core.embedded.server.location import make_parent, refuse_other_file
from mrq_core.embedded.server.pool import Pool
from mrq_core.errors import BrokerCorrupt, BrokerUnavailable, NotSupported, shown_error

T = TypeVar("T")
Connect = Callable[[str, float], sqlite3.Connection]

_PAUSE_FIRST, _PAUSE_MOST = 0.0005, 0.005
"""Seconds between two attempts to get a lock."""
CHECKPOINT_PAGES = 4000
"""How long the log grows (16 MB) before a commit moves it to the file: four times SQLite's default, since
the same pages of the indexes are written again and again."""
MIN_SQLITE = (3, 38, 0)
"""The first version that always has json_each; RETURNING is older."""


def connect(path: str, timeout: float) -> sqlite3.Connection:
    """A plain connection: the caller begins and ends transactions, in any thread."""
    # Not `sqlite3.connect`: tests of programs replace that, for the databases of these programs.
    return dbapi2.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)


class Database:
    """One file. Safe in threads, greenlets and forked children.

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
        self._pool = Pool(path)
        self._writing: dict[int, sqlite3.Connection] = {}
        """Connections that write, by thread."""

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

    def use_unopened(self, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """The answer of work on a separate connection to a file that may lack tables. None: no file."""

        def use() -> T | None:
            with self._translating():
                self._leave_parent()
                if not os.path.exists(self.path):
                    return None
                self._pool.refuse_if_cut_off()
                refuse_other_file(self.path)
                connection = self._connect(self.path, self._timeout)
                try:
                    return work(connection)
                finally:
                    connection.close()

        return self._run_blocking(use)

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
            self._leave_parent()
            pool = self._pool
            lent = pool.begin()
            try:
                connection = self._take()
                idle = pool.idle
                try:
                    yield connection
                except BaseException as error:
                    if failures.is_io_error(error) or not pool.is_whole(connection):
                        pool.leave_files(connection)
                        if isinstance(error, Exception):  # it comes from reading another file
                            pool.refuse_if_cut_off(error)
                    else:
                        pool.roll_back(connection, idle)
                    raise
                pool.put_back(connection, idle)
            finally:
                lent.pop()

    def has_other_files(self, connection: sqlite3.Connection) -> bool:
        """Whether a file that the connection has open was removed or replaced, or its descriptor closed. The
        next call sees to it."""
        return self._pool.has_other_files(connection)

    def close(self) -> None:
        """Closes what is idle, and the rest as it comes back."""
        self._pool.close()

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
                self._begin(connection)
                with NO_GARBAGE:
                    result = work(connection)
                    failpoints.reach("write.done")
                    connection.execute("COMMIT")
            finally:
                self._writing.pop(thread, None)
            failpoints.reach("write.committed")
            return result

    def _begin(self, connection: sqlite3.Connection) -> None:
        """Begins a transaction that writes, when no other one does.

        SQLite would pause for up to a tenth of a second between two attempts: beside threads and processes
        that write all the time, a call would wait for seconds.
        """
        connection.execute("PRAGMA busy_timeout = 0")
        try:
            self._execute_when_free(connection, "BEGIN IMMEDIATE")
        finally:
            connection.execute(f"PRAGMA busy_timeout = {self._timeout * 1000:.0f}")

    def _execute_when_free(self, connection: sqlite3.Connection, statement: str) -> None:
        """Executes a statement that does not wait for locks by itself, when none is in its way. Gives up when
        the caller is interrupted."""
        deadline = monotonic() + self._timeout
        pause = _PAUSE_FIRST
        while True:
            try:
                connection.execute(statement)
                return
            except sqlite3.OperationalError as error:
                if not failures.is_busy(error) or monotonic() > deadline or is_unwanted():
                    raise
            sleep(random.uniform(pause / 2, pause))
            pause = min(1.5 * pause, _PAUSE_MOST)

    def _take(self) -> sqlite3.Connection:
        if self._pool.is_closed:
            raise BrokerUnavailable(f"the broker of {self.path} was closed: open another one")
        if sys.is_finalizing() and is_transaction_running():
            raise too_late(self.path)
        connection = self._pool.take_idle()
        if connection is None:
            with NO_FORK:
                connection = self._open()
                self._pool.add(connection)
        return connection

    def _leave_parent(self) -> None:
        if self._pool.leave_parent():
            self._writing = {}

    def _open(self) -> sqlite3.Connection:
        make_parent(self.path)
        refuse_other_file(self.path)
        connection = self._connect(self.path, self._timeout)
        try:
            connection.execute("BEGIN")
            ready = layout.is_ready(connection, self.path)
            connection.execute("COMMIT")
            if not ready:
                self._execute_when_free(connection, "PRAGMA journal_mode = WAL")  # kept in the file
                layout.prepare(connection, self.path)
            connection.execute("PRAGMA temp_store = MEMORY")
            connection.execute("PRAGMA cache_size = -16000")
            connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        except BaseException:
            connection.close()
            raise
        return connection

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if raised_by_handler(error) is not None:
                raise
            raise failures.translated(error, path=self.path, timeout=self._timeout) from error
        except UNREADABLE as error:
            raise_if_unreadable(error, self)
            raise

    def unreadable(self, error: Exception) -> BrokerCorrupt:
        """The error for values that the driver did not write."""
        return BrokerCorrupt(
            f"{self.path} has values that mrq cannot read ({shown_error(error)}): they were changed by hand, "
            "or the file is damaged; keep a copy of it, and see `mrq check`"
        )


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE numbers SET value = value + 1 WHERE name = 'syncs'")
