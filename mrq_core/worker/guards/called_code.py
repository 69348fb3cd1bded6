"""Ends a child that code has forked which mrq's own code has called, where that code ends.

mrq calls log handlers, hooks and strategies, or Python runs code amid that of mrq: finalizers, signal
handlers, trace functions. A child that returned to mrq's code would go on as a second worker, scheduler or
dashboard. Its exit code is that of a Python program that ends in the same way.
"""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from dis import opname
from types import CodeType, FrameType, FunctionType, MethodType
from typing import Any, NoReturn
from weakref import finalize

from mrq_core.contract.exception_fields import frames_of
from mrq_core.running.context import current_context
from mrq_core.worker.guards.tracebacks import format_traceback

_PACKAGES_OF_MRQ = frozenset(
    {
        *("mrq_core", "mrq_broker_redis", "mrq_broker_mongo", "mrq_dashboard"),
        *("anyio", "bson", "gevent", "pluggy", "pymongo", "redis", "starlette", "uvicorn"),
    }
)
_MODULES_OF_FORKS = frozenset({__name__, "mrq_core.worker.guards.forking", "gevent.os", "gevent.subprocess"})
_MODULE_OF_OUTCOMES = "mrq_core.worker.outcomes"
_MODULE_OF_THREADS = "gevent.threadpool"
"""That of the caller of functions in threads: the child ends when the function has ended."""
_READERS = frozenset({"logging", "traceback"})
"""Packages of Python that take the errors of code which they call."""
_ENDS = ("RETURN_", "YIELD_")
"""The beginnings of the instructions by which a frame ends without an exception."""
_FINALIZE = finalize.__call__.__code__
_raised: BaseException | None = None
"""The exception with which the code ends that mrq's own code has called."""
_callers: dict[int, FrameType] = {}
"""The frames of mrq's own code, by their ids, to which no child may return."""
_is_guarded = False


def guard_called_code(is_guarded: bool = True) -> None:
    """Ends children of called code in this process from now on, where it runs no jobs. False: `forking` does,
    as soon as it has given the child its own hub."""
    global _is_guarded
    _is_guarded = is_guarded


def _in_child() -> None:
    if _is_guarded and end_with_called_code():
        atexit._clear()


def end_process(error: BaseException | None) -> NoReturn:
    """Ends the process as Python ends a program whose main module raised this exception, or ended."""
    code = 1
    try:
        _join_threads()
    except BaseException as raised:
        error = error or raised
    try:
        code = exit_code_of(error)
        atexit._run_exitfuncs()  # those that the child has registered
    except BaseException:
        pass  # as Python does
    for name in ("stdout", "stderr"):
        try:
            getattr(sys, name).flush()
        except BaseException:
            pass
    if issubclass(type(error), KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit(code)


def _join_threads() -> None:
    """Waits for the threads that the child has started. The hub cannot wait."""
    hubs = sys.modules.get("gevent.hub")
    if hubs is None or not isinstance(hubs.getcurrent(), hubs.Hub):
        for thread in threading.enumerate():
            if not (thread.daemon or thread in (threading.current_thread(), threading.main_thread())):
                thread.join()


def exit_code_of(error: BaseException | None) -> int:
    """The exit code of a program that ends with this exception. Writes its traceback, or the text of
    SystemExit. Calls no code of the exception to learn its type: such code may raise."""
    if error is None:
        return 0
    if not issubclass(type(error), SystemExit):
        if sys.excepthook is sys.__excepthook__ or not _is_told(error):
            sys.stderr.write(format_traceback(error))
        return 1
    code: Any = getattr(error, "code")  # noqa: B009
    if code is None or issubclass(type(code), int):
        number = int(code or 0)
        return number & 0xFF if -(2**63) <= number < 2**63 else 0xFF  # as Python does
    print(code, file=sys.stderr)
    return 1


def _is_told(error: BaseException) -> bool:
    """Calls the hook of the program for its last exception, such as that of the command line. Returns whether
    it could read the exception."""
    try:
        sys.excepthook(type(error), error, frames_of(error))
    except BaseException:
        return False
    return True


def end_with_called_code() -> bool:
    """If other code than that of a job has forked: ends the process when this code returns to mrq's own code,
    which must not run here, or to a package of Python that takes its errors. Returns whether it does."""
    interrupting = _codes_that_interrupt()
    inner: FrameType | None = None
    called: FrameType | None = None
    frame = sys._getframe().f_back
    while frame is not None:
        module = str(frame.f_globals.get("__name__"))
        if module in _MODULES_OF_FORKS:
            frame = frame.f_back
            continue
        package = module.partition(".")[0]
        if package in _PACKAGES_OF_MRQ:
            context = current_context.get()
            is_task = context is not None and context.in_code and not _makes_an_outcome(frame)
            if is_task or module == _MODULE_OF_THREADS:
                return False  # where this code ends, the child ends
            break
        inner, frame = frame, frame.f_back
        if package not in _READERS:
            called = inner
        if inner.f_code.co_name == "__del__" or inner.f_code in interrupting:
            break
    called = called or inner
    if called is None:
        return False
    called.f_trace = _end_on_return
    frame = called.f_back
    while frame is not None:
        _callers[id(frame)] = frame
        frame.f_trace = _end_at_once
        frame = frame.f_back
    sys.settrace(_end_before_call)
    return True


def _makes_an_outcome(frame: FrameType) -> bool:
    """Whether mrq has called the code to read the result or the exception of a task. It takes errors of such
    code for answers."""
    reader: FrameType | None = frame
    while reader is not None:
        module = str(reader.f_globals.get("__name__"))
        if module == _MODULE_OF_OUTCOMES:
            return True
        package = module.partition(".")[0]
        if package not in _PACKAGES_OF_MRQ and package not in sys.stdlib_module_names:
            break
        reader = reader.f_back
    return False


def _codes_that_interrupt() -> set[CodeType]:
    """The code that Python runs amid any other: amid that of another job, too. That of the callback of a weak
    reference is not known."""
    callables: list[Any] = [signal.getsignal(number) for number in signal.valid_signals()]
    callables += [*gc.callbacks, sys.gettrace(), sys.getprofile()]
    functions = [one.__func__ if type(one) is MethodType else one for one in callables]
    return {_FINALIZE, *(one.__code__ for one in functions if type(one) is FunctionType)}


def _end_on_return(frame: FrameType, event: str, value: Any) -> Any:
    """Follows the outermost frame of the code that was called. Its exception ends the process in the frame
    that gets it: which one of those that were raised in here leaves the frame is not told."""
    global _raised
    if event == "exception":
        _raised = value[1]
    elif event == "return" and opname[frame.f_code.co_code[frame.f_lasti]].startswith(_ENDS):
        sys.settrace(None)
        end_process(None)
    return _end_on_return


def _end_at_once(frame: FrameType, event: str, value: Any) -> NoReturn:
    """Called where a frame of mrq's own code goes on: Python follows no frame of a trace function."""
    sys.settrace(None)
    # Python has dropped the latter, as that of a finalizer.
    end_process(value[1] if event == "exception" else _raised)


def _end_before_call(frame: FrameType, event: str, value: Any) -> None:
    """Called for each new frame. Only one that mrq's own code has called matters."""
    if id(frame.f_back) in _callers:
        _end_at_once(frame, event, value)


os.register_at_fork(after_in_child=_in_child)
