"""Imports that a signal handler of the program does not break.

A handler may raise in the middle of an import, as that of Ctrl-C does. Python then drops the packages whose
code was running, and keeps those of their modules that were complete. The next import of such a package finds
these modules, does not set them as attributes of the new package, and fails, for the rest of the process.
"""

from __future__ import annotations

import _thread
import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from importlib import import_module
from types import BuiltinFunctionType
from typing import Any

from mrq_core.config.hidden import is_needed
from mrq_core.contract.exception_fields import frames_of
from mrq_core.contract.forked_code import end_child
from mrq_core.contract.module_fields import fields_of_module
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.drivers.forks import forget_module, is_importing

_RLock: Any = _thread.RLock
_STACK = 8 * 1024 * 1024
"""Bytes of the stack of a thread that imports, as a main thread has."""
_LOOK = 0.1
"""Seconds between two looks whether a fork has left that thread in the parent."""


def import_whole(name: str) -> None:
    """Imports a module of mrq or of a driver, and all that it imports. A later `import` statement finds it.

    For the main thread, where signal handlers raise, another thread imports. It goes on after an exception of
    a handler. The packages that mrq needs, and whose import was interrupted earlier, are imported anew.
    """
    module = sys.modules.get(name)
    if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
        return
    for broken in _broken_packages():
        forget_module(broken)
    if not _may_be_interrupted() or not _import_in_thread(name):
        with forgetting_interrupted():
            import_module(name)


@contextmanager
def forgetting_interrupted() -> Iterator[None]:
    """Forgets the packages whose import an exception of a signal handler ends in this block, with all their
    modules. The next import of such a package begins anew. Ends a child that the code of the block forks, and
    in which it raises."""
    process = os.getpid()
    try:
        yield
    except BaseException as error:
        end_child(error, process)
        raised = raised_by_handler(error)
        if raised is not None:
            for name in _running_modules(raised):
                if name not in sys.modules:
                    forget_module(name)
        raise


def _broken_packages() -> set[str]:
    """The packages that mrq needs, and of which there are only modules."""
    modules = sys.modules.copy()
    parents = {name.rpartition(".")[0] for name in modules if "." in name}
    return {name for name in parents if name not in modules and is_needed(name)}


def _running_modules(error: BaseException) -> set[str]:
    """The modules whose code the exception has passed through."""
    names = set()
    step = frames_of(error)
    while step is not None:
        if step.tb_frame.f_code.co_name == "<module>":
            names.add(str(step.tb_frame.f_globals.get("__name__")))
        step = step.tb_next
    return names


def _may_be_interrupted() -> bool:
    """Whether this is the main thread, and another thread can import for it: gevent has not patched threads,
    and this thread neither imports nor logs now, so that the other one does not wait for it."""
    threading: Any = sys.modules.get("threading")  # not imported here: gevent patches it better before
    if threading is not None and threading.main_thread().ident != _thread.get_ident():
        return False
    is_plain = isinstance(_thread.start_new_thread, BuiltinFunctionType) and not sys.is_finalizing()
    return is_plain and not is_importing() and not _is_logging()


def _is_logging() -> bool:
    """Whether this thread holds a lock of `logging`, which each module that makes a logger needs: in the
    constructor of a handler that `dictConfig` calls, in a logger class, or in a handler."""
    logging = fields_of_module(sys.modules.get("logging"))
    handlers = [reference() for reference in list(logging.get("_handlerList", ()))]
    fields = [object.__getattribute__(handler, "__dict__") for handler in handlers if handler is not None]
    locks = [logging.get("_lock"), *(values.get("lock") for values in fields)]
    return any(type(lock) is _RLock and lock._is_owned() for lock in locks)


def _import_in_thread(name: str) -> bool:
    """Imports the module in a thread, and waits. False: no thread can be started, or a fork has left it in
    the parent.

    After an exception of a handler the import goes on. The end of the process waits for it: an import that is
    stopped holds its lock for ever.
    """
    import threading  # noqa: F401  # it takes the thread that imports it for the main thread, until Python 3.12

    done, process = _thread.allocate_lock(), os.getpid()
    ended: list[bool] = []
    failures: list[BaseException] = []

    # An import hook or a log handler may call the client there: it learns that this thread makes the client.
    context = copy_context()

    def work() -> None:
        try:
            context.run(import_module, name)
        except BaseException as error:
            failures.append(error)
        finally:
            ended.append(True)
            done.release()

    def wait() -> None:
        # A handler may fork here, and may raise as soon as the lock is taken: the list alone tells the end.
        while not ended and os.getpid() == process:
            done.acquire(timeout=_LOOK)

    done.acquire()
    size = _thread.stack_size(_STACK)
    try:
        _thread.start_new_thread(work, ())
    except RuntimeError as error:
        if raised_by_handler(error) is not None:
            raise
        return False
    finally:
        _thread.stack_size(size)
    atexit.register(wait)
    wait()
    atexit.unregister(wait)
    if failures:
        raise failures.pop()
    return os.getpid() == process
