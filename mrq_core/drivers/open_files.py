"""The file descriptors of this process: whether one is free, and that no connection gets one of 0 to 2.

A process without a free one can open no connection, and import no module.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from contextlib import suppress

from mrq_core.contract.exception_fields import cause_of, context_of
from mrq_core.errors import BrokerUnavailable

_MOST_CAUSES = 20
"""Causes of an error that are read."""
_STANDARD = 3
"""Descriptors below this are those of the standard streams."""
_number_of: Callable[[BaseException], object] = vars(OSError)["errno"].__get__


def are_used_up(error: BaseException | None) -> bool:
    """Whether the error, or one of its causes, says that this process has no free file descriptor."""
    for _ in range(_MOST_CAUSES):
        if error is None:
            return False
        if issubclass(type(error), OSError) and _number_of(error) == errno.EMFILE:
            return True
        error = cause_of(error) or context_of(error)
    return False


def are_used_up_but_for(number: int) -> bool:
    """Whether this process can open at most this many files now."""
    return _free_of(number + 1) <= number


def shortage(wanted: str, needed: int) -> str | None:
    """What is said if this process can open fewer files now than are needed. None: it can."""
    free = _free_of(needed)
    if free >= needed:
        return None
    return (
        f"{wanted} needs {needed} free file descriptors, and this process has {free} of "
        f"{os.sysconf('SC_OPEN_MAX')}: raise the limit of open files (ulimit -n), or close files"
    )


def _free_of(most: int) -> int:
    """How many files this process can open now, up to a number. All of them, if a file cannot be opened for
    another reason."""
    opened: list[int] = []
    try:
        while len(opened) < most:
            opened.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        return len(opened) if error.errno == errno.EMFILE else most
    finally:
        for descriptor in opened:
            os.close(descriptor)
    return most


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


def reserve_standard_descriptors() -> None:
    """Opens /dev/null at those of the descriptors 0 to 2 that are closed, as in a program that was
    started so. Call it before a client connects.

    The connection would get the number, and what C code prints there would go to the server as a command.
    """
    with suppress(OSError):  # the process may open nothing more, or there is no /dev/null
        while (found := os.open(os.devnull, os.O_RDWR)) < _STANDARD:
            pass
        os.close(found)
