"""Code of the user that is loaded to make the client of a process: the config file and plugins.

Such code cannot have that client, and a thread that it waits for cannot either.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from mrq_core.drivers.forks import left_threads
from mrq_core.errors import ConfigError

if TYPE_CHECKING:
    from mrq_core.config.settings import Config


class Loading(NamedTuple):
    """What this code is loaded for: the config file, or the plugins of a configuration."""

    what: str
    config: Config | None


is_loading: ContextVar[Loading | None] = ContextVar("mrq_loading", default=None)
"""Set while code of the user is loaded that must not ask for the client of the process: that client is made
of what is being loaded."""


_loaders: dict[object, tuple[int, Loading]] = {}
"""What is loaded now, with the id of the thread that loads it."""
_PATIENCE = 60.0
"""Seconds to wait for another thread that loads code."""


@contextmanager
def loading(what: Loading) -> Iterator[None]:
    """Marks the code of the block as being loaded. Waits for other threads that load code. Raises ConfigError
    if such a thread waits for this one."""
    if is_loading.get() is None:
        _wait_for_others("the configuration" if what.config is None else "the client of this process")
    token, key = is_loading.set(what), object()
    _loaders[key] = threading.get_ident(), what
    try:
        yield
    finally:
        is_loading.reset(token)
        del _loaders[key]


def loaded_now() -> Loading | None:
    """What this code is loaded for. Also in a thread whose end the loaded code waits for in `Thread.join`."""
    code = is_loading.get()
    others = _loaders_elsewhere() if code is None else {}
    if not others:
        return code
    waits = dict(_joined_threads())
    awaited = {threading.get_ident()}
    while more := {thread for thread, other in waits.items() if other in awaited} - awaited:
        awaited |= more
    return next((what for thread, what in others.items() if thread in awaited), None)


def _loaders_elsewhere() -> dict[int, Loading]:
    """What other threads load now. Greenlets of a process that gevent has not patched are one thread."""
    here = threading.get_ident()
    return {thread: what for thread, what in list(_loaders.values()) if thread != here}


def _wait_for_others(wanted: str) -> None:
    deadline = time.monotonic() + _PATIENCE
    while others := _loaders_elsewhere():
        refuse_while_loading(wanted)
        if time.monotonic() > deadline:
            what = next(iter(others.values())).what
            raise ConfigError(
                f"{wanted} cannot be loaded: another thread has been loading {what} for {_PATIENCE:g} s, and "
                "does not end, or waits for this thread"
            )
        time.sleep(0.005)


def refuse_while_loading(wanted: str) -> None:
    """Raises ConfigError in code that is loaded while the client of the process is made, and in threads that
    this code waits for."""
    code = loaded_now()
    if code is not None:
        raise ConfigError(
            f"{wanted} was asked for while {code.what} is being loaded, and is not ready before that has "
            "ended: ask for it in a function that is called later, such as a task or a hook"
        )


def _in_child() -> None:
    """Forgets what other threads of the parent load: they do not exist here."""
    left = left_threads()
    for key, (thread, _) in list(_loaders.items()):
        if thread in left:
            del _loaders[key]


def _joined_threads() -> Iterator[tuple[int, int | None]]:
    """The ids of threads that wait for the end of another thread, with the id of the other thread."""
    for thread, frame in sys._current_frames().items():
        walked: FrameType | None = frame
        while walked is not None:
            if walked.f_code is threading.Thread.join.__code__:
                yield thread, walked.f_locals["self"].ident
                break
            walked = walked.f_back


os.register_at_fork(after_in_child=_in_child)
