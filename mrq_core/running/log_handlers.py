"""The handlers that write log lines to standard error, or to the file LOG_FILE."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TextIO

from mrq_core.errors import ConfigError
from mrq_core.running.log_lines import legible
from mrq_core.running.streams import is_usable

_PLAIN = logging.Formatter()
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
_MODE = 0o666
_STANDARD_ERROR = 2
_ABOVE = 10
"""The lowest number of a copy of that descriptor."""
_RECENT, _LONGEST = 500, 2000
"""The latest lines of a process that are kept, and the characters of each."""

recent: deque[str] = deque(maxlen=_RECENT)
"""The latest lines that the handlers below have written, for a request to show them."""


class LocklessHandler(logging.Handler):
    """A handler without a lock. A line is written in one step, and an interrupted job could keep a lock for
    ever. The locks of gevent would take a third of the time of a line."""

    def createLock(self) -> None:
        self.lock = None

    def format(self, record: logging.LogRecord) -> str:
        """The line. That of a record that cannot be formatted, such as ``log.info("%d", "x")``, says why."""
        try:
            return super().format(record)
        except RecursionError:
            raise
        except Exception as error:
            plain = legible(record, error)
        try:
            return super().format(plain)
        except RecursionError:
            raise
        except Exception:  # of the formatter that a task has set
            return _PLAIN.format(plain)

    def handle(self, record: logging.LogRecord) -> bool:
        """Emits without a lock: from Python 3.13 on, `logging.Handler.handle` enters it unconditionally."""
        # Since Python 3.12 a filter may answer with another record.
        accepted: object = self.filter(record)
        if accepted:
            self.emit(accepted if isinstance(accepted, logging.LogRecord) else record)
        return bool(accepted)


class TerminalHandler(LocklessHandler):
    """Writes log lines to standard error, also after a task has closed or detached `sys.stderr`.

    While a task has put another file at descriptor 2, to capture what a library prints, lines go to a copy of
    the descriptor: such a task reads its pipe late, and a full one would block all jobs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stream: Any = sys.stderr
        self.own_stream: Any = self.stream
        """Where lines go. A task may set another `stream`."""
        self._process = os.getpid()
        self._copy: TextIO | None = None
        self._file: tuple[int, int] | None = None
        with suppress(OSError, ValueError, AttributeError):  # no standard error, or no free descriptor
            if self.stream.fileno() == _STANDARD_ERROR:
                copy = fcntl.fcntl(_STANDARD_ERROR, fcntl.F_DUPFD_CLOEXEC, _ABOVE)
                self._file = _identity(copy)
                self._copy = open(copy, "w", errors="backslashreplace", closefd=False)  # noqa: SIM115

    def close_copy(self) -> None:
        """Closes the copy, if it is still that. Not in `close`, which a task may call."""
        copy, self._copy = self._copy, None
        if copy is not None and self._has_copy(copy):
            os.close(copy.fileno())

    def restore_stream(self) -> None:
        """Sends lines again where they went first."""
        self.stream = self.own_stream

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
            recent.append(str(line)[:_LONGEST])
            stream = self._unless_captured(self.stream)
            stream.write(f"{line}\n")
            stream.flush()
        except RecursionError:
            raise
        except Exception:
            self.handleError(record)

    def _unless_captured(self, stream: Any) -> Any:
        """The stream, or the copy. A child of a task may redirect its standard error for good."""
        copy = self._copy
        if copy is None or stream is not self.own_stream or _identity(_STANDARD_ERROR) == self._file:
            return stream
        return copy if self._has_copy(copy) else stream

    def _has_copy(self, copy: TextIO) -> bool:
        return self._process == os.getpid() and _identity(copy.fileno()) == self._file

    def flush(self) -> None:
        if hasattr(self.stream, "flush") and is_usable(self.stream):
            self.stream.flush()

    def handleError(self, record: logging.LogRecord) -> None:
        if not is_usable(self.stream):
            # The interpreter's own stream leaves the descriptor open.
            self.own_stream = open(2, "w", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115
            self.stream = self.own_stream
            self.emit(record)
        else:
            print_error(super().handleError, record)


class FileHandler(LocklessHandler):
    """Appends each line to the file LOG_FILE in one write, so that several processes can share the file.

    `reopen` replaces the file behind the descriptor, without a lock: it may be called in any thread and in a
    signal handler. `follows`: opens the file again when another file has its name, for short-lived processes.
    """

    def __init__(self, path: str, *, follows: bool = False) -> None:
        """Raises ConfigError if the file cannot be opened."""
        super().__init__()
        self._path = os.path.abspath(path)  # a task may change the working directory
        self._follows = follows
        self._is_torn = False
        self._has_failed = False
        try:
            self._file = self._open()
            self._identity = _identity(self._file)
        except (OSError, ValueError) as error:  # ValueError: a NUL character
            raise _unusable(path, error) from error

    def reopen(self) -> None:
        """Writes to the file that has the name now, and makes it if there is none. Raises OSError, and then
        goes on with the earlier file."""
        self.restore()
        opened = self._open()
        try:
            os.dup2(opened, self._file, inheritable=False)
            self._identity = _identity(self._file)
        finally:
            os.close(opened)

    def restore(self) -> None:
        """Opens the file again if other code has closed its descriptor, which another file may have now.
        Raises OSError."""
        if _identity(self._file) != self._identity:
            self._file = self._open()
            self._identity = _identity(self._file)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.restore()  # a connection may have the number of a descriptor that a task has closed
            if self._follows and self._is_replaced():
                with suppress(OSError):
                    self.reopen()
            text = self.format(record)
            recent.append(text[:_LONGEST])
            line = text.encode("utf-8", "backslashreplace") + b"\n"
            if self._is_torn:
                line = b"\n" + line
            self._is_torn = True
            while line:
                line = line[os.write(self._file, line) :]
            self._is_torn = self._has_failed = False
        except Exception:
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:
        """Prints the first of several errors in a row: a full disk fails each line."""
        if not self._has_failed:
            self._has_failed = True
            is_of_file = issubclass(type(sys.exception()), OSError)
            print_error(self._print_reason if is_of_file else super().handleError, record)

    def _print_reason(self, record: logging.LogRecord) -> None:
        reason = getattr(sys.exception(), "strerror", None)
        print(
            f"mrq: LOG_FILE cannot be written: {self._path!r}: {reason}; lines are lost until it can",
            file=sys.stderr,
        )

    def _is_replaced(self) -> bool:
        try:
            named, ours = os.stat(self._path), os.fstat(self._file)
        except OSError:
            return True
        return (named.st_dev, named.st_ino) != (ours.st_dev, ours.st_ino)

    def _open(self) -> int:
        # A named pipe without a reader is an error, instead of a worker that never starts.
        opened = os.open(self._path, _FLAGS | os.O_NONBLOCK, _MODE)
        os.set_blocking(opened, True)
        return opened


def _identity(descriptor: int) -> tuple[int, int] | None:
    """What identifies the open file. None: the descriptor is closed."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def check_log_file(path: str) -> None:
    """Raises ConfigError if LOG_FILE cannot be opened. Makes no file."""
    try:
        try:
            os.close(os.open(path, _FLAGS & ~os.O_CREAT | os.O_NONBLOCK))
        except FileNotFoundError:
            folder = os.path.dirname(os.path.abspath(path))
            if not os.path.isdir(folder):
                raise
            if not os.access(folder, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
    except (OSError, ValueError) as error:
        raise _unusable(path, error) from error


def _unusable(path: str, error: OSError | ValueError) -> ConfigError:
    reason = getattr(error, "strerror", None) or error
    return ConfigError(
        f"LOG_FILE cannot be written: {path!r}: {reason}; expected a file in a directory that exists"
    )


def print_error(print_it: Callable[[logging.LogRecord], None], record: logging.LogRecord) -> None:
    """Prints why a line cannot be logged, if standard error is open. Never raises, because tasks log."""
    try:
        print_it(record)
    except Exception:
        pass
