"""Work that blocks its thread, done in gevent's pool of native threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import gevent

from mrq_core.context import shielded

T = TypeVar("T")


def run_blocking(function: Callable[[], T], /) -> T:
    """Runs the function in a native thread while other greenlets go on, and returns what it returns.

    Never left before the function has ended, so that what it uses is not used by two threads: a
    greenlet that is interrupted or killed meanwhile sees that when the function is done.
    """
    ended: list[T] = []
    failed: list[BaseException] = []

    def work() -> None:
        # gevent prints what is raised in its pool; here it is the caller's to handle.
        try:
            ended.append(function())
        except BaseException as error:
            failed.append(error)

    with shielded():
        thread = gevent.get_hub().threadpool.spawn(work)
        interrupt: BaseException | None = None
        while not thread.ready():
            try:
                thread.wait()
            except BaseException as error:
                interrupt = error
        if interrupt is not None:
            raise interrupt
    if failed:
        raise failed[0]
    return ended[0]
