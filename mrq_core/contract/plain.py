"""Plain values: text that UTF-8 can encode, and the str, int or float behind a value that a caller gives.

The type decides, not `isinstance`: an object may claim another class, as lazy strings, proxies and mocks do.
And what a subclass makes of a method does not count: `str.__str__` and its like read the value itself.
`mrq_core.errors` has the functions for text on terminals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard, TypeVar

from mrq_core.contract.signal_errors import raised_by_handler

T = TypeVar("T")


def has_type(value: object, kind: type[T]) -> TypeGuard[T]:
    """Whether the value has this type, or a type derived from it. The `isinstance` that cannot be lied to."""
    return issubclass(type(value), kind)


def from_other_copy(value: object, *kinds: type) -> str:
    """A hint for the end of an error about a value that has the type as another copy of mrq has it. Empty for
    any other value."""
    # `type.__repr__` shows module and name, whatever the class makes of these attributes.
    names = {type.__repr__(kind) for kind in kinds}
    classes = type.mro(value if has_type(value, type) else type(value))
    if any(one is kind for one in classes for kind in kinds) or names.isdisjoint(map(type.__repr__, classes)):
        return ""
    return (
        "; it belongs to another copy of mrq_core, which was removed from sys.modules and imported again: "
        "remove all modules that import mrq_core too, or start a new process"
    )


def is_mapping(value: object) -> TypeGuard[Mapping[Any, Any]]:
    """Like `has_type` with Mapping, which is abstract: Python hashes the type, by code of its metaclass."""
    kind = type(value)
    if issubclass(kind, dict):
        return True
    try:
        return issubclass(kind, Mapping)
    except Exception as error:
        if raised_by_handler(error) is not None:
            raise
        return False


def names_of_class(kind: type) -> tuple[str, str]:
    """The module and the qualified name of a class, whatever its metaclass makes of the attributes. ``?``: no
    text."""
    module, name = (type.__dict__[name].__get__(kind) for name in ("__module__", "__qualname__"))
    return text_of(module) or "?", text_of(name) or "?"


def text_of(value: object) -> str | None:
    """The value without a subclass of str: the value of an enum member, not its name. None: not a str."""
    if type(value) is str:
        return value
    return str.__str__(value) if has_type(value, str) else None


def whole_of(value: object) -> int | None:
    """The value as an int. None: not an int, or a bool."""
    kind = type(value)
    if kind is bool or not issubclass(kind, int):
        return None
    return int.__index__(value)  # type: ignore[arg-type]


def number_of(value: object) -> int | float | None:
    """The value as an int or float, which may be NaN. None: neither of them, or a bool."""
    if issubclass(type(value), float):
        return float.__float__(value)  # type: ignore[arg-type]
    return whole_of(value)


def printable(text: str) -> str:
    """The text with lone surrogates, which UTF-8 cannot encode, and NUL written as escapes."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8").replace("\0", "\\x00")


def is_utf8(text: str) -> bool:
    """Whether UTF-8 can encode the text: it has no lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
