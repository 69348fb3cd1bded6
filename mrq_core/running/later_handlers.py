"""Gives a line to the log handlers that come after one that has raised: Python gives it to no other.

A handler that sends lines to a server raises while that server is away, and a task may put objects among the
handlers that are none. The lines go to the terminal, the file and the job all the same.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Collection, Iterator
from contextlib import suppress
from typing import Any

from mrq_core.contract.exception_fields import frames_of
from mrq_core.errors import shown_error

_CALLING = logging.Logger.callHandlers.__code__
_SHOWN = 500
"""Characters of an error that are shown."""
_told: list[str] = []
"""The errors that standard error got."""


def go_on(
    logger: logging.Logger,
    record: logging.LogRecord,
    error: BaseException,
    ours: Collection[logging.Handler],
    *,
    only_ours: bool,
) -> None:
    """Gives the record to the handlers after the one that has raised this error. `ours`: the handlers of mrq
    on the root logger; they get it also where a filter of the logger has raised, or `handlers` is no list.
    Never raises."""
    failed = _failed_handler(error)
    handlers = list(_handlers_of(logger, ours)) if failed is not None else list(ours)
    places = [place for place, handler in enumerate(handlers) if handler is failed]
    for handler in handlers[places[0] + 1 :] if places else handlers:
        if not only_ours or any(handler is one for one in ours):
            with suppress(BaseException):
                if record.levelno >= handler.level:
                    handler.handle(record)


def tell(error: BaseException) -> None:
    """Shows the first error of a handler on standard error."""
    if not _told:
        handler = _failed_handler(error)
        by = "" if handler is None else f" (a handler of {type.__repr__(type(handler))})"
        _told.append(shown_error(error)[:_SHOWN] + by)
        text = f"mrq: a log handler raised {_told[0]}. Later errors of log handlers are not shown\n"
        with suppress(OSError):
            os.write(2, text.encode(errors="backslashreplace"))


def _failed_handler(error: BaseException) -> object:
    """The handler that has raised the error. None: something before the handlers has."""
    step = frames_of(error)
    while step is not None:
        if step.tb_frame.f_code is _CALLING:
            return step.tb_frame.f_locals.get("hdlr", step)
        step = step.tb_next
    return None


def _handlers_of(logger: logging.Logger, ours: Collection[logging.Handler]) -> Iterator[Any]:
    """The handlers of the logger and of those above it, in the order in which they get a record."""
    one: logging.Logger | None = logger
    while one is not None:
        found: object = getattr(one, "handlers", None)
        if type(found) is list:
            yield from found
        elif one.parent is None:
            yield from ours
        one = one.parent if one.propagate else None
