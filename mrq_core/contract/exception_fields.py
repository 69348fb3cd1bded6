"""Reads the fields of exceptions that other code has made.

The class of such an exception may have a `__getattribute__` that raises, or properties that hide the real
values. No subclass can replace these descriptors. For the same reason the type of an exception is asked by
`issubclass(type(error), ...)`: `isinstance` reads `__class__`.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

cause_of: Callable[[BaseException], BaseException | None] = vars(BaseException)["__cause__"].__get__
context_of: Callable[[BaseException], BaseException | None] = vars(BaseException)["__context__"].__get__
frames_of: Callable[[BaseException], TracebackType | None] = vars(BaseException)["__traceback__"].__get__
"""The traceback of an exception."""
values_of: Callable[[BaseException], dict[str, object]] = vars(BaseException)["__dict__"].__get__
"""The attributes that are not in the class."""
module_of: Callable[[BaseException], object] = vars(ImportError)["name"].__get__
"""The name of the module that an ImportError is about."""


def add_note(error: BaseException, note: str) -> None:
    """Adds the note, unless the exception has it. Calls no code of its class."""
    values = values_of(error)
    notes = values.get("__notes__")
    if type(notes) is not list:
        values["__notes__"] = [note]
    elif not any(type(one) is str and one == note for one in notes):
        notes.append(note)
