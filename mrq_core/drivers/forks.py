"""What starts anew in a forked child: objects of a driver, and imports.

A lock that another thread or greenlet holds at the moment of the fork stays locked in the child for ever,
also inside a client library that connects at that moment, and the lock of a module that is being imported.
"""

from __future__ import annotations

import _thread
import gc
import os
import sys
from collections.abc import Callable, Container
from importlib.machinery import ExtensionFileLoader
from typing import Any, Protocol
from weakref import WeakSet

from mrq_core.contract.module_fields import spec_of
from mrq_core.drivers import child_sockets
from mrq_core.errors import BrokerUnavailable
from mrq_core.frames import current_frames


class StartsAnew(Protocol):
    """An object with connections and locks."""

    def start_anew(self) -> None:
        """Makes new locks, and leaves connections to the parent: neither uses nor ends them."""


_INNER = ("gevent", "mrq_core")
_objects: WeakSet[StartsAnew] = WeakSet()
_leaves_loop_alone = False
_threads: set[int] = set()
"""The native threads at the moment of the last fork."""


def start_anew_in_children(one: StartsAnew) -> None:
    """Calls `start_anew` in each child that this process forks from now on."""
    _objects.add(one)


def leave_loop_alone() -> None:
    """For a process whose children get another hub of gevent, as those of a worker. The event loop of the
    parent then may not be touched: it would lose the events of connections."""
    global _leaves_loop_alone
    _leaves_loop_alone = True


def left_in_parent(where: str) -> BrokerUnavailable:
    """The error of a call, in a child that was forked amid it."""
    return BrokerUnavailable(
        f"this process was forked while its parent called {where}: the call goes on in the parent, and has "
        "no answer here"
    )


def call_others_outside(*hooks: Callable[[], object]) -> None:
    """Makes hooks for forks that other code has registered before these, such as a tracer that is started
    with Python, run before those of mrq before a fork, and after them in the parent and in the child: they
    may start threads, or wait, so that others go on meanwhile. Hooks of modules that Python and gevent bring
    stay where they are.

    Python has lists of the hooks, which it hides, and calls those before a fork in reverse.
    """
    for referrer in gc.get_referrers(*hooks):
        if type(referrer) is list:
            referrer.sort(key=_is_of_others)


def _is_of_others(hook: Any) -> bool:
    hook = getattr(hook, "func", hook)  # of functools.partial
    module = getattr(hook, "__module__", None) or type(getattr(hook, "__self__", hook)).__module__
    package = str(module).partition(".")[0]
    return package not in sys.stdlib_module_names and package not in _INNER


def forget_imports(*, of: Container[int] | None = None) -> None:
    """In a child: forgets the modules that these threads were importing. None: all threads and greenlets but
    this one.

    Those imports never end here, and an import of the child would wait for them.
    """
    machinery: Any = sys.modules["_frozen_importlib"]
    threading: Any = sys.modules.get("threading")  # gevent patches it better before it is imported
    if threading is None:
        return
    me = threading.get_ident()
    for name, reference in list(machinery._module_locks.items()):
        lock = reference()
        owner = me if lock is None or lock.owner is None else lock.owner
        if owner != me and (of is None or owner in of):
            machinery._module_locks.pop(name, None)
            forget_module(name)


def is_importing() -> bool:
    """Whether this thread, or a greenlet in it, imports a module now."""
    machinery: Any = sys.modules["_frozen_importlib"]
    me = _thread.get_ident()
    locks = [reference() for reference in list(machinery._module_locks.values())]
    return any(lock is not None and lock.owner == me for lock in locks)


def forget_module(name: str) -> None:
    """Forgets a module, and what it has imported of its package: only their import adds them to the package.
    Modules in C stay: many of them cannot be loaded twice."""
    for part in [name, *(other for other in list(sys.modules) if other.startswith(f"{name}."))]:
        spec = spec_of(sys.modules.get(part))
        if spec is None or not isinstance(spec.loader, ExtensionFileLoader):
            sys.modules.pop(part, None)


def left_threads() -> set[int]:
    """The ids of the native threads that the fork has left in the parent. For hooks of
    `os.register_at_fork` in the child."""
    return _threads - set(current_frames())


def _before() -> None:
    global _threads
    _threads = set(current_frames())


def _in_child() -> None:
    _renew_loop()
    child_sockets.leave_to_parent()
    forget_imports(of=left_threads())
    for one in list(_objects):
        one.start_anew()


def _renew_loop() -> None:
    """gevent does so itself after the fork, which is too late for hooks in the child that make calls: they
    would wait in the event loop of the parent."""
    gevent: Any = sys.modules.get("gevent")
    reinit = getattr(gevent, "reinit", None)  # None: gevent is being imported
    if reinit is not None and not _leaves_loop_alone:
        reinit()


os.register_at_fork(before=_before, after_in_child=_in_child)
