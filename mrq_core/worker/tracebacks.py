"""Formats the exception of an attempt for the job's record."""

from __future__ import annotations

import os
import traceback
from types import TracebackType

from mrq_core.contract.codec import printable
from mrq_core.tasks.task import Task

_HEAD, _TAIL = 20_000, 60_000
"""Characters at both ends of a long traceback that are kept."""


def type_name(error: BaseException) -> str:
    """The exception's class as ``module.Name``; without the module for built-in exceptions."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def exception_before(error: BaseException) -> BaseException | None:
    """The exception that this exception was raised from, or while handling; None after ``from None``."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def format_traceback(error: BaseException) -> str:
    """The traceback as text, without the worker's frames above the task. Cuts the middle of long texts."""
    text = printable(
        "".join(traceback.format_exception(type(error), error, _task_frames(error.__traceback__)))
    )
    if len(text) > _HEAD + _TAIL:
        text = f"{text[:_HEAD]}\n  ... cut ...\n{text[-_TAIL:]}"
    return text


# Taken from code objects, because that is where frames have them from: no name of a file to go stale.
_WORKER_FOLDER = os.path.dirname(format_traceback.__code__.co_filename)
_TASK_FILE = Task.run_wrapped.__code__.co_filename


def _task_frames(frames: TracebackType | None) -> TracebackType | None:
    """The frames from the first frame that belongs neither to this package nor to the class Task."""
    while frames is not None:
        file = frames.tb_frame.f_code.co_filename
        if file != _TASK_FILE and os.path.dirname(file) != _WORKER_FOLDER:
            break
        frames = frames.tb_next
    return frames
