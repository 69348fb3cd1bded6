"""Replaces functions of libraries, now or when they are imported."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping
from functools import WRAPPER_ASSIGNMENTS, update_wrapper
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_log = logging.getLogger("mrq.worker")
_MARK = "__mrq_traces__"


def replace(owner: Any, name: str, make: Callable[[Any], Any]) -> None:
    """Replaces a function of a class or module by `make` of it, once. Has no effect where there is no such
    function."""
    original = vars(owner).get(name)
    if original is None or getattr(original, _MARK, False):
        return
    replacement = make(original)
    assigned = [one for one in WRAPPER_ASSIGNMENTS if hasattr(original, one)]
    update_wrapper(replacement, original, assigned=assigned, updated=())
    setattr(replacement, _MARK, True)
    setattr(owner, name, replacement)


class ImportHook:
    """Calls a function for each of these modules: at once if it is imported, else right after its import.

    Comes first on `sys.meta_path`, and leaves finding and loading to the other finders.
    """

    def __init__(self, wanted: Mapping[str, Callable[[Any], None]]) -> None:
        self._wanted = dict(wanted)

    def install(self) -> None:
        """From now on, also for modules that are imported already."""
        for name in self._wanted:
            module = sys.modules.get(name)
            if module is not None:
                self._call(name, module)
        sys.meta_path.insert(0, self)

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The module as another finder finds it, with a loader that calls the function. None: not wanted."""
        if name not in self._wanted:
            return None
        for finder in list(sys.meta_path):
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                self._watch(name, spec)
                return spec
        return None

    def _watch(self, name: str, spec: ModuleSpec) -> None:
        loader: Any = spec.loader
        execute = getattr(loader, "exec_module", None)
        if execute is None:
            return

        def exec_module(module: ModuleType) -> None:
            execute(module)
            self._call(name, module)

        try:
            loader.exec_module = exec_module
        except (AttributeError, TypeError):  # a loader that is a class, or has slots
            _log.warning("io.not_traced module=%s: its loader cannot be watched", name)

    def _call(self, name: str, module: ModuleType) -> None:
        """Calls the function. Never raises an Exception: a library of another version must still work."""
        try:
            self._wanted[name](module)
        except Exception as error:
            _log.warning("io.not_traced module=%s error=%r", name, error)
