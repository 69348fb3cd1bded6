"""Exceptions that a signal handler of the program raises in the middle of a call.

Libraries and broad `except` clauses turn some of them into errors with another meaning: pymongo turns a
TimeoutError into a lost connection, and any exception that interrupts the decoding of a document into
unreadable data.
"""

from __future__ import annotations

import signal
from functools import partial
from types import CodeType


def raised_by_handler(error: BaseException) -> BaseException | None:
    """The exception of a signal handler from which this error was made, or the error itself if a handler
    raised it. None: no handler did.

    The result is an error of the library where the library has dropped the handler's exception and kept its
    traceback.
    """
    codes = _codes_of_handlers()
    seen: set[int] = set()
    found: BaseException | None = error
    while codes and found is not None and id(found) not in seen:
        seen.add(id(found))
        if _runs_through(found, codes):
            return found
        found = found.__cause__ or found.__context__
    return None


def refuse_to_wrap(error: BaseException) -> None:
    """Raises the exception of a signal handler from which this error was made, if there is one: for code that
    is about to wrap any exception of loaded code."""
    raised = raised_by_handler(error)
    if raised is not None:
        raise raised from None


def _codes_of_handlers() -> set[CodeType]:
    """The code of the signal handlers that are written in Python."""
    codes = set()
    for number in signal.valid_signals():
        handler: object = signal.getsignal(number)
        while isinstance(handler, partial):
            handler = handler.func
        if callable(handler):
            called = handler if hasattr(handler, "__code__") else type(handler).__call__
            code = getattr(called, "__code__", None)  # a method has that of its function
            if isinstance(code, CodeType):
                codes.add(code)
    return codes


def _runs_through(error: BaseException, codes: set[CodeType]) -> bool:
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False
