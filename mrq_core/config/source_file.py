"""Reads the config file, and refuses a path that leads to none."""

from __future__ import annotations

import errno
import os
import select
import stat
from pathlib import Path
from typing import NamedTuple, NoReturn

from mrq_core.config.secrets import hide_password
from mrq_core.contract.plain import printable, text_of
from mrq_core.contract.signal_errors import refuse_to_wrap
from mrq_core.drivers import open_files
from mrq_core.errors import BrokerUnavailable, ConfigError, shown

DEFAULT_FILE = "mrq-config.py"
MOST_SOURCE = 1_000_000
"""Bytes of a config file."""
_PIPE_PATIENCE = 10.0
"""Seconds until something has to come through a pipe that is the config file."""
_OTHER_FORMATS = frozenset({".json", ".yaml", ".yml", ".toml", ".ini"})
"""Suffixes of other languages. Python can run some such files, and finds no setting in them."""
_EXPECTED = "expected the path of a Python file with settings"
_OF_PROCESSES = ("/dev/", "/proc/")
"""Folders whose names, such as /dev/stdin, mean something else in another process."""


class ConfigFile(NamedTuple):
    """A config file as it was read. `is_read_once`: another process finds no such file at the path."""

    path: str
    source: bytes
    is_read_once: bool = False

    def __repr__(self) -> str:
        """Names the path alone: the source may have passwords."""
        return f"ConfigFile({self.path!r})"


def path_from(given: object) -> Path:
    """The path that the command line, MRQ_CONFIG or the program names. Raises ConfigError."""
    try:
        path = given if isinstance(given, os.PathLike) else text_of(given)
        text = os.fspath(path) if path is not None else None
    except Exception as error:  # code of the value
        refuse_to_wrap(error)
        path = text = None
    if path is None or not isinstance(text, str):
        raise ConfigError(f"the config file is {shown(given)}: {_EXPECTED}")
    if not text.strip():
        raise ConfigError(
            f"the config file is {shown(text)}: {_EXPECTED}; without --config and MRQ_CONFIG, "
            f"{DEFAULT_FILE} in the working directory is read if it exists"
        )
    if "://" in text:
        raise ConfigError(
            f"the config file is the URL {shown(hide_password(text))}: {_EXPECTED}, on this machine; the URL "
            "of a broker belongs in BROKER (--broker)"
        )
    if Path(text).suffix.lower() in _OTHER_FORMATS:
        raise ConfigError(f"{_named(text)} is no Python file: {_EXPECTED}, such as {DEFAULT_FILE}")
    return Path(text)


def read_file(path: Path) -> ConfigFile:
    """Reads the file, at most `MOST_SOURCE` bytes. Raises ConfigError, also for an empty pipe, and
    BrokerUnavailable if this process has no free descriptor."""
    try:
        source, mode = _read(path)
        folder = os.path.realpath(path.parent)
    except (OSError, ValueError) as error:
        if open_files.are_used_up(error):
            raise BrokerUnavailable(f"{_named(path)} cannot be read: {open_files.advice()}") from error
        _refuse(path, error)
    if len(source) > MOST_SOURCE:
        raise ConfigError(
            f"{_named(path)} is larger than {MOST_SOURCE:,} bytes: expected a Python file with settings"
        )
    if b"\0" in source:
        raise ConfigError(
            f"{_named(path)} is not valid Python, because it has null bytes, as binary files and UTF-16 "
            "have: expected Python source in UTF-8"
        )
    if not source and stat.S_ISFIFO(mode):
        raise ConfigError(
            f"{_named(path)} is an empty pipe: write the file into the pipe, for each program that reads it"
        )
    is_read_once = not stat.S_ISREG(mode) or f"{folder}/".startswith(_OF_PROCESSES)
    return ConfigFile(str(path), source, is_read_once)


def _named(path: str | os.PathLike[str]) -> str:
    return f"the config file {printable(hide_password(os.fspath(path)))}"


def _refuse(path: Path, error: OSError | ValueError) -> NoReturn:
    reason = getattr(error, "strerror", None) or str(error)
    code = getattr(error, "errno", None)
    advice = "expected a Python file with settings"
    if code == errno.ENOENT and path.is_symlink():
        reason = f"it is a link to {os.readlink(path)}, which does not exist"
        advice = "correct the link, or remove it"
    elif code == errno.ENOENT:
        beside = Path(f"{path}.py")
        advice = "correct the path, or create the file"
        if beside.is_file():
            advice += f"; did you mean {printable(str(beside))}?"
    elif code == errno.EISDIR:
        inside = path / DEFAULT_FILE
        advice += f", such as {printable(str(inside))}" if inside.is_file() else ""
    elif code in (errno.EACCES, errno.EPERM):
        advice = "give the user of this process the permission to read it"
    elif code == errno.ELOOP:
        advice = "correct the link, which leads back to itself"
    elif isinstance(error, TimeoutError):
        advice = "write the file into the pipe, or name a file"
    raise ConfigError(f"{_named(path)} cannot be read ({printable(reason)}): {advice}") from error


def _read(path: Path) -> tuple[bytes, int]:
    """The content and the mode. Reads up to more than `MOST_SOURCE` bytes: a device may have no end. Raises
    OSError, also for a named pipe into which nothing is written."""
    parts: list[bytes] = []
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # opening a pipe without a writer waits otherwise
    try:
        mode = os.fstat(descriptor).st_mode
        is_pipe = stat.S_ISFIFO(mode)
        while sum(map(len, parts)) <= MOST_SOURCE:
            if is_pipe and not select.select([descriptor], [], [], _PIPE_PATIENCE)[0]:
                raise TimeoutError(f"nothing was written into this pipe for {_PIPE_PATIENCE:g} s")
            parts.append(os.read(descriptor, MOST_SOURCE))
            if not parts[-1]:
                break
    finally:
        os.close(descriptor)
    return b"".join(parts), mode
