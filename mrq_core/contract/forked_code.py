"""Children that loaded code forks: the module of a task, a plugin, a hook, the config file.

mrq turns what such code raises into other errors, `SystemExit` too. In a child of that code this would
let the child go on in the program of its parent, as a second one.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

from mrq_core.contract.exception_fields import frames_of

_forks = 0
"""How many forks lie between the first process and this one."""


def forks() -> int:
    """A number that is another one in a forked child. Costs less than the id of the process."""
    return _forks


def _in_child() -> None:
    global _forks
    _forks += 1


os.register_at_fork(after_in_child=_in_child)


def end_child(error: BaseException, process: int) -> None:
    """Ends this process, as the interpreter does after the error, unless it is `process`: that in which the
    code that has raised the error was called."""
    if os.getpid() == process:
        return
    code = 1
    try:
        if issubclass(type(error), SystemExit):
            code = _code_of(getattr(error, "code", None))
        else:
            sys.excepthook(type(error), error, frames_of(error))
    finally:
        for name in ("stdout", "stderr"):
            with suppress(BaseException):
                getattr(sys, name).flush()
        os._exit(code)


def _code_of(given: object) -> int:
    """The exit code of a SystemExit. What is no number is written to standard error."""
    if given is None:
        return 0
    if isinstance(given, int):
        return given & 0xFF
    print(given, file=sys.stderr)
    return 1
