"""What all jobs of a process share, and what a worker puts right after a job that has changed it.

A task that configures logging, replaces a signal handler or leaves in another folder changes these for the
worker and for all later jobs. The worker examines them after each job of over a millisecond and twice a
second, and logging after each job.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from typing import Any

from mrq_core.running import logs
from mrq_core.worker.guarded_log import GuardedLog

LONG = 0.001
"""Seconds. After a job that took longer, all is examined."""

_log = GuardedLog("mrq.worker")


class Surroundings:
    """The state of the process when the worker started, which `restore` brings back."""

    def __init__(self) -> None:
        self._folder = os.getcwd()
        self._streams = (sys.stdout, sys.stderr)
        self._recursion_limit = sys.getrecursionlimit()
        self._handlers: dict[int, Any] = {}
        self._warned: str | None = None

    def keep_signals(self) -> None:
        """Notes the signal handlers of the worker."""
        numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)
        self._handlers = {number: signal.getsignal(number) for number in numbers}

    def restore(self, *, is_alone: bool) -> None:
        """Puts right what a job has changed. In the main thread. `is_alone`: no other job runs, so that the
        working directory and the standard streams can be restored. Never raises."""
        with suppress(Exception):
            self._restore(is_alone)

    def _restore(self, is_alone: bool) -> None:
        logs.restore_logging()
        for number, handler in self._handlers.items():
            if signal.getsignal(number) != handler:
                signal.signal(number, handler)
                _log.warning(
                    "signal.restored %s: a task had replaced its handler", signal.Signals(number).name
                )
        if sys.getrecursionlimit() < self._recursion_limit:
            sys.setrecursionlimit(self._recursion_limit)
        if is_alone and (sys.stdout, sys.stderr) != self._streams:
            sys.stdout, sys.stderr = self._streams
        self._restore_folder(is_alone)

    def _restore_folder(self, is_alone: bool) -> None:
        try:
            folder = os.getcwd()
        except OSError:  # it was deleted: no job can use it
            folder, is_alone = "a folder that was deleted", True
        if folder == self._folder:
            self._warned = None
        elif is_alone:
            with suppress(OSError):
                os.chdir(self._folder)
                _log.warning("folder.restored: a task had left the worker in %s", folder)
        elif self._warned != folder:
            self._warned = folder
            _log.warning("folder.changed: a task has changed the working directory of all jobs to %s", folder)
