"""Shares the trace function of `greenlet`, which it calls at each switch, between the worker and its tasks.

`greenlet` raises what the function raises in the greenlet that runs next, and removes it. Here only the
function of the task is removed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import greenlet
from gevent.monkey import get_original

_Trace = Callable[[str, Any], object]

_module: Any = greenlet
_get_ident: Callable[[], int] = get_original("_thread", "get_ident")
_set_trace: Callable[[_Trace | None], _Trace | None] = _module.settrace
_get_trace: Callable[[], _Trace | None] = _module.gettrace

_own: dict[int, _Trace] = {}
"""The functions of the worker, by native thread."""
_given: dict[int, _Trace] = {}
"""Those of tasks and debuggers."""


def guard_traces() -> None:
    """Takes the functions that tasks set from now on. A second call has no effect."""
    _module.settrace, _module.gettrace = _set_given, _get_given


def follow_switches(call: _Trace) -> None:
    """Calls this function of the worker at each switch of the thread, before one that a task has set."""
    found = _get_trace()
    if found not in (_call, None):
        _given[_get_ident()] = found
    _own[_get_ident()] = call
    _set_trace(_call)


def unfollow_switches() -> None:
    """No longer calls the function of the worker."""
    _own.pop(_get_ident(), None)
    _apply()


def _set_given(callback: _Trace | None, /) -> _Trace | None:
    earlier = _get_given()
    if callback is None:
        _given.pop(_get_ident(), None)
    else:
        _given[_get_ident()] = callback
    _apply()
    return earlier


def _get_given() -> _Trace | None:
    found = _get_trace()
    return _given.get(_get_ident()) if found is _call else found


def _apply() -> None:
    thread = _get_ident()
    _set_trace(_call if thread in _own or thread in _given else None)


def _call(event: str, greenlets: Any) -> None:
    thread = _get_ident()
    own, given = _own.get(thread), _given.get(thread)
    if own is not None:
        own(event, greenlets)
    if given is not None:
        try:
            given(event, greenlets)
        except BaseException:
            _given.pop(thread, None)
            _apply()
