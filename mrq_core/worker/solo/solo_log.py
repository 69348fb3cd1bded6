"""Keeps the log of a solo process as the process has set it up, whatever its job does to logging.

The process ends with its job, so that the job may keep all else that it changes: signal handlers, the working
directory, its user. Only the lines of mrq must reach the log of the worker, and those of the job its record.
"""

from __future__ import annotations

from contextlib import suppress

from mrq_core.running import logs
from mrq_core.running.streams import StandardStream
from mrq_core.worker.guards.descriptors import StandardDescriptors
from mrq_core.worker.guards.guarded_log import guard_loggers


class SoloLog:
    """Made after `set_up_logging`, before code of users runs."""

    def __init__(self) -> None:
        self._descriptors = StandardDescriptors()
        self._error = StandardStream("stderr")

    def look(self) -> None:
        """Restores logging while the job runs, which may have configured it for itself. Never raises."""
        with suppress(BaseException):
            if not logs.is_logging_intact():
                logs.restore_logging()
                guard_loggers()

    def restore(self) -> None:
        """Restores logging and standard error after the code of the job has ended. Never raises."""
        with suppress(BaseException):
            self._descriptors.set_back(is_alone=True)
        with suppress(BaseException):
            self._error.restore(is_alone=True)
        for step in (guard_loggers, logs.restore_logging):
            with suppress(BaseException):
                step()
