"""Imports of tasks in a worker: one at a time, because modules that import each other fail if two greenlets
import them at once. An import that takes long lets the next one begin.

Python then hands out a module whose import another greenlet has begun, also if that import is interrupted in
the meantime. What was built on such a half module is imported anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from math import inf
from types import FunctionType, ModuleType
from typing import Any

from gevent.lock import Semaphore

from mrq_core.clock import monotonic
from mrq_core.contract.exception_fields import cause_of, frames_of
from mrq_core.drivers.forks import forget_module
from mrq_core.errors import Interrupt
from mrq_core.worker.executions import Execution

_PATIENCE = 3.0
"""Seconds that an import takes before the next one begins beside it."""
_SLICE = 0.1

Namespace = dict[str, Any]


class Imports:
    """The turns of imports, and the half modules that they have left."""

    def __init__(self) -> None:
        self._turn = Semaphore(1)
        self._began = inf
        """When the import that has the turn began. Infinite: none has it."""
        self._running = 0
        self._half: list[Namespace] = []
        """The namespaces of modules whose import has failed beside another import."""

    @contextmanager
    def turn(self, execution: Execution) -> Iterator[Interrupt | None]:
        """Waits for the turn of the execution. The value is the interrupt that has ended the wait."""
        interrupt, has_turn = None, False
        while not has_turn and interrupt is None and monotonic() < self._began + _PATIENCE:
            has_turn = bool(self._turn.acquire(timeout=_SLICE))
            interrupt = execution.interrupt_at(monotonic())
        if has_turn:
            self._began = monotonic()
        try:
            yield interrupt
        finally:
            if has_turn:
                self._began = inf
                self._turn.release()

    def run(
        self, load: Callable[[], BaseException | None], forget: Callable[[], None]
    ) -> BaseException | None:
        """Loads a task, and returns the error. Forgets it and loads it again if it is built on a half
        module."""
        known = set(sys.modules)
        self._running += 1
        try:
            error = load()
            if error is not None and self._running > 1:
                self._half += _half_modules(error)
            elif error is None and self._half:
                built = _built_on(self._half, known)
                for name in built:
                    forget_module(name)
                if built:
                    forget()
                    error = load()
            return error
        finally:
            self._running -= 1
            if not self._running:
                self._half = []


def _half_modules(error: BaseException) -> list[Namespace]:
    """The namespaces of the modules whose code the error has ended."""
    found = []
    for one in (error, cause_of(error)):
        step = None if one is None else frames_of(one)
        while step is not None:
            frame = step.tb_frame
            if frame.f_code.co_name == "<module>" and _is_gone(frame.f_globals):
                found.append(frame.f_globals)
            step = step.tb_next
    return found


def _is_gone(namespace: Namespace) -> bool:
    module = sys.modules.get(str(namespace.get("__name__")))
    return module is None or getattr(module, "__dict__", None) is not namespace


def _built_on(half: Collection[Namespace], known: Collection[str]) -> list[str]:
    """The modules that were imported since `known` and that refer to half modules, or to modules that do."""
    left = {name: vars(module) for name, module in sys.modules.copy().items()
            if name not in known and type(module) is ModuleType}  # fmt: skip
    spoilt = {id(namespace) for namespace in half}
    found: list[str] = []
    while True:
        more = [name for name, namespace in left.items() if _refers(namespace, spoilt)]
        if not more:
            return found
        spoilt |= {id(left.pop(name)) for name in more}
        found += more


def _refers(namespace: Namespace, spoilt: Collection[int]) -> bool:
    """Whether a module has one of these modules, or a function of one, among its names."""
    for value in list(namespace.values()):
        kind = type(value)
        if kind is ModuleType and id(vars(value)) in spoilt:
            return True
        if kind is FunctionType and id(value.__globals__) in spoilt:
            return True
    return False
