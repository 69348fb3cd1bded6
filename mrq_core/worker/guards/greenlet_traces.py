"""Keeps what a trace function of `greenlet` raises from the switches between greenlets of the worker.

`greenlet` raises it in the greenlet that runs next, and removes the function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import greenlet

_set_trace: Any = greenlet.settrace


def guard_traces() -> None:
    """Keeps the exceptions of functions that are set from now on. A second call has no effect."""
    setattr(greenlet, "settrace", _set_guarded)  # noqa: B010


def _set_guarded(callback: Callable[[str, Any], object] | None, /) -> Any:
    return _set_trace(None if callback is None else partial(_call, callback))


def _call(callback: Callable[[str, Any], object], event: str, arguments: Any) -> None:
    try:
        callback(event, arguments)
    except BaseException:
        _set_trace(None)
