"""The file that REPORT_FILE names: which files a worker replaces and deletes, and how."""

from __future__ import annotations

import errno
import json
import os
import secrets
import stat
from datetime import datetime
from pathlib import Path

import msgspec

from mrq_core.errors import ConfigError
from mrq_core.operations.views import worker_view
from mrq_core.operations.workers import WorkerReport

_MOST_BYTES = 16 * 1024 * 1024
"""The most bytes of a report. A longer file is no report."""

_KINDS = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a directory"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


class _Written(msgspec.Struct):
    """The fields by which the report of any version is recognised."""

    name: str
    host: str
    pid: int
    status: str
    reported_at: datetime
    version: str


class ReportFile:
    """The report of a worker as `mrq workers show --json` prints it, in a file.

    The age of the file tells a probe on the same machine whether the process runs, also while the broker is
    away. A reader never sees a partial report. The worker replaces no file but a report, and deletes no file
    but its own report.
    """

    def __init__(self, path: str, worker: str) -> None:
        """`worker`: the name in the report. Raises ConfigError if the path names anything but a report or a
        new file."""
        self._worker = worker
        try:
            if path.endswith("/"):
                raise IsADirectoryError(errno.EISDIR, "it is a directory", path)
            self._path = Path(path).absolute()  # a task may change the working directory
            self._refuse_other_file()
        except (OSError, ValueError) as error:  # ValueError: a NUL character
            raise _unusable(path, error) from error

    def check_folder(self) -> None:
        """Raises ConfigError if the folder of the file does not exist, or this user cannot write into it."""
        folder = self._path.parent
        if not folder.is_dir():
            raise _unusable(str(self._path), FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT)))
        if not os.access(folder, os.W_OK | os.X_OK):
            raise _unusable(str(self._path), PermissionError(errno.EACCES, os.strerror(errno.EACCES)))

    def write_first(self, report: WorkerReport) -> None:
        """Writes the first report. Raises ConfigError if that fails: a probe that watches the file would take
        this worker for dead."""
        try:
            self.write(report)
        except OSError as error:
            raise _unusable(str(self._path), error) from error

    def write(self, report: WorkerReport) -> None:
        """Replaces the file atomically. Safe in any thread. Raises OSError."""
        self._refuse_other_file()
        beside = self._path.with_name(f"{self._path.name}.{os.getpid()}-{secrets.token_hex(4)}")
        try:
            with beside.open("x", encoding="utf-8") as file:
                file.write(json.dumps(worker_view(report)) + "\n")
            beside.replace(self._path)
        except OSError:
            beside.unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        """Deletes the file if it has the report of this worker. Raises OSError."""
        found = _found_at(self._path)
        if isinstance(found, _Written) and found.name == self._worker:
            self._path.unlink(missing_ok=True)

    def _refuse_other_file(self) -> None:
        """Raises OSError if the path names anything but a report or a new file."""
        found = _found_at(self._path)
        if isinstance(found, str):
            raise FileExistsError(errno.EEXIST, f"it is {found}", str(self._path))


def _found_at(path: Path) -> _Written | str | None:
    """The report in the file. None: the path names nothing. A text: what else the path names.

    Opens regular files only: to open a device may act on it. Raises OSError.
    """
    try:
        mode = path.lstat().st_mode
        if not stat.S_ISREG(mode):
            return next((kind for is_kind, kind in _KINDS if is_kind(mode)), "no regular file")
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            text = file.read(_MOST_BYTES)
    except FileNotFoundError:
        return None
    try:
        return msgspec.json.decode(text, type=_Written)
    except (msgspec.DecodeError, RecursionError, ValueError):
        return "a file that is no report of a worker"


def _unusable(path: str, error: OSError | ValueError) -> ConfigError:
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return ConfigError(
        f"REPORT_FILE cannot be written: {path!r}: {reason}; expected a new file, or a report that a worker "
        "has left, in a directory that exists"
    )
