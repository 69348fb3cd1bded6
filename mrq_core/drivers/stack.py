"""Room on the stack for a call of a client library.

A RecursionError can come in any call of a function, also in the one that gives a lock back: the lock then
stays taken, and all others who use the client wait for ever. Therefore a call that would run out of stack on
its way is refused before it begins.
"""

from __future__ import annotations

import sys

_NEEDED = 200
"""Calls of functions, one inside the other, that a call of a client library may make."""


def ensure_stack() -> None:
    """Raises RecursionError unless there is room for a call of a client library. Takes 0.2 µs, and ten if a
    third of the stack is in use."""
    limit = sys.getrecursionlimit()
    try:
        sys._getframe(limit // 3)
    except ValueError:  # the stack is not that deep
        return
    _descend(min(_NEEDED, limit // 4))


def _descend(levels: int) -> None:
    if levels:
        _descend(levels - 1)
