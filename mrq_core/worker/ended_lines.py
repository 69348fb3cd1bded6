"""The line in the log for each attempt that has ended."""

from __future__ import annotations

import logging

from mrq_core.config.settings import Config
from mrq_core.contract.messages import Outcome
from mrq_core.contract.record import Status
from mrq_core.running.context import JobContext
from mrq_core.running.job_log import current_log
from mrq_core.worker.guards.guarded_log import GuardedLog
from mrq_core.worker.guards.tracebacks import headline

_FAILED = frozenset({Status.FAILED, Status.TIMEOUT, Status.MAXRETRIES})
"""The statuses of attempts that are errors. A task or an operator asked for the others, or the job runs
again."""
_SHOWN = 1000
"""Characters of an error that the message shows."""

_log = GuardedLog("mrq.worker")


class EndedLines:
    """Logs one line for each attempt: an ERROR with the exception for a failure, a WARNING for a lost
    attempt, and otherwise INFO, which `QUIET` leaves out at no cost."""

    def __init__(self, config: Config) -> None:
        self._is_quiet = config.quiet

    def log(self, context: JobContext, outcome: Outcome) -> None:
        """Logs the end of an attempt whose outcome is decided. In the context of the job, but not to the
        log of the job. Never raises, except what a log handler raises beyond Exception."""
        error, context.error = context.error, None
        if outcome.total_time is None:  # no code ran
            return
        if outcome.status in _FAILED:
            level = logging.ERROR
        elif outcome.lost:
            level = logging.WARNING
        elif self._is_quiet:
            return
        else:
            level = logging.INFO
        record = context.record
        text = "job.%s id=%s path=%s queue=%s attempt=%d seconds=%.3f"
        seconds = outcome.total_time
        values = (outcome.status.value, record.id, record.path, record.queue, record.claims, seconds)
        extra = {"job": record.id, "duration": seconds}
        current_log.set(None)
        if outcome.exception_type is None:
            _log.tell(level, text, values, extra)
            return
        what = headline(outcome.traceback, outcome.exception_type)[:_SHOWN]
        extra |= {"error_type": outcome.exception_type, "error_message": outcome.exception_message}
        is_failure = level == logging.ERROR
        _log.tell(
            level,
            f"{text} error=%s",
            (*values, what),
            extra,
            error if is_failure else None,
            outcome.traceback if is_failure else None,
        )
