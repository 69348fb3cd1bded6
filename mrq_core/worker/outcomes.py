"""Turns the end of a task's code, a result or an exception, into the Outcome of the attempt."""

from __future__ import annotations

import time
from typing import Any

from mrq_core.config.settings import Config
from mrq_core.contract.codec import storable
from mrq_core.contract.messages import Outcome
from mrq_core.contract.naming import check_times
from mrq_core.contract.record import RetryDecision, Status
from mrq_core.errors import (
    AbortInterrupt,
    CancelInterrupt,
    ClaimLost,
    Interrupt,
    JobInterrupt,
    MrqError,
    ProcessDied,
    RetryInterrupt,
    TimeoutInterrupt,
)
from mrq_core.plugins.manager import Plugins
from mrq_core.running.context import JobContext
from mrq_core.tasks.loading import LoadedTask
from mrq_core.worker.tracebacks import exception_before, format_traceback, type_name


class Outcomes:
    """Makes outcomes by the options of the task, or by the configuration where the task was not loaded.

    `started` is the monotonic time at which the attempt started.
    """

    def __init__(self, config: Config, plugins: Plugins) -> None:
        self._config = config
        self._plugins = plugins

    def of_result(self, loaded: LoadedTask, result: object, started: float) -> Outcome:
        """The outcome of code that returned. Raises InvalidValue for a result that cannot be stored."""
        try:
            stored = storable(result, name="result", max_size=self._config.max_result_size)
        finally:
            _dispose(result)
        return Outcome(
            status=Status.SUCCESS,
            ttl=loaded.result_ttl,
            cancel_ttl=loaded.cancel_ttl,
            total_time=time.monotonic() - started,
            result=self._plugins.encode(stored),
        )

    def of_exception(self, context: JobContext, error: BaseException, started: float) -> Outcome:
        """The outcome of an attempt that raised, before, in or after the task's code."""
        try:
            return self._of_exception(context, error, started)
        except Exception as broken:  # a plugin's decision makes no sense
            return self._outcome(context.loaded, Status.FAILED, started, error=broken)

    def forced(self, context: JobContext, interrupt: Interrupt, started: float) -> Outcome:
        """The outcome of an attempt that could not be ended, in any thread: that of its code, if the code has
        ended and a plugin around it has not."""
        return context.outcome or self._of_exception(context, interrupt, started)

    def of_death(self, context: JobContext, death: str, started: float) -> Outcome:
        """The outcome of an attempt whose own process died. The job runs again, unless it is at_most_once, or
        died MAX_LOST_CLAIMS times in a row."""
        record, loaded, most = context.record, context.loaded, self._config.max_lost_claims
        deaths = record.solo_deaths + 1
        if record.at_most_once or (loaded is not None and loaded.at_most_once):
            error: MrqError = ClaimLost(
                f"{death}; an at_most_once job is never started twice", job_id=record.id
            )
        elif deaths >= most:
            why = f"it died {deaths} times in a row, and MAX_LOST_CLAIMS is {most}"
            error = ProcessDied(f"{death}; {why}", job_id=record.id)
        else:
            again = ProcessDied(f"{death}; the job runs again", job_id=record.id)
            return self._outcome(loaded, Status.QUEUED, started, error=again, delay=0.0, lost=True)
        return self._outcome(loaded, Status.FAILED, started, error=error, lost=True)

    def _of_exception(self, context: JobContext, error: BaseException, started: float) -> Outcome:
        loaded = context.loaded
        interrupt = error
        if context.interrupted is not None and not isinstance(error, Interrupt):
            # The code was interrupted and raised another exception on its way out.
            interrupt = context.interrupted
        match interrupt:
            case TimeoutInterrupt():
                return self._outcome(loaded, Status.TIMEOUT, started, error=error)
            case CancelInterrupt():
                return self._outcome(loaded, Status.CANCEL, started, error=error)
            case AbortInterrupt():
                return self._outcome(loaded, Status.ABORT, started, error=error)
            case JobInterrupt():
                at_most_once = context.record.at_most_once or (loaded is not None and loaded.at_most_once)
                again = None if at_most_once else 0.0
                return self._outcome(loaded, Status.INTERRUPT, started, error=error, delay=again)
            case RetryInterrupt():
                return self._retry(context, interrupt, error, started)
            case _:
                return self._failed(context, error, started)

    def _failed(self, context: JobContext, error: BaseException, started: float) -> Outcome:
        loaded = context.loaded
        if loaded is None:  # no retry: nothing of the task ran
            return self._outcome(None, Status.FAILED, started, error=error)
        decision: RetryDecision | None = None
        if self._plugins.implements("mrq_retry_decision"):
            try:
                decision = self._plugins.hook.mrq_retry_decision(job=context.record, exception=error)
            except Exception as broken:
                error.add_note(f"a plugin's mrq_retry_decision raised {type(broken).__name__}: {broken}")
        if decision is None:
            decision = loaded.retry.decide(error)
        if decision.retry:
            return self._retry(context, RetryInterrupt(delay=decision.delay), error, started)
        return self._outcome(loaded, Status.FAILED, started, error=error)

    def _retry(
        self, context: JobContext, request: RetryInterrupt, error: BaseException, started: float
    ) -> Outcome:
        record, loaded = context.record, context.loaded
        rule = loaded.retry if loaded else None
        most = rule.max_retries if rule else self._config.default_job_max_retries
        if request.max_retries is not None and not record.at_most_once:
            most = request.max_retries
        if record.retry_count >= most:
            return self._outcome(loaded, Status.MAXRETRIES, started, error=error)
        delay = request.delay
        if delay is not None:
            check_times(delay, None)
        else:
            delay = rule.delay_of(record.retry_count) if rule else self._config.default_job_retry_delay
        return self._outcome(
            loaded,
            Status.RETRY if delay > 0 else Status.QUEUED,
            started,
            error=error,
            delay=delay,
            is_retry=True,
            queue=request.queue,
        )

    def _outcome(
        self,
        loaded: LoadedTask | None,
        status: Status,
        started: float,
        *,
        error: BaseException,
        **more: Any,
    ) -> Outcome:
        before = exception_before(error)
        return Outcome(
            status=status,
            ttl=self._ttl(loaded, status),
            cancel_ttl=loaded.cancel_ttl if loaded else self._config.default_job_cancel_ttl,
            total_time=time.monotonic() - started,
            exception_type=type_name(error),
            traceback=format_traceback(error),
            original_traceback=format_traceback(before) if before is not None else None,
            **more,
        )

    def _ttl(self, loaded: LoadedTask | None, status: Status) -> float:
        source: Any = loaded
        match status:
            case Status.ABORT:
                return float(source.abort_ttl if source else self._config.default_job_abort_ttl)
            case Status.CANCEL:
                return float(source.cancel_ttl if source else self._config.default_job_cancel_ttl)
            case _:
                return float(source.default_ttl if source else self._config.default_job_ttl)


def _dispose(result: object) -> None:
    """Closes a generator or coroutine that a task returned by mistake, because nothing will run it."""
    if result is None:
        return
    close = getattr(result, "close", None)
    if type(result).__name__ in ("generator", "coroutine") and close is not None:
        close()
