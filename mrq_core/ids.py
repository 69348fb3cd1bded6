"""Ids of jobs: 24 hex digits, made by the client, ordered by time.

The layout is that of MongoDB's ObjectId (BSON specification, "ObjectId"): four bytes of
Unix seconds, five random bytes that stand for the process, three bytes of a counter. Two
differences serve ordering within one process: the counter starts in the lower half of its
range, and it is never reset between seconds.

Every id begins with the time of its making, also a derived id. So the order of ids is the order of
creation, to a second.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import secrets
from typing import TypeGuard

from mrq_core.clock import now_ms

_ID = re.compile(r"[0-9a-f]{24}\Z")
_COUNTER_SIZE = 1 << 24


def _new_counter() -> itertools.count[int]:
    return itertools.count(secrets.randbelow(_COUNTER_SIZE // 2))


_process = secrets.token_hex(5)
_counter = _new_counter()


def _after_fork() -> None:
    """A child must not continue its parent's sequence."""
    global _process, _counter
    _process = secrets.token_hex(5)
    _counter = _new_counter()


os.register_at_fork(after_in_child=_after_fork)


def new_id() -> str:
    """Makes a job id. Thread-safe, because one step of the interpreter advances the counter.

    The seconds of a clock before 1970 or after 2106 do not fit, and wrap around.
    """
    return f"{now_ms() // 1000 & 0xFFFFFFFF:08x}{_process}{next(_counter) % _COUNTER_SIZE:06x}"


def derived_id(unix_seconds: float, *names: str, index: int = 0) -> str:
    """The id of a job that follows from others: its time, 52 bits of a hash of these names, and the index.

    The same arguments give the same id. Ids of the same time and names are in the order of their indexes, in
    blocks of 4,096. Each name is hashed with its length, so that no two lists of names are alike. With 1,000
    lists of names a second, two ids collide once in 285 years on average (birthday bound).
    """
    block, number = divmod(index, 1 << 12)
    text = "".join(f"{len(name)}:{name}" for name in (*names, str(block)))
    return f"{id_at(unix_seconds)[:8]}{hashlib.sha256(text.encode()).hexdigest()[:13]}{number:03x}"


def is_id(value: object) -> TypeGuard[str]:
    """Whether the value is a text in the form of a job id."""
    return isinstance(value, str) and _ID.match(value) is not None


def seconds_of(job_id: str) -> int:
    """The Unix time at which the id was made."""
    return int(job_id[:8], 16)


def id_at(unix_seconds: float) -> str:
    """The smallest possible id of this time, as a bound for searches by time."""
    return f"{max(0, min(int(unix_seconds), 0xFFFFFFFF)):08x}{'0' * 16}"


def new_nonce() -> str:
    """Sixteen random hex digits, which keep tokens of different claims from colliding."""
    return secrets.token_hex(8)
