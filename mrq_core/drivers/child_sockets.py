"""Keeps forked children from using the sockets of their parent.

In a process that gevent has patched, a child runs copies of all greenlets, also of those that wait for a
reply. A copy would read the reply in place of the parent, or send a second request amid that of the parent.
"""

from __future__ import annotations

import _socket
import os
import stat
from collections.abc import Iterable

_parents: dict[int, tuple[int, int]] = {}
"""What identifies the sockets, by their descriptors. A closed one stays until another takes its place."""


def keep_from_children(descriptor: int) -> None:
    """Lets each child that this process forks find an error in place of this socket."""
    identity = _identity_of(descriptor)
    if identity is not None:
        _parents[descriptor] = identity


def leave_to_parent() -> None:
    """In a child: replaces all sockets that were kept from children."""
    kept = list(_parents.items())
    _parents.clear()
    replace(number for number, identity in kept if _identity_of(number) == identity)


def replace(descriptors: Iterable[int]) -> None:
    """In a child: replaces sockets by one on which each call fails at once. The parent's stay as they are.

    Their numbers stay in use: a copy of a greenlet would otherwise find a new connection of the child there.
    """
    numbers = list(descriptors)
    if not numbers:
        return
    try:
        # Not connected: a write to a closed connection could end the child by SIGPIPE.
        dead = _socket.socket(_socket.AF_UNIX)
    except OSError:  # no descriptor is free
        for number in numbers:
            os.close(number)
        return
    dead.setblocking(False)
    for number in numbers:
        os.dup2(dead.fileno(), number, inheritable=False)
    dead.close()


def _identity_of(descriptor: int) -> tuple[int, int] | None:
    """The device and inode of a socket. None: the descriptor is closed, or not that of a socket."""
    try:
        there = os.fstat(descriptor)
    except OSError:
        return None
    return (there.st_dev, there.st_ino) if stat.S_ISSOCK(there.st_mode) else None
