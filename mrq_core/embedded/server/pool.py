"""The open connections to a file, and how calls leave them when the file was replaced, lost or cut off.

Other processes, and other code of this process, may replace the database, remove its log, or close
descriptors. Each call examines the files before it uses a connection. A change affects all pools of the
process for the file, because SQLite shares locks and the index of the log among their connections:

- The database was deleted or replaced: its connections are closed, and the new file is used.
- The log, or its index, was removed: what only the log has is saved, and all connections are closed.
- Descriptors were closed: all connections are closed, and the next call opens the files again.
- Other files have got the descriptors: the connections are left as they are, and the process is refused.
- The process was forked: the child leaves the connections to its parent.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

from mrq_core.clock import monotonic
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
from mrq_core.embedded.server.forks import sleep
from mrq_core.errors import BrokerLost, BrokerUnavailable

_log = logging.getLogger("mrq.sqlite")

MAX_IDLE = 16
_LEAVE_WITHIN = 0.5
"""Seconds for calls that use a removed log to end. In the hub of a worker, the wait may be in vain."""
_pools: list[weakref.ref[Pool]] = []
_cut_off: set[Identity] = set()
"""The databases that this process may not use again: other files have got descriptors of theirs, or it is a
child that has closed them."""

_inherited: set[Files] = set()
"""What connections of parents had open when they forked this process."""

Idle = deque[sqlite3.Connection]


class Pool:
    """The connections of one broker to one file. Nothing is locked while a call takes one or puts it back."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.idle: Idle = deque()
        self.is_closed = False
        self._pid = os.getpid()
        self._files: Files | None = None
        """What the connections have open."""
        self._open_ones: dict[sqlite3.Connection, Descriptors] = {}
        self._lent: deque[None] = deque()
        """An item for each connection that is not idle, or is about to be taken."""
        _pools.append(weakref.ref(self, _pools.remove))
        weakref.finalize(self, leave_where_not_own, self._open_ones)
        refuse_where(_is_in_use)

    # --- a call takes a connection, and puts it back ---------------------------------------------

    def begin(self) -> deque[None]:
        """Notes that a call is about to take a connection. It takes the last item of the answer when it has
        put the connection back. Closes the connections first whose log was removed.

        Raises BrokerUnavailable if other calls still use a removed log, and BrokerLost.
        """
        lent = self._lent
        lent.append(None)
        while self._has_lost_log():
            lent.pop()
            self._leave_lost_log()
            lent.append(None)
        return lent

    def take_idle(self) -> sqlite3.Connection | None:
        """An idle connection with its files. None: the caller has to open one. Raises BrokerLost."""
        self._notice_replacement()
        with suppress(IndexError):
            while True:
                connection = self.idle.pop()
                if self.is_whole(connection):
                    return connection
                self.leave_files(connection)
        _see_to_inherited()
        self.refuse_if_cut_off()
        return None

    def add(self, connection: sqlite3.Connection) -> None:
        """Notes the files of a connection that was opened just now. Raises BrokerLost, and closes it."""
        files = files_of(self.path)
        own = descriptors_of(files, [one for pool in _pools_at(self.path) for one in pool._descriptors()])
        if own is None:
            connection.close()
            raise self._lost()
        if self._files is None:
            self._files = files
        self._open_ones[connection] = own

    def put_back(self, connection: sqlite3.Connection, idle: Idle) -> None:
        """Puts the connection back to the idle ones, unless these were left meanwhile."""
        if idle is not self.idle or len(idle) >= MAX_IDLE:
            self._close(connection)
            return
        self.idle.append(connection)
        if self.is_closed:
            self.close()

    def roll_back(self, connection: sqlite3.Connection, idle: Idle) -> None:
        """Puts the connection back after an error, or closes it if it may be of no more use."""
        try:
            connection.rollback()
        except sqlite3.Error:
            self._close(connection)
        else:
            self.put_back(connection, idle)

    def close(self) -> None:
        """Closes what is idle, and the rest as it comes back."""
        self.is_closed = True
        if self._pid == os.getpid():
            while True:
                try:
                    connection = self.idle.pop()
                except IndexError:
                    return
                self._close(connection)

    def _close(self, connection: sqlite3.Connection) -> None:
        """Closes a connection, unless it was left, or has to be."""
        own = self._open_ones.pop(connection, None)
        if own is None or not own.may_be_closed():
            leave(connection)
        else:
            connection.close()

    # --- other files -----------------------------------------------------------------------------

    def has_other_files(self, connection: sqlite3.Connection) -> bool:
        """Whether a file that the connection has open was removed or replaced, or its descriptor closed."""
        is_replaced = self._files is not None and self._files != files_of(self.path)
        return is_replaced or not self.is_whole(connection)

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
        stale, self.idle = self.idle, deque()
        for connection in stale:
            self._close(connection)
        self._files = now if now[0] is not None else None  # the connection that makes the file notes it

    # --- a removed log ---------------------------------------------------------------------------

    def _has_lost_log(self) -> bool:
        """Whether the log of the database, or its index, is another file than the one that connections of
        this process have open. A new connection would use the index of these, also those of other pools."""
        now: Files | None = None
        for pool in (self,) if self.idle else _pools_at(self.path):
            files = pool._files
            if files is not None and pool._open_ones:
                now = now or files_of(self.path)
                if now != files and now[0] == files[0]:
                    return True
        return False

    def _leave_lost_log(self) -> None:
        """Saves what only the removed log has, and closes all connections of the process to the file.

        Raises BrokerUnavailable if connections are in use for long.
        """
        with one_at_a_time(_LEAVE_WITHIN) as is_alone:
            pools = _pools_at(self.path)
            deadline = monotonic() + _LEAVE_WITHIN
            while not is_alone or any(pool._lent for pool in pools):
                if not is_alone or monotonic() > deadline:
                    raise BrokerUnavailable(
                        f"{self.path}-wal or {self.path}-shm was removed while it was in use, and other "
                        "calls still use it: try again"
                    )
                sleep()
            if not self._has_lost_log():  # another thread has done it meanwhile
                return
            self.refuse_if_cut_off()
            is_saved = False
            for pool in pools:
                is_saved = pool._save_log() or is_saved
            for pool in pools:
                while pool.idle:
                    connection = pool.idle.pop()
                    pool._open_ones.pop(connection, None)
                    close_unsaved(connection)
                pool._files = None
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
        if not self.idle or files is None or not is_removed(files, files_of(self.path)):
            return False
        try:
            return save_log(self.idle[-1]) and is_removed(files, files_of(self.path))
        except sqlite3.Error:
            return False

    # --- closed and taken descriptors ------------------------------------------------------------

    def is_whole(self, connection: sqlite3.Connection) -> bool:
        """Whether the descriptors of the connection are open. Costs 2 µs."""
        own = self._open_ones.get(connection)
        return own is None or own.are_whole()

    def _descriptors(self) -> list[Descriptors]:
        return list(self._open_ones.values())

    def leave_files(self, connection: sqlite3.Connection) -> None:
        """Closes all connections of the process to the file: they share a descriptor of the index of the log,
        and other code may have closed it. The next call opens the files again."""
        self._abandon_if_taken()
        idle = [(self, connection)]
        for pool in _pools_at(self.path):
            with suppress(IndexError):
                while True:
                    idle.append((pool, pool.idle.pop()))
        for pool, one in idle:
            with suppress(sqlite3.Error):
                pool._close(one)

    def refuse_if_cut_off(self, cause: Exception | None = None) -> None:
        """Raises BrokerLost if another file has got a descriptor of a connection of this process."""
        self._abandon_if_taken()
        file = identity(self.path)
        if file is not None and file in _cut_off:
            raise self._lost() from cause

    def _abandon_if_taken(self) -> None:
        """If another file has got a descriptor, leaves all connections of this process to the database as
        they are."""
        pools = _pools_at(self.path)
        taken = {database for one in pools for database in one._taken()}
        _cut_off.update(taken)
        for pool in pools:
            if pool._files is not None and pool._files[0] in taken:
                leave(*list(pool._open_ones))
                pool._open_ones.clear()
                pool.idle = deque()

    def _taken(self) -> Iterator[Identity]:
        """The databases of connections of which another file has got a descriptor."""
        for connection, own in self._open_ones.copy().items():
            # Another thread may close the connection meanwhile, so that its numbers are free: it is taken
            # out before.
            if own.are_taken() and self._open_ones.get(connection) is own and own.database is not None:
                yield own.database

    def _lost(self) -> BrokerLost:
        return BrokerLost(
            f"{self.path} cannot be used any more in this process, in which code has closed descriptors of "
            "the database by number, and other files have got the numbers, or which was forked before: start "
            "the process anew"
        )

    # --- forks -----------------------------------------------------------------------------------

    def leave_parent(self) -> bool:
        """Leaves the connections to the parent of this process, if it was forked since. True: it was."""
        if self._pid == os.getpid():
            return False
        # A child may neither use nor close connections of its parent (sqlite.org/howtocorrupt.html,
        # "carrying an open database connection across a fork").
        leave(*list(self._open_ones))
        self._open_ones.clear()
        self.idle, self._lent = deque(), deque()
        self._pid, self._files = os.getpid(), None
        return True


def _see_to_inherited() -> None:
    """In a child, connections use the index of the log by the descriptor of the parent's. If that was closed,
    each transaction would try to lock it for ten seconds."""
    for files in _inherited:
        if files[0] not in _cut_off and not are_open(files):
            _cut_off.add(files[0])


def _note_inherited() -> None:
    _inherited.update(
        pool._files
        for pool in (reference() for reference in list(_pools))
        if pool is not None and pool._open_ones and pool._files is not None
    )


os.register_at_fork(after_in_child=_note_inherited)


def _pools_at(path: str) -> list[Pool]:
    """All pools of this process for the file."""
    return [one for one in _pools_of(os.getpid()) if one.path == path]


def _pools_of(pid: int) -> list[Pool]:
    pools = [reference() for reference in list(_pools)]
    return [one for one in pools if one is not None and one._pid == pid]


def _is_in_use(file: File) -> bool:
    """Whether connections of this process have locks on it. The log of a database has none."""
    if file is None:
        return False
    for pool in _pools_of(os.getpid()):
        files = pool._files
        if files is not None and pool._open_ones:
            name = os.path.basename(pool.path)
            if file in (files[0], files[2], name, f"{name}-shm"):
                return True
    return False
