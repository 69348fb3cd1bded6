"""What SQLite's errors mean to a user of the broker: what was found, and what to do."""

from __future__ import annotations

import os
import sqlite3

from mrq_core.drivers import open_files
from mrq_core.embedded.server.location import not_a_database
from mrq_core.errors import BrokerCorrupt, BrokerError, BrokerUnavailable, CallRefused, RecordTooLarge

_INDEX_BYTES = 32768
"""Bytes that the index of the log takes at least: the first file for which a full disk has no room."""
_FILES = 3
"""Files of a database that SQLite opens."""
_MISSING = ("no such table", "no such index")
_PRIMARY = 0xFF
"""The low byte of an extended result code is the primary one (sqlite.org/rescode.html)."""


def primary_code(error: sqlite3.Error) -> int:
    """SQLite's primary result code, 0 where the error came from the Python module itself."""
    return getattr(error, "sqlite_errorcode", 0) & _PRIMARY


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection holds the lock."""
    return primary_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def is_io_error(error: BaseException) -> bool:
    """Whether the system refused to read, write or lock a file that the connection has open. PROTOCOL: the
    index of the log could not be locked, however often SQLite tried."""
    codes = (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_PROTOCOL)
    return isinstance(error, sqlite3.Error) and primary_code(error) in codes


def translated(error: sqlite3.Error, *, path: str, timeout: float) -> BrokerError:
    """The error of the broker that says the same."""
    code = primary_code(error)
    if is_busy(error):
        return BrokerUnavailable(
            f"{path} is locked by another process for more than {timeout:g} s: try again, find what holds it "
            "(an open transaction in a database tool, a backup), or raise BROKER_TIMEOUT"
        )
    if code == sqlite3.SQLITE_FULL:
        return CallRefused(
            f"{path} cannot grow, the disk is full: nothing of this call was written; free some space and "
            "try again"
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        advice = "this user needs write access to the file and to its directory"
        return CallRefused(f"{path} cannot be written ({error}): {_mounted_read_only(path) or advice}")
    if code == sqlite3.SQLITE_CANTOPEN and open_files.are_used_up_but_for(_FILES - 1):
        return BrokerUnavailable(f"{path} cannot be opened: {open_files.advice()}")
    if code == sqlite3.SQLITE_CANTOPEN:
        advice = (
            "expected a file that this user can read and write, in a directory that exists; correct SQLITE "
            "or the permissions"
        )
        return BrokerUnavailable(f"{path} cannot be opened ({error}): {_mounted_read_only(path) or advice}")
    if is_io_error(error) and _is_disk_full(path):
        return BrokerUnavailable(
            f"reading or writing {path} failed ({error}), because the disk is full: free some space and try "
            "again"
        )
    if is_io_error(error):
        return BrokerUnavailable(
            f"reading or writing {path} failed ({error}): look at the disk and at the system's log"
        )
    if code == sqlite3.SQLITE_NOTADB:
        return not_a_database(path)
    if code == sqlite3.SQLITE_CORRUPT:
        return BrokerCorrupt(
            f"{path} is damaged ({error}): stop all workers, keep a copy of the file and of {path}-wal, and "
            f"recover what can be read with `sqlite3 {path} .recover`, or restore a backup"
        )
    if str(error).startswith(_MISSING):
        return BrokerCorrupt(
            f"{path} lacks a table or an index of mrq ({error}): run `mrq check --fix`, which makes it anew "
            "and names what is lost"
        )
    if code == sqlite3.SQLITE_TOOBIG:
        return RecordTooLarge(f"a value cannot be stored in {path} ({error}): store it elsewhere")
    return BrokerError(f"SQLite refused a call on {path}: {error}")


def _is_disk_full(path: str) -> bool:
    disk = _disk_of(path)
    return disk is not None and disk.f_bavail * disk.f_frsize < _INDEX_BYTES


def _mounted_read_only(path: str) -> str | None:
    disk = _disk_of(path)
    if disk is None or not disk.f_flag & os.ST_RDONLY:
        return None
    advice = "mount it for writing, or name another path in SQLITE or the URL"
    return f"its file system is mounted read-only; {advice}"


def _disk_of(path: str) -> os.statvfs_result | None:
    """None: it cannot be asked."""
    try:
        return os.statvfs(os.path.dirname(path))
    except OSError:
        return None
