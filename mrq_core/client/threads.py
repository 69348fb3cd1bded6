"""One broker for each native thread of a process that gevent has patched.

The sockets and locks of a broker then belong to the hub of one native thread, and cannot be used in another,
such as those of gevent's thread pool. In an unpatched process all threads share one broker.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakSet

from mrq_core.contract.broker import Broker


class ThreadBrokers:
    """The broker of a client, and those that other native threads have opened."""

    def __init__(self, broker: Broker, open_another: Callable[[], Broker]) -> None:
        self._broker = broker
        self._open_another = open_another
        self._owner: int | None = None
        """The native thread that uses the broker of the client."""
        self._own: Any = None
        """What each other native thread has opened."""
        self._opened: WeakSet[_Opened] = WeakSet()

    def current(self) -> Broker:
        """The broker for the calling thread. Opens one if the thread needs its own and has none."""
        monkey: Any = sys.modules.get("gevent.monkey")
        if monkey is None or not self._broker.is_shared or not monkey.is_module_patched("socket"):
            return self._broker
        thread = monkey.get_original("_thread", "get_ident")()
        if self._owner is None:
            self._own = monkey.get_original("threading", "local")()
            self._owner = thread
        if thread == self._owner:
            return self._broker
        opened: _Opened | None = getattr(self._own, "opened", None)
        if opened is None:
            opened = self._own.opened = _Opened(self._open_another())
            self._opened.add(opened)
        return opened.broker

    def close(self) -> None:
        """Closes all of them, those of other threads as far as this thread can: their sockets belong to the
        hubs of those threads."""
        self._broker.close()
        for opened in list(self._opened):
            with suppress(Exception):
                opened.broker.close()


_inherited: list[Broker] = []
"""Brokers of threads of the parent process: a child may neither use nor close their connections."""


class _Opened:
    """The broker of one native thread, closed when the thread ends."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self._process = os.getpid()

    def __del__(self) -> None:
        # A fork ends the other threads in the child before any hook of the child is called. To close their
        # connections there would say goodbye to the server on the connections of the parent.
        if self._process != os.getpid():
            _inherited.append(self.broker)
            return
        try:
            self.broker.close()
        except BaseException:  # the hub of the thread is gone already
            pass
