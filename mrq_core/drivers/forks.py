"""What starts anew in a forked child: objects of a driver, and imports.

A lock that another thread or greenlet holds at the moment of the fork stays locked in the child for ever,
also inside a client library that connects at that moment, and the lock of a module that is being imported.
"""

from __future__ import annotations

import os
import sys
from typing import Any, Protocol
from weakref import WeakSet


class StartsAnew(Protocol):
    """An object with connections and locks."""

    def start_anew(self) -> None:
        """Makes new locks, and leaves connections to the parent: neither uses nor closes them."""


_objects: WeakSet[StartsAnew] = WeakSet()


def start_anew_in_children(one: StartsAnew) -> None:
    """Calls `start_anew` in each child that this process forks from now on."""
    _objects.add(one)


def forget_imports(*, of: tuple[str, ...] = ("",)) -> None:
    """In a child: forgets the modules that other threads and greenlets were importing.

    Those imports never end here, and an import of the child would wait for them. `of`: forgets all of them if
    one of the names begins with one of these, and otherwise none.
    """
    machinery: Any = sys.modules["_frozen_importlib"]
    threading: Any = sys.modules.get("threading")  # gevent patches it better before it is imported
    if threading is None:
        return
    me = threading.get_ident()
    locks = [(name, reference()) for name, reference in list(machinery._module_locks.items())]
    left = [name for name, lock in locks if lock is not None and lock.owner not in (None, me)]
    if any(name.startswith(of) for name in left):
        for name in left:
            machinery._module_locks.pop(name, None)
            sys.modules.pop(name, None)


def _in_child() -> None:
    forget_imports(of=("mrq",))
    for one in list(_objects):
        one.start_anew()


os.register_at_fork(after_in_child=_in_child)
