"""Formats the exception of an attempt for the job's record.

An exception is an object of the task: its attributes may raise, hide the real value, or be huge. Therefore
the fields of `BaseException` and `type` are read through their descriptors, which no subclass can replace.
The module `traceback` formats ordinary exceptions. Where that fails or takes too long, `_plain` formats the
exception, and calls no code of the task except `__str__`.
"""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, TypedDict

from mrq_core.contract.codec import storable
from mrq_core.contract.exception_fields import cause_of, context_of, frames_of
from mrq_core.contract.plain import printable
from mrq_core.contract.terms import MESSAGE_LIMIT, error_group
from mrq_core.tasks.task import Task

_HEAD, _TAIL = 20_000, 60_000
"""Characters at both ends of a long traceback that are kept."""
_NAME = 500
"""Characters of the name of an exception that are kept."""
_MOST_EXCEPTIONS, _MOST_FRAMES = 100, 3_000
"""`traceback` formats up to this many exceptions and frames: it takes about 10 µs for each."""
_OUTER, _INNER = 20, 10
"""Of more exceptions `_plain` shows this many at both ends of the chain, and of a group the first ones."""
_FIRST_FRAMES, _LAST_FRAMES = 100, 200

_name_of: Callable[[type], object] = vars(type)["__qualname__"].__get__
_module_of: Callable[[type], object] = vars(type)["__module__"].__get__
_values_of: Callable[[BaseException], dict[str, object]] = vars(BaseException)["__dict__"].__get__
_hides_context: Callable[[BaseException], bool] = vars(BaseException)["__suppress_context__"].__get__
_members_of: Callable[[BaseException], tuple[BaseException, ...]]
_members_of = vars(BaseExceptionGroup)["exceptions"].__get__


def type_name(error: BaseException) -> str:
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


class ErrorFields(TypedDict):
    """The fields of an Outcome by which its exception is found."""

    exception_type: str
    exception_message: str
    error_group: str


def error_fields(path: str, error: BaseException) -> ErrorFields:
    """The type, the message and the group of the exception of a job with this path. Never raises, except an
    interrupt that arrives meanwhile."""
    kind = type_name(error)
    return {
        "exception_type": kind,
        "exception_message": _cut_at(_text_of(error), MESSAGE_LIMIT),
        "error_group": printable(error_group(path, kind, _raising_frame(path, error))),
    }


def exception_before(error: BaseException) -> BaseException | None:
    """The exception that this exception was raised from, or while handling; None after ``from None``."""
    cause = cause_of(error)
    return cause if cause is not None or _hides_context(error) else context_of(error)


def format_traceback(error: BaseException) -> str:
    """The traceback as text, without the worker's frames above the task. Cuts the middle of long texts. Never
    raises, except an interrupt that arrives meanwhile."""
    for formatted in (_full, _plain) if _is_small(error) else (_plain,):
        try:
            return _cut(formatted(error), _HEAD, _TAIL)
        except BaseException:  # code of the task raised, or memory is short
            pass
    return f"{type_name(error)}: <the exception cannot be formatted>\n"


def headline(formatted: str | None, kind: str) -> str:
    """The type of an exception and the first line of its message, from a text of `format_traceback`; the type
    alone if the text lacks them. `kind`: the name that `type_name` gave."""
    text = formatted or ""
    last = max(text.rfind(link) + len(link) if link in text else 0 for link in (_BECAUSE, _MEANWHILE))
    name = re.escape(kind.removeprefix("__main__."))
    # The frames above are indented further, also in a group; notes and the exceptions of a group follow.
    found = re.compile(rf"^(?:  \| )?({name}(?::.*)?)$", re.MULTILINE).search(text, last)
    return found[1] if found is not None else kind


def _cut(text: str, head: int, tail: int) -> str:
    """The text in printable characters, without the middle of a long text."""
    for _ in range(2):  # before, because characters become escapes only in the kept text; and after
        if len(text) > head + tail:
            text = f"{text[:head]}\n  ... cut ...\n{text[-tail:]}"
        text = printable(text)
    return text


def _is_small(error: BaseException) -> bool:
    """Whether the exception, the exceptions before it and in it, and their frames are few."""
    found, waiting, frames = {id(error)}, [error], 0
    while waiting:
        one = waiting.pop()
        frame = frames_of(one)
        while frame is not None and frames <= _MOST_FRAMES:
            frame, frames = frame.tb_next, frames + 1
        members = _members_of(one) if issubclass(type(one), BaseExceptionGroup) else ()
        if len(members) > _MOST_EXCEPTIONS:
            return False
        for other in (cause_of(one), context_of(one), *members):
            if other is not None and id(other) not in found:
                found.add(id(other))
                waiting.append(other)
        if len(found) > _MOST_EXCEPTIONS or frames > _MOST_FRAMES:
            return False
    return True


def _full(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, _task_frames(frames_of(error))))


# --- exceptions that are not ordinary ------------------------------------------------------------


def _plain(error: BaseException) -> str:
    """The exception and those before it, the innermost first, like `traceback`."""
    chain: list[tuple[BaseException, str]] = []
    found: set[int] = set()
    one: BaseException | None = error
    before = ""
    while one is not None and id(one) not in found:
        found.add(id(one))
        chain.append((one, before))
        is_cause = cause_of(one) is not None
        before = _BECAUSE if is_cause else _MEANWHILE
        one = exception_before(one)
    left_out = len(chain) - _OUTER - _INNER
    if left_out > 0:
        chain[_OUTER:-_INNER] = []
    parts = []
    for index, (one, link) in reversed(list(enumerate(chain))):
        parts += [*_lines_of(one), link]
        if left_out > 0 and index == _OUTER:
            parts.append(f"  ... {left_out} more exceptions ...\n\n")
    return "".join(parts)


_BECAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
_MEANWHILE = "\nDuring handling of the above exception, another exception occurred:\n\n"


def _lines_of(error: BaseException) -> Iterator[str]:
    frames = _task_frames(frames_of(error))
    if frames is not None:
        yield "Traceback (most recent call last):\n"
        yield from _frame_lines(frames)
    yield _summary(error)
    notes: Any = _values_of(error).get("__notes__")
    if type(notes) is list:
        yield from (f"{str.__str__(note)}\n" for note in notes[:_INNER] if issubclass(type(note), str))
    if issubclass(type(error), BaseExceptionGroup):
        members = _members_of(error)
        yield from (f"  | {_summary(member)}" for member in members[:_OUTER])
        if len(members) > _OUTER:
            yield f"  | ... and {len(members) - _OUTER} more exceptions\n"


def _summary(error: BaseException) -> str:
    """The class and the message."""
    return f"{type_name(error)}: {_cut(_text_of(error), _HEAD // 4, _TAIL // 4)}\n"


def _text_of(error: BaseException) -> str:
    try:
        return str.__str__(str(error))
    except BaseException:
        return "<exception str() failed>"


def _cut_at(text: str, most: int) -> str:
    return printable(text[:most])[:most]


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


# Taken from code objects, because that is where frames have them from: no name of a file to go stale.
_WORKER_FOLDER = os.path.dirname(os.path.dirname(format_traceback.__code__.co_filename)) + os.sep
_CHECK_FILE = storable.__code__.co_filename
_TASK_FILE = Task.run_wrapped.__code__.co_filename


_OURS = __name__.partition(".")[0]
_LIBRARIES = tuple(
    {sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib")}
)


def _raising_frame(path: str, error: BaseException) -> str:
    """The innermost frame of the user's code, as ``module:function``: of the package of the task, or of no
    library. Where there is none, the innermost frame of a library; an empty text without one."""
    package, task_module = path.partition(".")[0], path.rpartition(".")[0]
    found, innermost = "", ""
    one, left = _task_frames(frames_of(error)), _MOST_FRAMES
    while one is not None and left:
        code, module = one.tb_frame.f_code, one.tb_frame.f_globals.get("__name__")
        name = module if type(module) is str else "?"
        top = name.partition(".")[0]
        if top != _OURS or name == task_module:  # tasks of mrq are code of a user, too
            innermost = f"{name}:{code.co_qualname}"
            if top == package or not code.co_filename.startswith(_LIBRARIES):
                found = innermost
        one, left = one.tb_next, left - 1
    return found or innermost


def _task_frames(frames: TracebackType | None) -> TracebackType | None:
    """The frames from the first frame that belongs neither to this package, nor to the class Task, nor to the
    check of results."""
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if file not in (_TASK_FILE, _CHECK_FILE) and not file.startswith(_WORKER_FOLDER):
            break
        frames = frames.tb_next
    return frames
