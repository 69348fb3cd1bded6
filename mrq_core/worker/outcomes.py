"""Turns the end of a task's code, a result or an exception, into the Outcome of the attempt."""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType, GeneratorType
from typing import Any, TypeVar, cast

from mrq_core.clock import monotonic, now_ms
from mrq_core.config.settings import Config
from mrq_core.contract.codec import encode, storable
from mrq_core.contract.messages import Outcome
from mrq_core.contract.naming import check_job_queue_name, check_times
from mrq_core.contract.plain import number_of, printable
from mrq_core.contract.plain_tracebacks import exception_before
from mrq_core.contract.record import RetryDecision, Status
from mrq_core.errors import (
    AbortInterrupt,
    CancelInterrupt,
    ClaimLost,
    ConfigError,
    Interrupt,
    InvalidValue,
    JobInterrupt,
    MrqError,
    ProcessDied,
    RetryInterrupt,
    TimeoutInterrupt,
    shown_error,
    type_name,
)
from mrq_core.operations.views import redacted
from mrq_core.plugins.manager import ENCODED_FACTOR, Plugins
from mrq_core.running.context import JobContext
from mrq_core.tasks.loading import LoadedTask
from mrq_core.worker.guards import forking
from mrq_core.worker.guards.tracebacks import error_fields, format_traceback
from mrq_core.worker.wishes import asked_by_another, wish_in

T = TypeVar("T")
_SHOWN = 1000
"""Characters of a result that a job's log shows."""
_FROM_WORKER = (TimeoutInterrupt, CancelInterrupt, JobInterrupt)
"""Interrupts that only the worker raises. A task raises one of another job if that job has stored it, as the
exception of a greenlet or a future."""
_NOT_OURS = "the job itself was not interrupted: this interrupt is of another job, or its code made it"
_ASKED_BY = (
    "the attempt itself asked for no retry and no abort: claim {1} of the job {0} did, and its code passed "
    "this interrupt on"
)
_STANDS = "the job was interrupted by {0}, which stands: what its code asked for afterwards does not count"
_INTERRUPTED = {
    TimeoutInterrupt: Status.TIMEOUT,
    CancelInterrupt: Status.CANCEL,
    AbortInterrupt: Status.ABORT,
}


class Outcomes:
    """Makes outcomes by the options of the task, or by the configuration where the task was not loaded.

    `started` is the monotonic time at which the attempt started.
    """

    def __init__(self, config: Config, plugins: Plugins) -> None:
        self._config = config
        self._plugins = plugins
        self._has_encoders = plugins.implements("mrq_encode")

    def of_result(self, loaded: LoadedTask, result: object, started: float) -> Outcome:
        """The outcome of code that returned. Raises InvalidValue for a result that cannot be stored, and what
        `mrq_encode` raises."""
        most = self._config.max_result_size
        try:
            stored = storable(result, name="result", max_size=most)
        except (InvalidValue, Interrupt):
            _dispose(result)
            raise
        except BaseException as error:  # a class of the task, such as a dict whose `items` raises
            raise InvalidValue(
                f"result cannot be read, reading it raised {shown_error(error)}: expected JSON values",
                path="result",
            ) from error
        if self._has_encoders:
            encoded = self._plugins.encode(stored)  # which may have changed the value in place
            stored = storable(encoded, name="the result of mrq_encode", max_size=ENCODED_FACTOR * most)
        return Outcome(
            status=Status.SUCCESS,
            ttl=loaded.result_ttl,
            cancel_ttl=loaded.cancel_ttl,
            total_time=monotonic() - started,
            result=stored,
        )

    def of_interrupted(self, context: JobContext, outcome: Outcome, started: float) -> Outcome:
        """The outcome of code that swallowed an interrupt and returned: a timeout and a cancel stand, and the
        job's log gets the result. Code that a stop of the worker interrupted has ended in time."""
        interrupt = context.interrupted
        if interrupt is None or issubclass(type(interrupt), JobInterrupt):
            return outcome
        value = encode(redacted(outcome.result)).decode()
        if len(value) > _SHOWN:
            value = f"{value[:_SHOWN]}..."
        _log_swallowed(context, interrupt, f"returned {value}: the result is not stored")
        return self.of_exception(context, interrupt, started)

    def end_unstorable(self, context: JobContext, result: object) -> None:
        """Raises the interrupt that code swallowed before it returned a result that cannot be stored, if it
        stands, and logs the type of the result: the interrupt ended the job, and not the result."""
        interrupt = context.interrupted
        if interrupt is None or issubclass(type(interrupt), JobInterrupt):
            return
        what = f"returned a value of type {printable(type_name(type(result)))}, which cannot be stored"
        _log_swallowed(context, interrupt, what)
        raise interrupt from None

    def of_exception(self, context: JobContext, error: BaseException, started: float) -> Outcome:
        """The outcome of an attempt that raised, before, in or after the task's code. Never raises."""
        if issubclass(type(error), BaseExceptionGroup):
            error = wish_in(context, error)
        context.error = error
        try:
            return self._of_exception(context, error, started)
        except BaseException as broken:  # a retry that makes no sense, or a fault of mrq
            return self.of_fault(context, broken, started)

    def of_fault(self, context: JobContext, error: BaseException, started: float) -> Outcome:
        """The outcome of an attempt that could not get a better one because of this error. Never raises."""
        context.error = error
        before = exception_before(error)
        return Outcome(
            status=Status.FAILED,
            ttl=self._config.default_job_ttl,
            cancel_ttl=self._config.default_job_cancel_ttl,
            total_time=monotonic() - started,
            **error_fields(context.record.path, error),
            traceback=format_traceback(error),
            original_traceback=format_traceback(before) if before is not None else None,
        )

    def forced(self, context: JobContext, interrupt: Interrupt, started: float) -> Outcome:
        """The outcome of an attempt that could not be ended, in any thread: that of its code, if the code has
        ended and a plugin around it has not."""
        if type(context.interrupted) not in (TimeoutInterrupt, CancelInterrupt):  # which stand
            context.interrupted = interrupt
        return context.outcome or self.of_exception(context, interrupt, started)

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
            return self._outcome(context, Status.QUEUED, started, error=again, delay=0.0, lost=True)
        return self._outcome(context, Status.FAILED, started, error=error, lost=True)

    def _of_exception(self, context: JobContext, error: BaseException, started: float) -> Outcome:
        loaded, own, kind = context.loaded, context.interrupted, type(error)
        interrupt, problem = error, None
        other = asked_by_another(context, error)
        if own is None:
            if other is not None:
                return self._failed(context, error, started, problem=_ASKED_BY.format(*other))
            if issubclass(kind, _FROM_WORKER):
                return self._failed(context, error, started, problem=_NOT_OURS)
        elif (
            type(own) in (TimeoutInterrupt, CancelInterrupt)
            or issubclass(kind, _FROM_WORKER)
            or not issubclass(kind, Interrupt)
            or other is not None
        ):
            # The code was interrupted and raised another exception on its way out. A timeout and a cancel
            # stand, also if the code then asks for a retry or an abort.
            interrupt = own
            if issubclass(kind, AbortInterrupt | RetryInterrupt):
                problem = _STANDS.format(type(own).__name__)
        # By the real class: an exception of the task may claim another `__class__`.
        for one, status in _INTERRUPTED.items():
            if issubclass(type(interrupt), one):
                return self._outcome(context, status, started, error=error, problem=problem)
        if issubclass(type(interrupt), JobInterrupt):
            at_most_once = context.record.at_most_once or (loaded is not None and loaded.at_most_once)
            again = None if at_most_once else 0.0
            return self._outcome(context, Status.INTERRUPT, started, error=error, delay=again)
        if issubclass(type(interrupt), RetryInterrupt):
            return self._retry(context, cast(RetryInterrupt, interrupt), error, started)
        return self._failed(context, error, started)

    def _failed(
        self, context: JobContext, error: BaseException, started: float, *, problem: str | None = None
    ) -> Outcome:
        loaded = context.loaded
        if loaded is None:  # no retry: nothing of the task ran
            return self._outcome(context, Status.FAILED, started, error=error, problem=problem)
        decision = None
        if self._plugins.implements("mrq_retry_decision"):
            try:
                decision = _interruptible(context, self._decision, context, error)
            except BaseException as broken:
                owners = self._plugins.owners("mrq_retry_decision")
                problem = f"mrq_retry_decision of {owners} raised {shown_error(broken)}"
        if decision is None:
            decision = loaded.retry.decide(error)
        if decision.retry:
            request = RetryInterrupt(delay=decision.delay)
            return self._retry(context, request, error, started, problem=problem)
        return self._outcome(context, Status.FAILED, started, error=error, problem=problem)

    def _decision(self, context: JobContext, error: BaseException) -> RetryDecision | None:
        """The decision of the plugins. Raises what a plugin raises, and ConfigError for another value."""
        decision = self._plugins.hook.mrq_retry_decision(job=context.record, exception=error)
        if decision is None:
            return None
        if type(decision) is not RetryDecision or type(decision.retry) is not bool:
            raise ConfigError(f"it returned a {type(decision).__name__}: expected a RetryDecision or None")
        check_times(decision.delay, None)
        return decision

    def _retry(
        self,
        context: JobContext,
        request: RetryInterrupt,
        error: BaseException,
        started: float,
        *,
        problem: str | None = None,
    ) -> Outcome:
        record, loaded = context.record, context.loaded
        rule = loaded.retry if loaded else None
        queue = None if request.queue is None else check_job_queue_name(request.queue)
        most = rule.max_retries if rule else self._config.default_job_max_retries
        if request.max_retries is not None and not record.at_most_once:
            most = request.max_retries
        if record.retry_count >= most:
            return self._outcome(context, Status.MAXRETRIES, started, error=error, problem=problem)
        check_times(request.delay, None)
        delay = number_of(request.delay)  # a plain number: calculations call no code of the task
        if delay is None:
            delay = rule.delay_of(record.retry_count) if rule else self._config.default_job_retry_delay
        return self._outcome(
            context,
            Status.RETRY if delay > 0 else Status.QUEUED,
            started,
            error=error,
            problem=problem,
            delay=delay,
            is_retry=True,
            queue=queue,
        )

    def _outcome(
        self,
        context: JobContext,
        status: Status,
        started: float,
        *,
        error: BaseException,
        problem: str | None = None,
        **more: Any,
    ) -> Outcome:
        """`problem`: a line after the traceback."""
        loaded, before = context.loaded, exception_before(error)
        text = _interruptible(context, format_traceback, error)
        return Outcome(
            status=status,
            ttl=self._ttl(loaded, status),
            cancel_ttl=loaded.cancel_ttl if loaded else self._config.default_job_cancel_ttl,
            total_time=monotonic() - started,
            **_interruptible(context, error_fields, context.record.path, error),
            traceback=f"{text}{printable(problem)}\n" if problem else text,
            original_traceback=(
                _interruptible(context, format_traceback, before) if before is not None else None
            ),
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


def _log_swallowed(context: JobContext, interrupt: BaseException, what: str) -> None:
    context.log.write("WARNING", f"the code swallowed {type(interrupt).__name__} and {what}", now_ms())


def _interruptible(context: JobContext, function: Callable[..., T], *arguments: object) -> T:
    """Calls a function that calls code of a task or a plugin after the task's code has ended."""
    was_in_code, context.in_code = context.in_code, True
    try:
        value = function(*arguments)
    except BaseException as error:
        forking.end_if_child(error)
        raise
    finally:
        context.in_code = was_in_code
    forking.end_if_child()
    return value


def _dispose(result: object) -> None:
    """Closes a generator or coroutine that a task returned by mistake, because nothing will run it."""
    if type(result) in (GeneratorType, CoroutineType):
        try:
            result.close()  # type: ignore[attr-defined]
        except Interrupt:
            raise
        except BaseException:  # code of the task
            pass
