"""Code of the user that is loaded to make the client of a process: the config file and plugins.

Such code cannot have that client, and a thread or greenlet that it waits for cannot either. Other threads
wait until the code is loaded.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from types import FrameType
from typing import TYPE_CHECKING, NamedTuple

from mrq_core.clock import monotonic
from mrq_core.config.awaited import SpawnMark, awaits, is_in_wait, sleep
from mrq_core.drivers.forks import left_threads
from mrq_core.errors import ConfigError, shown_error
from mrq_core.frames import current_frames

if TYPE_CHECKING:
    from mrq_core.config.settings import Config


class Loading(NamedTuple):
    """The code that is loaded, as errors name it, and the configuration for which: None for a config file."""

    what: str
    config: Config | None


is_loading: ContextVar[Loading | None] = ContextVar("mrq_loading", default=None)
"""Set while code of the user is loaded that must not ask for the client of the process: that client is made
of what is being loaded."""


class _Loader(NamedTuple):
    """Who loads code."""

    thread: int
    """The id of the thread; in a process that gevent has patched, of the greenlet."""
    native_thread: int
    mark: SpawnMark
    what: Loading

    def frame(self) -> FrameType | None:
        """The innermost frame. None: not known."""
        is_here = self.native_thread == threading.get_native_id()
        greenlet = self.mark.spawner() if is_here else self.mark.greenlet
        suspended: FrameType | None = getattr(greenlet, "gr_frame", None)
        return suspended or current_frames().get(self.thread)

    def has_spawned_this(self) -> bool:
        """Whether this code runs in a greenlet that the loaded code has spawned."""
        return self.native_thread == threading.get_native_id() and self.mark.is_on_caller()


_loaders: dict[object, _Loader] = {}
_PATIENCE = 60.0
"""Seconds to wait for another thread that loads code."""
_PATIENCE_WITH_WAIT = 10.0
"""Seconds to wait while that thread waits for a third thread, or for this one."""
_PATIENCE_WITH_SPAWNER = 2.0
"""Seconds to wait in a greenlet while the greenlet that has spawned it does not go on."""
_KINDS = ("the config file", "the plugin", "the driver")
"""How the names of loaded code begin."""
_CHECK_INTERVAL = 0.05
"""Seconds between two checks whether that thread waits for this one."""


@contextmanager
def loading(what: Loading) -> Iterator[Callable[[str], None]]:
    """Marks the code of the block as being loaded. Waits for other threads that load code. Raises ConfigError
    if such a thread waits for this one.

    The block gets a function, which it calls with the name of the code that is loaded next."""
    code = is_loading.get()
    # A thread that is given the context of the loader would wait for modules which the loader imports.
    if code is None or (what.config is not None and not _is_loader()):
        wanted = "the configuration" if what.config is None else "the client of this process"
        refuse_while_loading(wanted)
        waiting = LoadWait(wanted)
        while _loaders_elsewhere():
            waiting.pause()
    before, key, mark = is_loading.get(), object(), SpawnMark()
    loader = _Loader(threading.get_ident(), threading.get_native_id(), mark, what)
    try:  # changes nothing before the block: a signal handler may raise between
        is_loading.set(what)
        _loaders[key] = loader
        mark.set()

        def go_on(name: str) -> None:
            named = what._replace(what=name)
            is_loading.set(named)
            _loaders[key] = loader._replace(what=named, native_thread=threading.get_native_id())

        yield go_on
    finally:
        mark.remove()
        is_loading.set(before)
        _loaders.pop(key, None)


@contextmanager
def loading_again(what: Loading) -> Iterator[None]:
    """Marks the code of the block as being loaded in this thread, where the same code was loaded before for
    another thread. Waits for no one: short native threads may come and go in large numbers."""
    before = is_loading.get()
    try:
        is_loading.set(what)
        yield
    finally:
        is_loading.set(before)


def loaded_now() -> Loading | None:
    """What this code is loaded for. Also in a thread or greenlet for which the loaded code waits."""
    code = is_loading.get()
    if code is not None or not _loaders:
        return code
    here = threading.get_ident()
    for loader in list(_loaders.values()):
        # In a process that gevent has not patched: no wait of ours would let the loader go on.
        if loader.thread == here and loader.has_spawned_this():
            return loader.what
    others = {loader.thread: loader for loader in _loaders_elsewhere()}
    if not others:
        return None
    frames = {**current_frames(), here: sys._getframe()}
    for thread, loader in others.items():
        frame = loader.frame()
        if frame is not None:
            frames[thread] = frame
    found = awaits(others, here, frames)
    return None if found is None else others[found].what


def _is_loader() -> bool:
    """Whether this thread loads code. Greenlets of a process that gevent has not patched are one thread."""
    here = threading.get_ident()
    return any(loader.thread == here for loader in list(_loaders.values()))


def _loaders_elsewhere() -> list[_Loader]:
    """Other threads that load code. Greenlets of a process that gevent has not patched are one thread."""
    here = threading.get_ident()
    return [loader for loader in list(_loaders.values()) if loader.thread != here]


class LoadWait:
    """A wait for another thread that loads code. Ends with a ConfigError if that thread seems to wait for
    this one: a loader that goes on is waited for longer than one that waits itself."""

    def __init__(self, wanted: str) -> None:
        self._wanted = wanted
        self._began = self._checked = monotonic()
        self._position: object = None
        self._in_place_since = self._began

    def pause(self) -> None:
        """Sleeps for some milliseconds. Raises ConfigError if the loader waits for this thread, or after the
        patience of this module."""
        now = monotonic()
        if now > self._checked + _CHECK_INTERVAL:
            self._checked = now
            refuse_while_loading(self._wanted)
            self._refuse_after_patience(now)
        sleep(0.002)

    def _refuse_after_patience(self, now: float) -> None:
        loader = next(iter(_loaders_elsewhere()), None)
        # The frame itself, not its id, which another frame may have later.
        frame = loader.frame() if loader is not None else None
        position = (frame, frame.f_lasti) if frame is not None else None
        if position is None or position != self._position:
            self._position, self._in_place_since = position, now
        in_place = now - self._in_place_since
        is_spawner = loader is not None and loader.has_spawned_this()
        if (
            now - self._began > _PATIENCE
            or (frame is not None and is_in_wait(frame) and in_place > _PATIENCE_WITH_WAIT)
            or (is_spawner and in_place > _PATIENCE_WITH_SPAWNER)
        ):
            what, seconds = loader.what.what if loader is not None else self._wanted, now - self._began
            raise ConfigError(
                f"{self._wanted} is not ready: another thread has been loading {what} for {seconds:.1f} s, "
                "and does not end, or waits for this thread. If it waits, call mrq in a function that is "
                "called later, such as a task or a hook"
            )


def refuse_while_loading(wanted: str) -> None:
    """Raises ConfigError in code that is loaded while the client of the process is made, and in threads and
    greenlets that this code waits for."""
    code = loaded_now()
    if code is not None:
        raise ConfigError(
            f"{wanted} was asked for while {code.what} is being loaded, and is not ready before that has "
            "ended: ask for it in a function that is called later, such as a task or a hook"
        )


def told_of(code: str, error: BaseException) -> str:
    """The type and the text of an error of this code, for a message that begins with the name of the code.

    The code is not named twice: errors of this module name it, too."""
    text = shown_error(error)
    if issubclass(type(error), ConfigError):
        kind = next((kind for kind in _KINDS if code.startswith(kind)), "the code")
        for before, after in ((" while ", " is being loaded"), (" loading ", " for ")):
            text = text.replace(f"{before}{code}{after}", f"{before}{kind}{after}")
    return text


def _in_child() -> None:
    """Forgets what other threads of the parent load: they do not exist here."""
    left = left_threads()
    for key, loader in list(_loaders.items()):
        if loader.thread in left:
            del _loaders[key]
        else:
            _loaders[key] = loader._replace(native_thread=threading.get_native_id())


os.register_at_fork(after_in_child=_in_child)
