"""Formats the exception of an attempt for the job's record.

An exception is an object of the task: its attributes may raise, hide the real value, or be huge. Therefore
the fields of `BaseException` and `type` are read through their descriptors, which no subclass can replace.
The module `traceback` formats ordinary exceptions. Where that fails or takes too long,
`contract/plain_tracebacks.py` does.
"""

from __future__ import annotations

import os
import re
import sysconfig
import traceback
from types import TracebackType
from typing import TypedDict

from mrq_core.contract.codec import storable
from mrq_core.contract.exception_fields import cause_of, context_of, frames_of
from mrq_core.contract.plain import printable
from mrq_core.contract.plain_tracebacks import (
    BECAUSE,
    HEAD,
    MEANWHILE,
    TAIL,
    cut,
    error_type,
    members_of,
    plain_traceback,
    text_of_error,
)
from mrq_core.contract.terms import MESSAGE_LIMIT, error_group
from mrq_core.tasks.task import Task

_MOST_EXCEPTIONS, _MOST_FRAMES = 100, 3_000
"""`traceback` formats up to this many exceptions and frames: it takes about 10 µs for each."""


class ErrorFields(TypedDict):
    """The fields of an Outcome by which its exception is found."""

    exception_type: str
    exception_message: str
    error_group: str


def error_fields(path: str, error: BaseException) -> ErrorFields:
    """The type, the message and the group of the exception of a job with this path. Never raises, except an
    interrupt that arrives meanwhile."""
    kind = error_type(error)
    return {
        "exception_type": kind,
        "exception_message": _cut_at(text_of_error(error), MESSAGE_LIMIT),
        "error_group": printable(error_group(path, kind, _raising_frame(path, error))),
    }


def format_traceback(error: BaseException) -> str:
    """The traceback as text, without the worker's frames above the task. Cuts the middle of long texts. Never
    raises, except an interrupt that arrives meanwhile."""
    for formatted in (_full, _plain) if _is_small(error) else (_plain,):
        try:
            return cut(formatted(error), HEAD, TAIL)
        except BaseException:  # code of the task raised, or memory is short
            pass
    return f"{error_type(error)}: <the exception cannot be formatted>\n"


def headline(formatted: str | None, kind: str) -> str:
    """The type of an exception and the first line of its message, from a text of `format_traceback`; the type
    alone if the text lacks them. `kind`: the name that `error_type` gave."""
    text = formatted or ""
    last = max(text.rfind(link) + len(link) if link in text else 0 for link in (BECAUSE, MEANWHILE))
    name = re.escape(kind.removeprefix("__main__."))
    # The frames above are indented further, also in a group; notes and the exceptions of a group follow.
    found = re.compile(rf"^(?:  \| )?({name}(?::.*)?)$", re.MULTILINE).search(text, last)
    return found[1] if found is not None else kind


def _is_small(error: BaseException) -> bool:
    """Whether the exception, the exceptions before it and in it, and their frames are few."""
    found, waiting, frames = {id(error)}, [error], 0
    while waiting:
        one = waiting.pop()
        frame = frames_of(one)
        while frame is not None and frames <= _MOST_FRAMES:
            frame, frames = frame.tb_next, frames + 1
        members = members_of(one) if issubclass(type(one), BaseExceptionGroup) else ()
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


def _cut_at(text: str, most: int) -> str:
    return printable(text[:most])[:most]


def _plain(error: BaseException) -> str:
    return plain_traceback(error, _shown_frames)


def _shown_frames(error: BaseException) -> TracebackType | None:
    return _task_frames(frames_of(error))


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
