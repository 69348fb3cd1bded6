"""A process without a free file descriptor: it can open no connection, and import no module."""

from __future__ import annotations

import errno
import os

from mrq_core.errors import BrokerUnavailable

_MOST_CAUSES = 20
"""Causes of an error that are read."""


def are_used_up(error: BaseException | None) -> bool:
    """Whether the error, or one of its causes, says that this process has no free file descriptor."""
    for _ in range(_MOST_CAUSES):
        if error is None:
            return False
        if isinstance(error, OSError) and error.errno == errno.EMFILE:
            return True
        error = error.__cause__ or error.__context__
    return False


def are_used_up_but_for(number: int) -> bool:
    """Whether this process can open at most this many files now."""
    opened: list[int] = []
    try:
        for _ in range(number + 1):
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return error.errno == errno.EMFILE
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return False


def advice() -> str:
    """What was found, and what to do."""
    return (
        f"this process has no free file descriptor, and may have {os.sysconf('SC_OPEN_MAX')} open files: "
        "close files or connections, or raise the limit (ulimit -n), and repeat the call"
    )


def require_one(wanted: str) -> None:
    """Raises BrokerUnavailable if no descriptor is free. Python would find no installed package then, and
    keep that answer."""
    if are_used_up_but_for(0):
        raise BrokerUnavailable(f"{wanted} needs an open file, and {advice()}")
