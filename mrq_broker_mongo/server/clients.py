"""Makes and closes clients of pymongo, so that signal handlers of the program do little harm inside them.

A handler that raises can leave a lock locked, if it interrupts between the taking of the lock and the block
that gives it back (python/cpython#74174). Python runs handlers in the main thread only.
"""

from __future__ import annotations

import atexit
import logging
import sys
import threading
from _thread import allocate_lock, get_ident, start_new_thread
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from pymongo import MongoClient
from pymongo.errors import ConfigurationError

from mrq_broker_mongo.server.pools import MrqPool
from mrq_core.contract.signal_errors import raised_by_handler

T = TypeVar("T")
_PATIENCE = 2.0
"""Seconds for work in another thread."""
_logger = logging.getLogger("pymongo")
_THREADS = "pymongo_"
"""How the names of the threads begin that pymongo starts for a client."""


def new_client(url: str, options: Mapping[str, Any]) -> MongoClient[dict[str, Any]]:
    """A client that connects in the background. Raises the errors of pymongo."""
    keep_quiet()
    try:
        return MongoClient(url, _pool_class=MrqPool, **options)
    except (ConfigurationError, TypeError) as error:
        if "pool_class" not in str(error):
            raise
        return MongoClient(url, **options)  # a pymongo that takes no class of pools


def keep_quiet() -> None:
    """Keeps pymongo from logging each command with its values, and each step of its threads, wherever the
    root logger has the level DEBUG, unless the program has given pymongo a level. A handler that makes calls
    of mrq would be called in the threads for which these calls wait."""
    if _logger.level == logging.NOTSET:
        _logger.setLevel(logging.INFO)


def is_of_pymongo(thread: int) -> bool:
    """Whether pymongo has started the thread with this identifier, which may hold locks of its client."""
    known: Any = threading
    started = known._active.get(thread)
    return started is not None and bool(started.name.startswith(_THREADS))


def apart(work: Callable[[], T], undo: Callable[[T], object]) -> T:
    """Does the work in another thread, if signal handlers could interrupt this one, and waits for it.

    For work that starts or ends threads. If a handler raises meanwhile, the work goes on; its result is
    given to `undo`. Work that takes long is done in this thread as well: an interrupted import of this thread
    may have left the lock of all imports locked for other threads.
    """
    if not _runs_handlers():
        return work()
    answers: list[T] = []
    errors: list[BaseException] = []
    is_left = False
    done = allocate_lock()

    def run() -> None:
        try:
            answers.append(work())
        except BaseException as error:
            errors.append(error)
        finally:
            _forget_this_thread()
            done.release()
        if is_left and answers:
            undo(answers[0])

    try:
        done.acquire()
        # `Thread.start` would take a thread that it has started for one that it has not, if a handler raised.
        start_new_thread(run, ())
        is_done = done.acquire(timeout=_PATIENCE)
    except BaseException as error:
        is_left = True
        if isinstance(error, RuntimeError) and raised_by_handler(error) is None:
            return work()  # no thread can be started, for instance while the interpreter ends
        if answers:
            start_new_thread(undo, (answers[0],))
        raise
    if not is_done:
        is_left = True
        if not answers:
            return work()
    if errors:
        raise errors[0]
    return answers[0]


def _forget_this_thread() -> None:
    """Removes the calling thread from `threading`, which before Python 3.13 keeps each thread that it has
    met, but not started."""
    known: Any = threading
    if isinstance(known._active.get(get_ident()), known._DummyThread):
        del known._active[get_ident()]


def _runs_handlers() -> bool:
    """Whether Python runs signal handlers in this thread, and in no other greenlet."""
    return not _has_greenlets() and threading.get_ident() == threading.main_thread().ident


def _has_greenlets() -> bool:
    """Whether gevent has patched `threading`: what pymongo starts as threads are then greenlets."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and bool(monkey.is_module_patched("threading"))


def _leave_other_hubs() -> None:
    """Spares the process, at its exit, the second that pymongo waits for each of its threads, where they are
    greenlets of another native thread: nothing runs the hub of that thread any more, so they never end."""
    if not _has_greenlets():
        return
    here, known = threading.get_native_id(), cast(Any, threading)
    for thread in list(known._active.values()):  # `enumerate` takes a lock that such a greenlet may hold
        if thread.daemon and thread.name.startswith(_THREADS) and thread.native_id != here:
            thread.join = _is_left


def _is_left(timeout: float | None = None) -> None:
    """Replaces `join` of a thread that will not end."""


atexit.register(_leave_other_hubs)  # called before the exit handler of pymongo, which was registered earlier
