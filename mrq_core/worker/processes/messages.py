"""What the parent and a worker send to each other, through two pipes.

The pipe of commands starts with the size and the JSON of a `Start`. Then each byte is a command. Its end
means that the parent is gone. The pipe of reports has one `REPORT` for each write, which is atomic.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Mapping

import msgspec

DRAIN, STOP, INTERRUPT = b"D", b"S", b"I"
"""Commands: finish the running jobs; interrupt them after STOP_GRACE; interrupt them now."""
READY, ALIVE, DONE = b"R", b"A", b"E"
"""Reports: the worker claims jobs; it runs; its burst is over."""
REPORT = struct.Struct("!cd")
"""The report, and the seconds of silence after which the parent kills the worker; infinity: never."""

_SIZE = struct.Struct("!I")


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is told when it starts. `number` counts from 1, and stays when the worker is replaced.
    `overrides` are the settings of the command line, `file` the config file named there. `source` is the
    content of a config file that only the parent can read."""

    number: int
    overrides: Mapping[str, object]
    file: str | None
    source: bytes | None
    is_burst: bool
    debug: bool


def encoded(start: Start) -> bytes:
    """The beginning of the pipe of commands."""
    text = msgspec.json.encode(start)
    return _SIZE.pack(len(text)) + text


def read_start(commands: int) -> Start:
    """Reads the beginning of the pipe of commands. Raises EOFError if the parent is gone."""
    (size,) = _SIZE.unpack(_read(commands, _SIZE.size))
    return msgspec.json.decode(_read(commands, size), type=Start)


def _read(descriptor: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(descriptor, size - len(data))
        if not more:
            raise EOFError("the parent process is gone")
        data += more
    return data
