"""Decides whether `mrq worker` becomes a worker, which gevent patches, or the parent of workers.

gevent patches before the config file is loaded, so the role is guessed from the flags and the environment. If
the configuration says otherwise, the process replaces itself by one with the right role. This module imports
little, because it runs before gevent patches.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from mrq_core.worker.processes.launch import Launch
from mrq_core.worker.processes.signals import STOP_SIGNALS

_VARIABLE = "_MRQ_WORKER_ROLE"
_FLAGS = ("--processes", "-p")

launch = Launch(None, {}, ())
"""The process before the config file ran. `choose` sets it."""
is_parent = False
"""Whether this process is the parent of workers. `choose` sets it."""
_is_chosen = False
"""Whether the configuration has chosen the role, in the process before."""


def choose(arguments: Sequence[str]) -> bool:
    """Returns whether this process is the parent of workers, as far as flags and environment tell it."""
    global launch, is_parent, _is_chosen
    chosen = os.environ.pop(_VARIABLE, None)
    _is_chosen = chosen is not None
    launch = Launch.now()
    is_parent = _guess(arguments, os.environ) if chosen is None else chosen == "parent"
    return is_parent


def keep_or_change(*, wants_parent: bool, read_once: str | None = None) -> None:
    """Starts this program again, in the same process, if the configuration wants the other role. `read_once`
    is the path of a config file that the program could not read again. Raises ConfigError."""
    if wants_parent != is_parent:
        from mrq_core.errors import ConfigError

        if read_once is not None:
            raise ConfigError(
                f"the config file {read_once} can be read only once, and sets PROCESSES: expected PROCESSES "
                "as a flag (--processes) or in the environment (MRQ_PROCESSES)"
            )
        if _is_chosen:
            raise ConfigError("PROCESSES has another value each time the config file is loaded: expected one")
        _start_again("parent" if wants_parent else "worker")


def _start_again(role: str) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    launch.return_to_folder()
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # until they are handled again
    os.execve(sys.executable, sys.orig_argv, {**launch.environ, _VARIABLE: role})


def _guess(arguments: Sequence[str], environ: Mapping[str, str]) -> bool:
    value = environ.get("MRQ_PROCESSES", "")
    following = [*arguments[1:], ""]
    for argument, after in zip(arguments, following, strict=True):
        word = argument.replace("_", "-")
        if argument == "--":
            break
        if word in _FLAGS:
            value = after
        elif word.startswith("--processes="):
            value = argument.partition("=")[2]
        elif argument.startswith("-p"):
            value = argument[2:].removeprefix("=")
    return value.strip() not in ("", "0")
