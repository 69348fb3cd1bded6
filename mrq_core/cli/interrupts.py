"""Ctrl-C in a command: a KeyboardInterrupt while the command works, and an end at once after its work.

Between the end of the work and the end of the process, Python joins threads and calls exit handlers, and a
driver may need a second for that.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from _thread import get_ident, start_new_thread
from time import sleep
from types import FrameType
from typing import Any

EXIT_INTERRUPTED = 130
_AGAIN = 0.01
"""Seconds after which an exception that Python has dropped is raised again."""

_exit = os._exit
_print_unraisable = sys.unraisablehook
_code: int | None = None
"""The exit code after the end of the work. None: the command still works."""


def prepare() -> None:
    """Call it at the start of the process, before gevent patches the library: an exit handler that is
    registered first is called last."""
    atexit.register(_ignore)
    sys.unraisablehook = _raise_again


def unblock() -> None:
    """Lets the signals in that end a command, and that the program that has started this one may have
    blocked."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP})


def leave_at_interrupt(code: int) -> None:
    """Makes SIGINT end the process with this exit code from now on. Keeps a handler of other code, and an
    ignored signal. In the main thread."""
    global _code
    _code = code
    while signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        try:
            signal.signal(signal.SIGINT, _leave)
        except KeyboardInterrupt:  # it came before the handler was set
            continue


def is_leaving() -> bool:
    """Whether the work of the command has ended."""
    return _code is not None


def code_of(ended: BaseException | None) -> int:
    """The exit code of a process that ends with this exception."""
    if isinstance(ended, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    code = ended.code if isinstance(ended, SystemExit) else ended
    return code if isinstance(code, int) else int(code is not None)


def _raise_again(dropped: Any) -> None:
    """Python prints and drops an exception in a finalizer, and in a callback of the import system. A
    KeyboardInterrupt is raised once more, by a thread: here it would be dropped again."""
    if dropped.exc_type is not KeyboardInterrupt or signal.getsignal(signal.SIGINT) not in _HANDLERS:
        _print_unraisable(dropped)
        return

    main = get_ident()

    def interrupt() -> None:
        sleep(_AGAIN)
        signal.pthread_kill(main, signal.SIGINT)

    start_new_thread(interrupt, ())


def _ignore() -> None:
    """The interpreter, which finalises now, replaces a handler in Python by the default, which kills."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.SIG_IGN)


def _leave(signum: int, frame: FrameType | None) -> None:
    _exit(EXIT_INTERRUPTED if _code is None else _code)


_HANDLERS = (signal.default_int_handler, _leave)
