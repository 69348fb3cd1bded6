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
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from sqlite3 import dbapi2
from threading import get_ident
from typing import TypeVar

from mrq_core import failpoints
from mrq_core.clock import monotonic
from mrq_core.contract.driver import RunBlocking
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.drivers.answers import UNREADABLE, raise_if_unreadable
from mrq_core.drivers.exits import too_late
from mrq_core.embedded.server import failures, layout
from mrq_core.embedded.server.descriptors import (
    Descriptors,
    are_open,
    descriptors_of,
    leave,
    leave_where_not_own,
)
from mrq_core.embedded.server.files import (
    Files,
    Identity,
    close_unsaved,
    files_of,
    identity,
    is_removed,
    one_at_a_time,
    save_log,
)
from mrq_core.embedded.server.foreign_opens import File, refuse_where
from mrq_core.embedded.server.forks import NO_FORK, is_transaction_running, sleep
from mrq_core.embedded.server.garbage import NO_GARBAGE
from mrq_core.embedded.server.location import make_parent, refuse_other_file
from mrq_core.errors import BrokerCorrupt, BrokerLost, BrokerUnavailable, NotSupported, shown_error

_log = logging.getLogger("mrq.sqlite")

T = TypeVar("T")
Connect = Callable[[str, float], sqlite3.Connection]

MAX_IDLE = 16
CHECKPOINT_PAGES = 4000
"""How long the log grows (16 MB) before a commit moves it to the file: four times SQLite's default, since
the same pages of the indexes are written again and again."""
MIN_SQLITE = (3, 38, 0)
"""The first version that always has json_each; RETURNING is older."""
_LEAVE_WITHIN = 0.5
"""Seconds for calls that use a removed log to end. In the hub of a worker, the wait may be in vain."""
_databases: list[weakref.ref[Database]] = []
_cut_off: set[Identity] = set()
"""The databases that this process may not use again: other files have got descriptors of theirs."""


def connect(path: str, timeout: float) -> sqlite3.Connection:
    """A plain connection: the caller begins and ends transactions, in any thread."""
    # Not `sqlite3.connect`: tests of programs replace that, for the databases of these programs.
    return dbapi2.connect(path, timeout=timeout, isolation_level=None, check_same_thread=False)


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
        self._files: Files | None = None
        """What the connections have open."""
        self._open_ones: dict[sqlite3.Connection, Descriptors] = {}
        self._lent: deque[None] = deque()
        """An item for each connection that is not idle, or is about to be taken."""
        _databases.append(weakref.ref(self, _databases.remove))
        weakref.finalize(self, leave_where_not_own, self._open_ones)
        refuse_where(_is_in_use)

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
                self._refuse_if_cut_off()
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
            lent = self._lent
            lent.append(None)
            while self._has_lost_log():
                lent.pop()
                self._leave_lost_log()
                lent.append(None)
            try:
                connection = self._take()
                pool = self._idle
                try:
                    yield connection
                except BaseException as error:
                    if failures.is_io_error(error) or not self._is_whole(connection):
                        self._leave_files(connection)
                        if isinstance(error, Exception):  # it comes from reading another file
                            self._refuse_if_cut_off(error)
                    else:
                        self._discard_if_doubtful(connection, pool)
                    raise
                self._put_back(connection, pool)
            finally:
                lent.pop()

    def has_other_files(self, connection: sqlite3.Connection) -> bool:
        """Whether a file that the connection has open was removed or replaced, or its descriptor closed. The
        next call sees to it."""
        is_replaced = self._files is not None and self._files != files_of(self.path)
        return is_replaced or not self._is_whole(connection)

    def close(self) -> None:
        """Closes what is idle, and the rest as it comes back."""
        self._closed = True
        if self._pid == os.getpid():
            while True:
                try:
                    connection = self._idle.pop()
                except IndexError:
                    return
                self._close(connection)

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
                with NO_GARBAGE:
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
        self._notice_replacement()
        with suppress(IndexError):
            while True:
                connection = self._idle.pop()
                if self._is_whole(connection):
                    return connection
                self._leave_files(connection)
        self._refuse_if_cut_off()
        with NO_FORK:
            connection = self._open()
            files = files_of(self.path)
            own = descriptors_of(
                files, [one for pool in _databases_at(self.path) for one in pool._descriptors()]
            )
        if own is None:
            connection.close()
            raise self._lost()
        if self._files is None:
            self._files = files
        self._open_ones[connection] = own
        return connection

    def _is_whole(self, connection: sqlite3.Connection) -> bool:
        """Whether the descriptors of the connection are open. Costs 2 µs."""
        own = self._open_ones.get(connection)
        return own is None or own.are_whole()

    def _descriptors(self) -> list[Descriptors]:
        return list(self._open_ones.values())

    def _refuse_if_cut_off(self, cause: Exception | None = None) -> None:
        """Raises BrokerLost if another file has got a descriptor of a connection of this process."""
        self._abandon_if_taken()
        file = identity(self.path)
        if file is not None and file in _cut_off:
            raise self._lost() from cause

    def _abandon_if_taken(self) -> None:
        """If another file has got a descriptor, leaves all connections of this process to the database as
        they are."""
        databases = _databases_at(self.path)
        taken = {own.database for one in databases for own in one._descriptors() if own.are_taken()}
        _cut_off.update(taken)
        for database in databases:
            if database._files is not None and database._files[0] in taken:
                leave(*database._open_ones)
                database._open_ones.clear()
                database._idle = deque()

    def _lost(self) -> BrokerLost:
        return BrokerLost(
            f"{self.path} cannot be used any more in this process, in which code has closed descriptors of "
            "the database by number, and other files have got the numbers: start the process anew"
        )

    def _leave_parent(self) -> None:
        """Leaves the connections to the parent of this process, if it was forked since."""
        if self._pid != os.getpid():
            if self._open_ones and self._files is not None and not are_open(self._files):
                _cut_off.add(self._files[0])
            # A child may neither use nor close connections of its parent (sqlite.org/howtocorrupt.html,
            # "carrying an open database connection across a fork").
            leave(*self._open_ones)
            self._open_ones.clear()
            self._idle, self._writing, self._lent = deque(), {}, deque()
            self._pid, self._files = os.getpid(), None

    def _notice_replacement(self) -> None:
        """Leaves the connections to a file that was deleted or replaced: what they write is lost."""
        if not self._open_ones:
            self._files = None
            return
        files = self._files
        if files is None or identity(self.path) == files[0]:
            return
        now = files_of(self.path)
        _log.error(
            "sqlite.replaced path=%s: the file was deleted or replaced while it was in use, and the file "
            "that is there now is used from here on; jobs that only the old file had are lost",
            self.path,
        )
        stale, self._idle = self._idle, deque()
        for connection in stale:
            self._close(connection)
        self._files = now if now[0] is not None else None  # the connection that makes the file notes it

    def _has_lost_log(self) -> bool:
        """Whether the log of the database, or its index, is another file than the one that connections of
        this process have open. A new connection would use the index of these, also those of other pools."""
        now: Files | None = None
        for database in (self,) if self._idle else _databases_at(self.path):
            files = database._files
            if files is not None and database._open_ones:
                now = now or files_of(self.path)
                if now != files and now[0] == files[0]:
                    return True
        return False

    def _leave_lost_log(self) -> None:
        """Saves what only the removed log has, and closes all connections of the process to the file.

        Raises BrokerUnavailable if connections are in use for long.
        """
        with one_at_a_time(_LEAVE_WITHIN) as is_alone:
            databases = _databases_at(self.path)
            deadline = monotonic() + _LEAVE_WITHIN
            while not is_alone or any(database._lent for database in databases):
                if not is_alone or monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"{self.path}-wal or {self.path}-shm was removed while it was in use, and other "
                        "calls still use it: try again"
                    )
                sleep()
            if not self._has_lost_log():  # another thread has done it meanwhile
                return
            self._refuse_if_cut_off()
            is_saved = False
            for database in databases:
                is_saved = database._save_log() or is_saved
            for database in databases:
                while database._idle:
                    connection = database._idle.pop()
                    database._open_ones.pop(connection, None)
                    close_unsaved(connection)
                database._files = None
        _log.error(
            "sqlite.log_removed path=%s: %s-wal or %s-shm was removed while it was in use; %s",
            *(self.path, self.path, self.path),
            f"all changes are in {self.path} now, nothing is lost"
            if is_saved
            else "another process has made a new file, and the latest changes may be lost: run `mrq check`",
        )

    def _save_log(self) -> bool:
        """Writes the changes in the removed log to the file, if no other process has begun a new log."""
        files = self._files
        if not self._idle or files is None or not is_removed(files, files_of(self.path)):
            return False
        try:
            return save_log(self._idle[-1]) and is_removed(files, files_of(self.path))
        except sqlite3.Error:
            return False

    def _close(self, connection: sqlite3.Connection) -> None:
        """Closes a connection, unless it was left, or has to be."""
        own = self._open_ones.pop(connection, None)
        if own is None or not own.may_be_closed():
            leave(connection)
        else:
            connection.close()

    def _put_back(self, connection: sqlite3.Connection, pool: deque[sqlite3.Connection]) -> None:
        """Puts the connection back into its pool, unless the pool was left meanwhile."""
        if pool is not self._idle or len(pool) >= MAX_IDLE:
            self._close(connection)
            return
        self._idle.append(connection)
        if self._closed:
            self.close()

    def _discard_if_doubtful(self, connection: sqlite3.Connection, pool: deque[sqlite3.Connection]) -> None:
        try:
            connection.rollback()
        except sqlite3.Error:
            self._close(connection)
        else:
            self._put_back(connection, pool)

    def _leave_files(self, connection: sqlite3.Connection) -> None:
        """Closes all connections of the process to the file: they share a descriptor of the index of the log,
        and other code may have closed it. The next call opens the files again."""
        self._abandon_if_taken()
        idle = [(self, connection)]
        for database in _databases_at(self.path):
            with suppress(IndexError):
                while True:
                    idle.append((database, database._idle.pop()))
        for database, one in idle:
            with suppress(sqlite3.Error):
                database._close(one)

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
        deadline = monotonic() + self._timeout
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if not failures.is_busy(error) or monotonic() > deadline:
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
        except UNREADABLE as error:
            raise_if_unreadable(error, self)
            raise

    def unreadable(self, error: Exception) -> BrokerCorrupt:
        """The error for values that the driver did not write."""
        return BrokerCorrupt(
            f"{self.path} has values that mrq cannot read ({shown_error(error)}): they were changed by hand, "
            "or the file is damaged; keep a copy of it, and see `mrq check`"
        )


def _databases_at(path: str) -> list[Database]:
    """All pools of this process for the file."""
    return [one for one in _databases_of(os.getpid()) if one.path == path]


def _databases_of(pid: int) -> list[Database]:
    databases = [reference() for reference in list(_databases)]
    return [one for one in databases if one is not None and one._pid == pid]


def _is_in_use(file: File) -> bool:
    """Whether connections of this process have locks on it. The log of a database has none."""
    if file is None:
        return False
    for database in _databases_of(os.getpid()):
        files = database._files
        if files is not None and database._open_ones:
            name = os.path.basename(database.path)
            if file in (files[0], files[2], name, f"{name}-shm"):
                return True
    return False


def _touch(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE numbers SET value = value + 1 WHERE name = 'syncs'")
