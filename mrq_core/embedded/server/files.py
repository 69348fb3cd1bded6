"""Notices that files of a database were removed or replaced while connections of this process are open.

Beside the database, SQLite has a write-ahead log with the latest changes (`-wal`), and an index of the log
that processes share (`-shm`). If one of the two is removed, open connections go on with the removed file, and
a later connection makes a new one: each overwrites what the other has written (sqlite.org/howtocorrupt.html,
"unlinking or renaming a database file while in use"). Therefore all connections of the process are closed
before one is opened again, and what only the removed log has is written to the database first.
"""

from __future__ import annotations

import os
import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mrq_core.clock import monotonic
from mrq_core.embedded.server.forks import sleep

Identity = tuple[int, int] | None
Files = tuple[Identity, Identity, Identity]
"""The device and the inode of the database, of its log, and of the index of the log."""

_gate: deque[None] = deque([None])
"""Empty while a thread closes connections. Not a lock: gevent would patch it."""
_NO_CHECKPOINT = getattr(sqlite3, "SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE", None)
"""Python 3.12 and later."""


def files_of(path: str) -> Files:
    """The files that are there now. None: there is none, or opening it tells why."""
    return identity(path), identity(f"{path}-wal"), identity(f"{path}-shm")


def identity(path: Any) -> Identity:
    """The file with this path now. None: there is none, or opening it tells what is wrong with the path."""
    try:
        status = os.stat(path)
    except (OSError, ValueError, TypeError):
        return None
    return status.st_dev, status.st_ino


def is_removed(before: Files, now: Files) -> bool:
    """Whether files are only gone, and no other process has made new ones."""
    return all(new is None or new == old for old, new in zip(before, now, strict=True))


def save_log(connection: sqlite3.Connection) -> bool:
    """Writes all changes from the log to the database. False: another process keeps some from being
    written."""
    busy, pages, written = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    return not busy or 0 <= pages == written


def close_unsaved(connection: sqlite3.Connection) -> None:
    """Closes a connection whose log is not the log of the database any more."""
    set_config: Callable[[int, bool], object] | None = getattr(connection, "setconfig", None)
    if set_config is not None and _NO_CHECKPOINT is not None:
        set_config(_NO_CHECKPOINT, True)
    connection.close()


@contextmanager
def one_at_a_time(seconds: float) -> Iterator[bool]:
    """A block that one thread of the process is in. False: another one has not left it in time."""
    deadline = monotonic() + seconds
    while True:
        try:
            _gate.pop()
            break
        except IndexError:
            if monotonic() > deadline:
                yield False
                return
            sleep()
    try:
        yield True
    finally:
        _gate.append(None)


def _reopen_gate() -> None:
    if not _gate:
        _gate.append(None)


os.register_at_fork(after_in_child=_reopen_gate)
