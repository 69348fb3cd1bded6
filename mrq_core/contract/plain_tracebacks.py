"""Formats exceptions whose attributes may raise.

The module `traceback` reads attributes of an exception, and its class may make them raise anything. Here the
fields of `BaseException` and `type` are read through their descriptors, which no subclass can replace. The
only code of the class that is called is `__str__`.
"""

from __future__ import annotations

import linecache
import logging
from collections.abc import Callable, Iterator, Set
from types import TracebackType
from typing import Any

from mrq_core.contract.exception_fields import cause_of, context_of, frames_of, values_of
from mrq_core.contract.plain import printable
from mrq_core.errors import on_one_line, type_name

HEAD, TAIL = 20_000, 60_000
"""Characters at both ends of a long traceback that are kept."""
_NAME = 500
"""Characters of the name of an exception that are kept."""
_OUTER, _INNER = 20, 10
"""Of more exceptions this many at both ends of the chain are shown, and of a group the first ones."""
_FIRST_FRAMES, _LAST_FRAMES = 100, 200
_MOST = 100
"""The most exceptions that are examined."""
_READ = frozenset(
    {
        *("__getattribute__", "__getattr__", "__class__", "__traceback__", "__cause__", "__context__"),
        *("__suppress_context__", "__notes__"),
    }
)
"""The names of attributes that `traceback` and log formatters read, and of the code that reads attributes."""
_READ_OF_CLASS = frozenset({"__getattribute__", "__getattr__", "__name__", "__qualname__"})
_IS_HEAP_TYPE = 1 << 9
"""The flag of classes that are no part of the interpreter (Py_TPFLAGS_HEAPTYPE)."""

_name_of: Callable[[type], object] = vars(type)["__qualname__"].__get__
_module_of: Callable[[type], object] = vars(type)["__module__"].__get__
_bases_of: Callable[[type], tuple[type, ...]] = vars(type)["__mro__"].__get__
_flags_of: Callable[[type], int] = vars(type)["__flags__"].__get__
_names_in: Callable[[type], Any] = vars(type)["__dict__"].__get__
_hides_context: Callable[[BaseException], bool] = vars(BaseException)["__suppress_context__"].__get__
members_of: Callable[[BaseException], tuple[BaseException, ...]]
members_of = vars(BaseExceptionGroup)["exceptions"].__get__


def is_odd(error: BaseException) -> bool:
    """Whether formatting the exception calls code of its class, or of one before it or in it, which may raise
    anything. `__str__` does not count: what it raises is caught."""
    found, waiting = {id(error)}, [error]
    while waiting:
        one = waiting.pop()
        kind = type(one)
        if _has(type(kind), _READ_OF_CLASS) or _has(kind, _READ):
            return True
        members: tuple[BaseException, ...] = ()
        if issubclass(kind, BaseExceptionGroup):
            if _has(kind, {"exceptions"}):
                return True
            members = members_of(one)
        for other in (cause_of(one), context_of(one), *members[:_MOST]):
            if other is not None and id(other) not in found and len(found) < _MOST:
                found.add(id(other))
                waiting.append(other)
    return False


def _has(kind: type, names: Set[str]) -> bool:
    """Whether the class has one of these names from a class that is no part of the interpreter."""
    return any(
        _flags_of(base) & _IS_HEAP_TYPE and not names.isdisjoint(_names_in(base)) for base in _bases_of(kind)
    )


def log_error(logger: logging.Logger, text: str, *values: object, error: BaseException) -> None:
    """Logs a line with an exception: in its text where a formatter may not be able to read the exception."""
    if is_odd(error):
        logger.error(f"{text}\n%s", *values, plain_traceback(error).rstrip())
    else:
        logger.error(text, *values, exc_info=(type(error), error, frames_of(error)))


def error_type(error: BaseException) -> str:
    """The exception's class as ``module.Name``; without the module for built-in exceptions. Never raises."""
    parts: list[str] = []
    for read in (_module_of, _name_of):
        try:
            part = read(type(error))
        except AttributeError:  # the class has deleted its module
            continue
        if issubclass(type(part), str) and part != "builtins":
            parts.append(str.__str__(part))
    return printable(".".join(parts)[:_NAME])


def exception_before(error: BaseException) -> BaseException | None:
    """The exception that this exception was raised from, or while handling; None after ``from None``."""
    cause = cause_of(error)
    return cause if cause is not None or _hides_context(error) else context_of(error)


def repr_of_error(error: object) -> str:
    """The repr of an exception for a message. Never raises."""
    try:
        text = str.__str__(repr(error))
    except BaseException:
        text = f"<an exception of the class {type_name(type(error))} whose repr fails>"
    return on_one_line(text[:_NAME])


def plain_traceback(
    error: BaseException, frames: Callable[[BaseException], TracebackType | None] = frames_of
) -> str:
    """The exception and those before it, the innermost first, like `traceback`."""
    chain: list[tuple[BaseException, str]] = []
    found: set[int] = set()
    one: BaseException | None = error
    before = ""
    while one is not None and id(one) not in found:
        found.add(id(one))
        chain.append((one, before))
        is_cause = cause_of(one) is not None
        before = BECAUSE if is_cause else MEANWHILE
        one = exception_before(one)
    left_out = len(chain) - _OUTER - _INNER
    if left_out > 0:
        chain[_OUTER:-_INNER] = []
    parts = []
    for index, (one, link) in reversed(list(enumerate(chain))):
        parts += [*_lines_of(one, frames(one)), link]
        if left_out > 0 and index == _OUTER:
            parts.append(f"  ... {left_out} more exceptions ...\n\n")
    return "".join(parts)


BECAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
MEANWHILE = "\nDuring handling of the above exception, another exception occurred:\n\n"


def _lines_of(error: BaseException, frames: TracebackType | None) -> Iterator[str]:
    if frames is not None:
        yield "Traceback (most recent call last):\n"
        yield from _frame_lines(frames)
    yield _summary(error)
    notes: Any = values_of(error).get("__notes__")
    if type(notes) is list:
        yield from (f"{str.__str__(note)}\n" for note in notes[:_INNER] if issubclass(type(note), str))
    if issubclass(type(error), BaseExceptionGroup):
        members = members_of(error)
        yield from (f"  | {_summary(member)}" for member in members[:_OUTER])
        if len(members) > _OUTER:
            yield f"  | ... and {len(members) - _OUTER} more exceptions\n"


def _summary(error: BaseException) -> str:
    """The class and the message."""
    return f"{error_type(error)}: {cut(text_of_error(error), HEAD // 4, TAIL // 4)}\n"


def text_of_error(error: BaseException) -> str:
    try:
        return str.__str__(str(error))
    except BaseException:
        return "<exception str() failed>"


def cut(text: str, head: int, tail: int) -> str:
    """The text in printable characters, without the middle of a long text."""
    for _ in range(2):  # before, because characters become escapes only in the kept text; and after
        if len(text) > head + tail:
            text = f"{text[:head]}\n  ... cut ...\n{text[-tail:]}"
        text = printable(text)
    return text


def _frame_lines(frames: TracebackType) -> Iterator[str]:
    every: list[TracebackType] = []
    one: TracebackType | None = frames
    while one is not None:
        every.append(one)
        one = one.tb_next
    left_out = len(every) - _FIRST_FRAMES - _LAST_FRAMES
    for index, frame in enumerate(every):
        if left_out > 0 and index == _FIRST_FRAMES:
            yield f"  ... {left_out} more frames ...\n"
        if left_out <= 0 or not _FIRST_FRAMES <= index < len(every) - _LAST_FRAMES:
            code = frame.tb_frame.f_code
            yield f'  File "{code.co_filename}", line {frame.tb_lineno}, in {code.co_name}\n'
            line = linecache.getline(code.co_filename, frame.tb_lineno).strip()
            if line:
                yield f"    {line}\n"
