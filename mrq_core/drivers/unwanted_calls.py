"""Whether the caller still wants the call that a native thread makes for it.

A call that waits for a lock need not wait on for a caller that is interrupted.
"""

from __future__ import annotations

from contextvars import ContextVar


class Call:
    """A call of a broker, on its way in a native thread."""

    is_unwanted = False
    """Whether its caller waits for its end alone."""


current_call: ContextVar[Call | None] = ContextVar("mrq_call", default=None)
"""The call that this thread makes."""


def is_unwanted() -> bool:
    """Whether to end the call that this thread makes, as soon as nothing is half done."""
    call = current_call.get()
    return call is not None and call.is_unwanted
