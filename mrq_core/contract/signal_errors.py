"""Exceptions that a signal handler of the program raises in the middle of a call.

Libraries and broad `except` clauses turn some of them into errors with another meaning: pymongo turns a
TimeoutError into a lost connection, and any exception that interrupts the decoding of a document into
unreadable data.
"""

from __future__ import annotations

import signal
import sys
from functools import partial
from opcode import opmap
from types import CodeType, FrameType

from mrq_core.contract.exception_fields import cause_of, context_of, frames_of

_RAISE = opmap["RAISE_VARARGS"]


def raised_by_handler(error: BaseException) -> BaseException | None:
    """The exception of a signal handler from which this error was made, or the error itself if a handler
    raised it. None: no handler did. Python's own handler of Ctrl-C counts.

    The result is an error of the library where the library has dropped the handler's exception and kept its
    traceback. An exception that a caller of this call has caught before, and handles now, does not count.
    """
    codes = _codes_of_handlers()
    has_default = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    seen: set[int] = set()
    found: BaseException | None = error
    while found is not None and id(found) not in seen:
        seen.add(id(found))
        if _runs_through(found, codes) or (has_default and is_ctrl_c(found)):
            return found if found is error or not _is_handled_outside(found) else None
        found = cause_of(found) or context_of(found)
    return None


def is_ctrl_c(error: BaseException) -> bool:
    """Whether this is a KeyboardInterrupt that no `raise` statement has made, or one of Python's library."""
    return issubclass(type(error), KeyboardInterrupt) and not is_made(error)


def is_made(error: BaseException) -> bool:
    """Whether a `raise` statement outside of Python's library has made the error, so that it has come neither
    from a signal nor from another greenlet."""
    trace = frames_of(error)
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    frame, at = trace.tb_frame, trace.tb_lasti
    is_raised = frame.f_code.co_code[at : at + 1] == bytes([_RAISE])
    module = str(frame.f_globals.get("__name__")).partition(".")[0]
    return is_raised and module not in sys.stdlib_module_names


def _is_handled_outside(error: BaseException) -> bool:
    """Whether a frame that still runs has caught the error."""
    trace = frames_of(error)
    frame: FrameType | None = sys._getframe()
    while frame is not None and trace is not None:
        if frame is trace.tb_frame:
            return True
        frame = frame.f_back
    return False


def refuse_to_wrap(error: BaseException) -> None:
    """Raises the exception of a signal handler, or of Ctrl-C, from which this error was made. For code that
    is about to wrap any exception of loaded code."""
    raised = error if is_ctrl_c(error) else raised_by_handler(error)
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
    trace = frames_of(error)
    while trace is not None:
        if trace.tb_frame.f_code in codes:
            return True
        trace = trace.tb_next
    return False
