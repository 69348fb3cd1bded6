"""Reads the fields of what stands in `sys.modules`: a module of a user may replace itself by an object whose
attributes raise."""

from __future__ import annotations

from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


def fields_of_module(module: object) -> dict[str, Any]:
    """The names in a module, whatever its class makes of them. Empty for another object."""
    if not issubclass(type(module), ModuleType):
        return {}
    found: dict[str, Any] = vars(ModuleType)["__dict__"].__get__(module)
    return found


def spec_of(module: object) -> ModuleSpec | None:
    """The spec of a module. None: no module, or it has none."""
    spec = fields_of_module(module).get("__spec__")
    return spec if issubclass(type(spec), ModuleSpec) else None


def is_initializing(module: object) -> bool:
    """Whether the import of the module has not ended."""
    spec = spec_of(module)
    return spec is not None and bool(object.__getattribute__(spec, "__dict__").get("_initializing"))
