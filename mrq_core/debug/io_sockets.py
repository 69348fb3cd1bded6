"""Notes the waiting of gevent's sockets, of its resolvers, and for descriptors.

Sockets of gevent, also those of ssl, wait in one method, `_wait`, which is not documented: without it nothing
is noted, and a test fails. A call that need not wait costs nothing. The resolver of a hub is documented.
"""

from __future__ import annotations

import _socket
import select
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import gevent
import gevent.select
import gevent.selectors

from mrq_core.debug import io_texts
from mrq_core.debug.io_calls import JobIo, OpenCall, io_of_caller, noted
from mrq_core.debug.patching import replace
from mrq_core.debug.peers import LOOKUPS, SOCKETS, socket_text

_CONNECTING = "_internal_connect"


def trace_sockets() -> None:
    """Notes the waiting of sockets, and for descriptors, in this process."""
    replace(SOCKETS, "_wait", _tracing_wait)
    replace(gevent.select.poll, "poll", _tracing_poll)
    replace(gevent.selectors.GeventSelector, "select", _tracing_selector)
    for module in (gevent.select, select):
        replace(module, "select", _tracing_select)


def trace_lookups() -> None:
    """Notes the lookups of the resolver of the hub of this thread."""
    hub: Any = gevent.get_hub()
    if not isinstance(hub.resolver, TracedResolver):
        hub.resolver = TracedResolver(hub.resolver)


class TracedResolver:
    """Another resolver of gevent, whose lookups are noted."""

    def __init__(self, resolver: Any) -> None:
        self._resolver = resolver
        for name in LOOKUPS:
            setattr(self, name, _tracing_lookup(getattr(resolver, name)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._resolver, name)


def _tracing_lookup(original: Callable[..., Any]) -> Callable[..., Any]:
    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        io = io_of_caller()
        if io is None:
            return original(host, *args, **kwargs)
        return noted(io, OpenCall("dns", io_texts.host_lookup, host), original, host, *args, **kwargs)

    return lookup


# --- sockets ---------------------------------------------------------------------------------------


def _tracing_wait(original: Callable[..., Any]) -> Callable[..., Any]:
    def _wait(socket: Any, watcher: Any, timeout_exc: Any = None) -> Any:
        io = io_of_caller()
        if io is None:
            return original(socket, watcher, timeout_exc)
        caller = sys._getframe(1)
        name = caller.f_code.co_name
        if name == _CONNECTING:
            subject = (name, socket, caller.f_locals.get("address"))
            return noted(
                io, OpenCall("connect", socket_text, subject), original, socket, watcher, timeout_exc
            )
        label = io.label_of(socket)
        if label is not None:
            return _labelled(io, label, original, socket, watcher, timeout_exc)
        return noted(
            io, OpenCall("socket", socket_text, (name, socket, None)), original, socket, watcher, timeout_exc
        )

    return _wait


def _labelled(io: JobIo, call: OpenCall, original: Callable[..., Any], *args: Any) -> Any:
    """Waits, and shows that as the labelled call, which its library counts when it ends."""
    me = id(gevent.getcurrent())
    if me in io.open:
        return original(*args)
    try:
        io.open[me] = call
        return original(*args)
    finally:
        io.open.pop(me, None)


# --- descriptors -----------------------------------------------------------------------------------


def _tracing_poll(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def poll(self: Any, timeout: Any = None) -> Any:
        io = None if timeout == 0 else io_of_caller()
        place = None if io is None else _only_peer(list(self.fds))
        if io is None or place is None:
            return original(self, timeout)
        return noted(io, OpenCall("socket", io_texts.plain, place), original, self, timeout)

    return poll


def _tracing_selector(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def select(self: Any, timeout: Any = None) -> Any:
        is_quick = timeout is not None and timeout <= 0
        io = None if is_quick else io_of_caller()
        place = None if io is None else _only_peer(list(self.get_map() or ()))
        if io is None or place is None:
            return original(self, timeout)
        return noted(io, OpenCall("socket", io_texts.plain, place), original, self, timeout)

    return select


def _tracing_select(original: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(original)
    def select(rlist: Any, wlist: Any, xlist: Any, timeout: Any = None) -> Any:
        io = None if timeout == 0 else io_of_caller()
        is_known = isinstance(rlist, list | tuple) and isinstance(wlist, list | tuple)
        place = _only_peer([*rlist, *wlist]) if io is not None and is_known else None
        if io is None or place is None:
            return original(rlist, wlist, xlist, timeout)
        return noted(io, OpenCall("socket", io_texts.plain, place), original, rlist, wlist, xlist, timeout)

    return select


def _only_peer(descriptors: list[Any]) -> str | None:
    """``wait for 127.0.0.1:5432``, if this is one connected socket. None: no socket, several, or a socket
    without an address: the loop of asyncio waits for these, also while its code sleeps."""
    if len(descriptors) != 1:
        return None
    number = descriptors[0]
    try:
        socket = _socket.socket(fileno=number if type(number) is int else number.fileno())
    except Exception:  # another kind of descriptor, or an object of the task
        return None
    try:
        place = io_texts.address(socket.getpeername())
    except OSError:
        return None
    finally:
        socket.detach()  # the descriptor stays open
    return f"wait for {place}" if place else None
