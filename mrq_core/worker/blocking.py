"""Work that blocks its thread, done in gevent's pool of native threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import gevent

from mrq_core.context import shielded

T = TypeVar("T")


def run_blocking(function: Callable[[], T], /) -> T:
    """Runs the function in a native thread while other greenlets go on, and returns what it returns.

    A job that is interrupted meanwhile sees the interrupt when the function has ended: a call to a
    broker is not left half done.
    """
    with shielded():
        value, error = gevent.get_hub().threadpool.apply(_caught, (function,))
    if error is not None:
        raise error
    return value  # type: ignore[return-value]


def _caught(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    # gevent prints what is raised in its pool; here it is the caller's to handle.
    try:
        return function(), None
    except BaseException as error:
        return None, error
