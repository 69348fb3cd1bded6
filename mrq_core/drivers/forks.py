"""Objects of a driver that start anew in a forked child.

A lock that another thread or greenlet holds at the moment of the fork stays locked in the child for ever,
also inside a client library that connects at that moment.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class StartsAnew(Protocol):
    """An object with connections and locks."""

    def start_anew(self) -> None:
        """Makes new locks, and leaves connections to the parent: neither uses nor closes them."""


_objects: WeakSet[StartsAnew] = WeakSet()


def start_anew_in_children(one: StartsAnew) -> None:
    """Calls `start_anew` in each child that this process forks from now on."""
    _objects.add(one)


def _in_child() -> None:
    for one in list(_objects):
        one.start_anew()


os.register_at_fork(after_in_child=_in_child)
