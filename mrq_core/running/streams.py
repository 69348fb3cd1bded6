"""Standard streams that a task has closed, detached or set to another encoding."""

from __future__ import annotations

import io
import os
import sys
from collections import deque
from contextlib import suppress
from typing import Any

_STANDARD = (0, 1, 2)
_LAYERS, _LAYERS_MOST = ("buffer", "raw", "stream"), 5
"""The attributes under which a stream has the one that it writes to."""
_DELETED = object()
"""In the place of a stream that a task has deleted, without which `threading` starts no thread."""
_WRAPPERS_MOST = 100
"""Wrappers of tasks that are kept. Older ones are detached, so that their end closes nothing."""


def is_usable(stream: Any) -> bool:
    """Whether the stream is neither closed, detached nor deleted."""
    try:
        return stream is not _DELETED and getattr(stream, "closed", False) is not True
    except Exception:  # it has lost its buffer
        return False


class StandardStream:
    """`sys.stdout` or `sys.stderr`, as the worker has found it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream: Any = getattr(sys, name)
        self._settings = self._settings_now()
        self._wrappers: deque[Any] = deque()
        """Streams of tasks around the same descriptor, which Python closes with the last reference."""
        try:
            self._descriptor = self._stream.fileno()
        except Exception:  # not of a descriptor, or there is none
            self._descriptor = -1

    def is_in_place(self) -> bool:
        """Whether no task has put another in its place. Costs little."""
        return getattr(sys, self._name, None) is self._stream

    def is_intact(self) -> bool:
        """Whether the stream, and what a task may have put in its place, can be written. Costs little."""
        stream = self._stream
        try:
            if getattr(stream, "closed", False) is True:
                return False
        except Exception:  # it has lost its buffer
            return False
        now = getattr(sys, self._name, _DELETED)
        return now is stream or is_usable(now)

    def restore(self, *, is_alone: bool) -> None:
        """Sets the stream back, as a new one where it cannot be written. `is_alone`: also where another job
        may need what it has set. Raises OSError if the descriptor is closed."""
        if not is_usable(self._stream) and self._descriptor >= 0:
            raw = io.FileIO(self._descriptor, "w", closefd=False)
            self._stream = io.TextIOWrapper(io.BufferedWriter(raw), **self._settings)
        self.separate()
        now = getattr(sys, self._name, _DELETED)
        if now is not self._stream and (is_alone or not is_usable(now)):
            self._keep_wrapper(now)
            setattr(sys, self._name, self._stream)
        if is_alone and self._settings and self._settings_now() != self._settings:
            self._stream.reconfigure(**self._settings)

    def separate(self) -> None:
        """Gives a file that a task has put in the place of the stream, such as ``os.fdopen(1, "w")``, a copy
        of its descriptor: its end would close the standard descriptor. Never raises."""
        now = getattr(sys, self._name, None)
        if now is not self._stream:
            with suppress(BaseException):  # an object of a task
                raw = _file_of(now)
                if raw is not None and raw.closefd and raw.fileno() in _STANDARD:
                    _give_copy(raw)

    def _keep_wrapper(self, other: Any) -> None:
        raw = _raw_of(self._stream)
        if raw is not None and _raw_of(other) is raw:
            with suppress(BaseException):  # its class may be one of a task
                other.flush()
            self._wrappers.append(other)
            if len(self._wrappers) > _WRAPPERS_MOST:
                with suppress(Exception):
                    self._wrappers.popleft().detach()

    def _settings_now(self) -> dict[str, Any]:
        if not isinstance(self._stream, io.TextIOWrapper):
            return {}
        return {
            "encoding": self._stream.encoding,
            "errors": self._stream.errors,
            "line_buffering": self._stream.line_buffering,
            "write_through": self._stream.write_through,
        }


def _file_of(stream: Any) -> io.FileIO | None:
    """The open file below a stream of text or bytes, also of `codecs`. None: there is none."""
    for _ in range(_LAYERS_MOST):
        if isinstance(stream, io.FileIO):
            return None if stream.closed else stream
        stream = next((getattr(stream, name) for name in _LAYERS if hasattr(stream, name)), None)
    return None


def _give_copy(raw: io.FileIO) -> None:
    """Moves a file to a copy of its descriptor. The descriptor stays open, for a moment as the copy: `FileIO`
    closes it when it is told to use another."""
    number = raw.fileno()
    copy = os.dup(number)
    try:
        raw.__init__(copy, raw.mode)  # type: ignore[misc]
    finally:
        os.dup2(copy, number)


def _raw_of(stream: Any) -> Any:
    """What a stream of text writes to, below its buffer. None: nothing, or it is no such stream."""
    try:
        buffer = stream.buffer
        return getattr(buffer, "raw", buffer)
    except Exception:  # it is detached, or an object of a task
        return None
