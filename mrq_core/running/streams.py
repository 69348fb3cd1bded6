"""Standard streams that a task has closed, detached or set to another encoding."""

from __future__ import annotations

import io
import sys
from typing import Any


def is_usable(stream: Any) -> bool:
    """Whether the stream is neither closed nor detached."""
    try:
        return not getattr(stream, "closed", False)
    except Exception:  # it has lost its buffer
        return False


class StandardStream:
    """`sys.stdout` or `sys.stderr`, as the worker has found it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._stream: Any = getattr(sys, name)
        self._settings = self._settings_now()
        try:
            self._descriptor = self._stream.fileno()
        except Exception:  # not of a descriptor, or there is none
            self._descriptor = -1

    def is_intact(self) -> bool:
        """Whether the stream can be written. Costs little."""
        return is_usable(self._stream)

    def restore(self, *, is_alone: bool) -> None:
        """Sets the stream back, as a new one where it cannot be written. `is_alone`: also where another job
        may need what it has set. Raises OSError if the descriptor is closed."""
        if not self.is_intact() and self._descriptor >= 0:
            broken = self._stream
            raw = io.FileIO(self._descriptor, "w", closefd=False)
            self._stream = io.TextIOWrapper(io.BufferedWriter(raw), **self._settings)
            if getattr(sys, self._name) is broken:
                setattr(sys, self._name, self._stream)
        if is_alone:
            setattr(sys, self._name, self._stream)
            if self._settings and self._settings_now() != self._settings:
                self._stream.reconfigure(**self._settings)

    def _settings_now(self) -> dict[str, Any]:
        if not isinstance(self._stream, io.TextIOWrapper):
            return {}
        return {
            "encoding": self._stream.encoding,
            "errors": self._stream.errors,
            "line_buffering": self._stream.line_buffering,
            "write_through": self._stream.write_through,
        }
