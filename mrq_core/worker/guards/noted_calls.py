"""Notes that a job has called what changes the state that all jobs of a process share.

To read the working directory, the signal handlers, the limits and the users of the process after each job
would cost more than a small job does. Calls in C are not noticed: `surroundings.py` reads all twice a second.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
from collections.abc import Callable
from types import ModuleType
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

_NAMES: dict[ModuleType, tuple[str, ...]] = {
    os: (
        *("chdir", "fchdir", "initgroups", "setegid", "seteuid", "setgid", "setgroups", "setregid"),
        *("setresgid", "setresuid", "setreuid", "setuid"),
    ),
    resource: ("prlimit", "setrlimit"),
    signal: ("alarm", "pthread_sigmask", "set_wakeup_fd", "setitimer", "signal"),
}


class NotedCalls:
    """The calls since the last examination of this process."""

    def __init__(self) -> None:
        self.were_made = False
        self._are_noted = False

    def note(self) -> None:
        """Notes the calls from now on, in all threads. The functions do what they did before."""
        if self._are_noted:
            return
        self._are_noted = True
        for module, names in _NAMES.items():
            for name in names:
                function = getattr(module, name, None)  # not each system has all of them
                if function is None:
                    continue
                noting = self._noting(function)
                # Pickled, as the initializer of a pool is, it is the function of that name elsewhere.
                noting.__module__, noting.__qualname__ = module.__name__, name
                if function in os.supports_fd:
                    os.supports_fd.add(noting)
                setattr(module, name, noting)

    def _noting(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def noting(*arguments: P.args, **named: P.kwargs) -> R:
            self.were_made = True
            return function(*arguments, **named)

        return noting


noted = NotedCalls()
"""Those of this process."""
