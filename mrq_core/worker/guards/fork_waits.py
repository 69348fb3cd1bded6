"""Sockets, pipes and selectors of before a fork wait with the hub of the child.

gevent gives each of them watchers of the hub's loop, and the child has another hub and another loop. They
change over when the child first waits with them, or closes them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from gevent import socket
from gevent._fileobjectposix import GreenFileDescriptorIO  # type: ignore[import-not-found]
from gevent.event import Event
from gevent.hub import get_hub
from gevent.selectors import GeventSelector

_READ, _WRITE = 1, 2
_kept: list[object] = []
"""The watchers of loops that are gone, which must not be deleted."""
_is_left: Callable[[object], bool]
_socket: Any = socket.socket
_file: Any = GreenFileDescriptorIO
"""The pipes of `subprocess`, for example."""


def follow_hub(is_left: Callable[[object], bool]) -> None:
    """In a forked child. `is_left`: whether a hub is one of the parent."""
    global _is_left
    is_first = not _kept
    _is_left = is_left
    if is_first:
        _kept.append(None)
        for name in ("select", "register", "unregister", "close"):
            setattr(GeventSelector, name, _with_own_hub(getattr(GeventSelector, name), _move_selector))
        for name in ("_drop_events_and_close", "shutdown"):
            setattr(_socket, name, _with_own_hub(getattr(_socket, name), _move_socket))
        for name in ("readall", "readinto", "write", "close"):
            setattr(_file, name, _with_own_hub(getattr(_file, name), _move_file))
        setattr(_socket, "_wait", _waiting(_socket._wait))  # noqa: B010


def _with_own_hub(method: Callable[..., Any], move: Callable[[Any], None]) -> Callable[..., Any]:
    @wraps(method)
    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        move(self)
        return method(self, *arguments, **named)

    return call


def _waiting(wait: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(wait)
    def call(self: Any, watcher: Any, *arguments: Any, **named: Any) -> Any:
        is_read = watcher is self._read_event
        _move_socket(self)
        return wait(self, self._read_event if is_read else self._write_event, *arguments, **named)

    return call


def _move_selector(selector: Any) -> None:
    if not _is_left(vars(selector).get("hub")):
        return
    _kept.append((selector._active_watchers, selector._inactive_watchers))
    selector.hub, selector._ready, selector._active_watchers = get_hub(), Event(), {}
    selector._accumulated_events.clear()
    selector._inactive_watchers = {
        key.fd: selector.hub.loop.io(key.fd, key.events) for key in selector.get_map().values()
    }


def _move_socket(moved: Any) -> None:
    if not _is_left(moved.hub) or moved._sock is None or moved._sock.fileno() < 0:
        return
    _kept.append((moved._read_event, moved._write_event))
    moved.hub = hub = get_hub()
    number = moved._sock.fileno()
    moved._read_event, moved._write_event = hub.loop.io(number, _READ), hub.loop.io(number, _WRITE)


def _move_file(moved: Any) -> None:
    if moved.closed or not _is_left(moved.hub):
        return
    _kept.append((moved._read_watcher, moved._write_watcher))
    moved.hub = hub = get_hub()
    if moved._read_watcher is not None:
        moved._read_watcher = hub.loop.io(moved.fileno(), _READ)
    if moved._write_watcher is not None:
        moved._write_watcher = hub.loop.io(moved.fileno(), _WRITE)
