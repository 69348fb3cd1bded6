"""The tasks that every system runs, and the marks that they leave: which job ran, and when.

A task writes its job's number and the time into one file, 16 bytes by one system call. So what is measured
is observed in the same way whatever runs it: threads, greenlets, coroutines, processes, or a fork for each
job. The time is that of the machine's monotonic clock, which is the same in all processes.

Runs in the environments of the peers: the standard library, and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import struct
import time
from functools import cache
from pathlib import Path
from typing import NamedTuple

NAP_SECONDS = 0.1
_FILE = "BENCH_MARKS"
_FORMAT = struct.Struct("=qd")


class Mark(NamedTuple):
    """One job, and when it ran."""

    number: int
    at: float


def mark(number: int) -> None:
    """A task that does nothing else. It returns nothing: not every system would do nothing with that."""
    os.write(_file(), _FORMAT.pack(number, time.monotonic()))


def nap(number: int) -> None:
    """A task that waits as if for another server, and leaves its mark at its end."""
    time.sleep(NAP_SECONDS)
    mark(number)


async def mark_async(number: int) -> None:
    """The same task for systems that run coroutines."""
    mark(number)


async def nap_async(number: int) -> None:
    """The same task for systems that run coroutines."""
    await asyncio.sleep(NAP_SECONDS)
    mark(number)


def environ_of(file: Path) -> dict[str, str]:
    """What tells the tasks of other processes where to leave their marks."""
    return {_FILE: str(file)}


def the_file() -> Path:
    """Where the tasks of this process leave their marks."""
    return Path(os.environ[_FILE])


def count(file: Path) -> int:
    """How many marks there are. Costs no more when there are many."""
    try:
        return os.stat(file).st_size // _FORMAT.size
    except FileNotFoundError:
        return 0


def read(file: Path) -> list[Mark]:
    """All marks, in the order in which they were left."""
    return [Mark(*fields) for fields in _FORMAT.iter_unpack(file.read_bytes())]


@cache
def _file() -> int:
    return os.open(the_file(), os.O_WRONLY | os.O_APPEND | os.O_CREAT)
