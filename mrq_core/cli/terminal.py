"""What a command gets from its shell: standard streams that are safe to write to, wherever they lead, and the
working directory.

A command does its work and ends with the exit code of that work, also if a stream is closed, if its reader
has gone away, if its disk is full, or if its encoding lacks a character. This module imports nothing else of
mrq that imports much: it runs before gevent patches the library.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from select import POLLERR, POLLHUP, POLLOUT, poll
from typing import TextIO

_READER_GONE = frozenset({errno.EPIPE, errno.EIO, errno.EBADF})
"""A pipe without a reader, a terminal that was closed, and a descriptor that cannot be written."""


class Stream(io.FileIO):
    """The descriptor of standard output or standard error. A write that fails is dropped and remembered."""

    error: OSError | None = None
    """The first error of a write."""

    def write(self, data: object, /) -> int:
        """Writes all of the data, and waits for a reader where the descriptor does not block."""
        rest = memoryview(data).cast("B")  # type: ignore[arg-type]
        size = len(rest)
        while rest:
            try:
                written = super().write(rest)
            except OSError as error:
                self.error = self.error or error
                break
            if written is None:
                ready = poll()
                ready.register(self.fileno(), POLLOUT)
                ready.poll()
            rest = rest[written or 0 :]
        return size


_closed: set[int] = set()
"""The standard descriptors that were closed when the process started."""
_streams: dict[int, Stream] = {}
"""Standard output and standard error, by their usual descriptors, once they are protected."""
_reserved: TextIO | None = None
"""The stream to standard output while descriptor 1, or `sys.stdout` alone, leads to standard error."""


is_working = False
"""Whether a command has begun its work. A command that prints its help or the version has no other work."""


def protect_streams() -> None:
    """Replaces the standard streams. A closed stream leads to /dev/null: otherwise a file or a socket would
    get its number. Characters that the encoding lacks are written as escapes.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            _closed.add(descriptor)
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115
    sys.stdout = sys.__stdout__ = _protected(1, sys.stdout)  # type: ignore[misc]
    sys.stderr = sys.__stderr__ = _protected(2, sys.stderr)  # type: ignore[misc]


def forget_odd_width() -> None:
    """Removes a width from the environment that is no width of a terminal.

    It is 0 where the size is unknown: Rich would print nothing. Rich fills lines up to a huge one.
    """
    width = os.environ.get("COLUMNS", "")
    if not re.fullmatch("0*[1-9][0-9]{0,3}", width, re.ASCII):
        os.environ.pop("COLUMNS", None)


def result_output() -> TextIO:
    """The stream for the result of a command."""
    return _reserved or sys.stdout


@contextmanager
def reserved_output() -> Iterator[None]:
    """Reserves standard output for the result of a command, which goes to `result_output`.

    Descriptor 1 and `sys.stdout` lead to standard error: what the config file, plugins and tasks print, and
    the output of programs that they start. That lasts until the process ends. Where the caller of the command
    has replaced `sys.stdout`, only `sys.stdout` leads to standard error, until the command ends.
    """
    global _reserved
    caller = sys.stdout
    is_process = 1 in _streams and caller is sys.__stdout__
    if is_process:
        caller.flush()
        _reserved = _protected(1, caller, os.dup(1))
        os.dup2(2, 1)
        sys.stdout = sys.__stdout__ = _diverted()  # type: ignore[misc]
    else:
        _reserved, sys.stdout = caller, sys.stderr
    try:
        yield
    finally:
        flush_result()
        if not is_process:
            _reserved, sys.stdout = None, caller


def flush_result() -> None:
    """Flushes the result, unless its stream is closed."""
    if _reserved is not None and _is_usable(_reserved):
        _reserved.flush()


def _diverted() -> io.TextIOWrapper:
    """A stream to descriptor 1 while the output is reserved. Its failures are not those of the output."""
    return _text(Stream(1, "w", closefd=False), sys.__stderr__, flushes=True)


def restore_errors(errors: TextIO) -> None:
    """Sets `sys.stderr` back to this stream, or to a new stream if a task has closed or detached it."""
    sys.stderr = errors if _is_usable(errors) else _protected(2, sys.__stderr__)


def _is_usable(stream: TextIO) -> bool:
    """Whether the stream is neither closed nor detached."""
    try:
        return not getattr(stream, "closed", False)
    except ValueError:
        return False


def _protected(number: int, earlier: TextIO | None, descriptor: int | None = None) -> io.TextIOWrapper:
    """The stream with this usual descriptor. `descriptor`: its present one, if another."""
    stream = _streams[number] = Stream(number if descriptor is None else descriptor, "w", closefd=False)
    return _text(stream, earlier, flushes=number == 2 or stream.isatty())


def _text(stream: Stream, earlier: TextIO | None, *, flushes: bool) -> io.TextIOWrapper:
    if earlier is not None and not _is_usable(earlier):
        earlier = None
    is_unbuffered = bool(getattr(earlier, "write_through", False))
    return io.TextIOWrapper(
        stream if is_unbuffered else io.BufferedWriter(stream),
        encoding=getattr(earlier, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=flushes,
        write_through=is_unbuffered,
    )


def restore_streams() -> None:
    """Replaces standard streams that the config file or a plugin has closed or removed."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        if stream is None or not _is_usable(stream):
            is_reserved = descriptor == 1 and _reserved is not None
            new = _diverted() if is_reserved else _protected(descriptor, getattr(sys, f"__{name}__"))
            setattr(sys, name, new)


def output_error() -> str | None:
    """The reason why standard output could not be written, such as a full disk. None: all was written, or
    nothing reads it."""
    error = _output_failure()
    if _is_closed_meanwhile(error):
        return "a task has closed its descriptor"
    return None if error is None or error.errno in _READER_GONE else error.strerror


def is_output_gone() -> bool:
    """Whether nothing reads standard output any more, or it was closed at the start."""
    error = _output_failure()
    is_gone = error is not None and error.errno in _READER_GONE and not _is_closed_meanwhile(error)
    return 1 in _closed or is_gone or _is_hung_up()


def _is_closed_meanwhile(error: OSError | None) -> bool:
    """Whether the descriptor of standard output was closed in this process, for instance with all others."""
    if error is None or error.errno != errno.EBADF or 1 in _closed:
        return False
    try:
        os.fstat(_streams[1].fileno())
    except OSError:
        return True
    return False


def _is_hung_up() -> bool:
    """Whether standard output is a pipe without a reader, or a terminal that was closed. Writes nothing."""
    if 1 not in _streams:
        return False
    state = poll()
    state.register(_streams[1].fileno(), 0)
    return any(event & (POLLERR | POLLHUP) for _, event in state.poll(0))


def _output_failure() -> OSError | None:
    if 1 not in _streams:
        return None
    flush_result()
    drop_broken_streams()
    return _streams[1].error


def drop_broken_streams() -> None:
    """Flushes the standard streams. A stream that a task has closed, or replaced by an object that cannot be
    flushed, becomes None: the interpreter flushes it once more, and that error would change the exit code."""
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except BaseException:
            setattr(sys, name, None)


def put_working_directory_last() -> None:
    """Python finds its own modules and those of libraries first, until `put_working_directory_first`."""
    here = _working_directory()
    others = [folder for folder in sys.path if folder not in ("", here)]
    if len(others) < len(sys.path):
        sys.path[:] = [*others, here]


def put_working_directory_first() -> None:
    """Python finds tasks, plugins and the imports of the config file in the working directory first.

    What mrq imports later, and a file of this folder would hide, is imported before."""
    from mrq_core.config.hidden import import_hidden_by

    here = _working_directory()
    if here:
        sys.path[:] = [folder for folder in sys.path if folder not in ("", here)]
        import_hidden_by(here)
        sys.path.insert(0, here)


@contextmanager
def exit_at_start() -> Iterator[None]:
    """Ends the program where its start raises an error of mrq, or a file hides a module that mrq needs."""
    from mrq_core.errors import MrqError, shown_error, without_controls

    try:
        yield
    except MrqError as error:
        if "--debug" in sys.argv:
            from traceback import format_exc

            print(without_controls(format_exc()), file=sys.stderr, end="")
        print(f"mrq: {error}", file=sys.stderr)
        sys.exit(2)
    except Exception as error:
        from mrq_core.config.hidden import hiding
        from mrq_core.drivers import open_files

        is_used_up = open_files.are_used_up(error)
        sentence = open_files.advice() if is_used_up else hiding(error, anywhere=True)
        if sentence is None:
            raise
        print(f"mrq: {shown_error(error)}\n{sentence}", file=sys.stderr)
        sys.exit(1 if is_used_up else 2)


def _working_directory() -> str:
    """Empty: it was deleted, or may not be read."""
    try:
        return os.getcwd()
    except OSError:
        return ""
