"""Runs one attempt of a job: from its record to its Outcome.

This is the only place where a task's code is called, and where whatever it does - return, raise,
exit, be interrupted - becomes an outcome. It touches no broker.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from types import TracebackType
from typing import Any

from mrq_core.config.settings import Config
from mrq_core.contract.codec import JsonObject, printable, storable
from mrq_core.contract.messages import Outcome
from mrq_core.contract.naming import check_times
from mrq_core.contract.record import JobRecord, RetryDecision, Status
from mrq_core.errors import (
    AbortInterrupt,
    CancelInterrupt,
    ClaimLost,
    Interrupt,
    JobInterrupt,
    MrqError,
    RetryInterrupt,
    TimeoutInterrupt,
)
from mrq_core.plugins.manager import Plugins
from mrq_core.running.context import JobContext
from mrq_core.tasks.loading import LoadedTask, load_task

_TRACEBACK_HEAD, _TRACEBACK_TAIL = 20_000, 60_000
_OUR_FILES = ("/mrq_core/worker/running.py", "/mrq_core/tasks/task.py")


class Runner:
    """Turns attempts into outcomes. Tasks are loaded once in a process, and again after a failure to."""

    def __init__(self, config: Config, plugins: Plugins) -> None:
        self._config = config
        self._plugins = plugins
        self._loaded: dict[str, LoadedTask] = {}

    def run(self, context: JobContext, on_start: Callable[[LoadedTask], None]) -> Outcome:
        """Runs the job's task. `on_start` is called with the loaded task before its code is."""
        started = time.monotonic()
        outcome: Outcome
        try:
            loaded = self._load(context.record.path)
        except Exception as error:  # a module's __getattr__ may raise anything
            return self._outcome(None, Status.FAILED, started, error=error)
        context.loaded = loaded
        try:
            _refuse_second_start(context.record, loaded)
            params = self._params(context)
            on_start(loaded)
            result = _call(context, loaded, params)
            outcome = self._success(loaded, result, started)
        except BaseException as error:
            context.in_code = False
            try:
                outcome = self._from_exception(context, loaded, error, started)
            except Exception as broken:  # what a plugin decided makes no sense
                outcome = self._outcome(loaded, Status.FAILED, started, error=broken)
        return outcome

    def forced(self, context: JobContext, interrupt: Interrupt, started: float) -> Outcome:
        """The outcome of an attempt whose code could not be ended. `started` is monotonic time."""
        return self._from_exception(context, context.loaded, interrupt, started)

    def _load(self, path: str) -> LoadedTask:
        loaded = self._loaded.get(path)
        if loaded is None:
            loaded = self._loaded[path] = load_task(path, self._config)
        return loaded

    def _params(self, context: JobContext) -> JsonObject:
        params = self._plugins.decode(context.record.params)
        if not isinstance(params, dict):
            raise MrqError(
                f"a plugin's mrq_decode made a {type(params).__name__} of the params: expected a dict"
            )
        return params

    def _success(self, loaded: LoadedTask, result: object, started: float) -> Outcome:
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

    def _from_exception(
        self, context: JobContext, loaded: LoadedTask | None, error: BaseException, started: float
    ) -> Outcome:
        if context.interrupted is not None and not isinstance(error, Interrupt):
            # The code was told to stop and raised something else on its way out.
            interrupt: BaseException = context.interrupted
        else:
            interrupt = error
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
                return self._retry(context, loaded, interrupt, started, error)
            case _:
                return self._failed(context, loaded, error, started)

    def _failed(
        self, context: JobContext, loaded: LoadedTask | None, error: BaseException, started: float
    ) -> Outcome:
        decision: RetryDecision | None = None
        if self._plugins.implements("mrq_retry_decision"):
            try:
                decision = self._plugins.hook.mrq_retry_decision(job=context.record, exception=error)
            except Exception as broken:
                error.add_note(f"a plugin's mrq_retry_decision raised {type(broken).__name__}: {broken}")
        if decision is None and loaded is not None:
            decision = loaded.retry.decide(error)
        if decision is not None and decision.retry:
            return self._retry(context, loaded, RetryInterrupt(delay=decision.delay), started, error)
        return self._outcome(loaded, Status.FAILED, started, error=error)

    def _retry(
        self,
        context: JobContext,
        loaded: LoadedTask | None,
        wish: RetryInterrupt,
        started: float,
        error: BaseException,
    ) -> Outcome:
        record = context.record
        rule = loaded.retry if loaded else None
        most = rule.max_retries if rule else self._config.default_job_max_retries
        if wish.max_retries is not None and not record.at_most_once:
            most = wish.max_retries
        if record.retry_count >= most:
            return self._outcome(loaded, Status.MAXRETRIES, started, error=error)
        delay = wish.delay
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
            queue=wish.queue,
        )

    def _outcome(
        self,
        loaded: LoadedTask | None,
        status: Status,
        started: float,
        *,
        error: BaseException | None = None,
        **more: Any,
    ) -> Outcome:
        before = _exception_before(error) if error is not None else None
        return Outcome(
            status=status,
            ttl=self._ttl(loaded, status),
            cancel_ttl=loaded.cancel_ttl if loaded else self._config.default_job_cancel_ttl,
            total_time=time.monotonic() - started,
            exception_type=type_name(error) if error is not None else None,
            traceback=format_traceback(error) if error is not None else None,
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


def _refuse_second_start(record: JobRecord, loaded: LoadedTask) -> None:
    """An at_most_once job that was queued where its code was not at hand is stored as an ordinary one, and
    so is claimed again after a lost claim: then it is stopped here."""
    if loaded.at_most_once and record.history and record.history[-1].lost:
        raise ClaimLost(
            f"the claim of worker {record.history[-1].worker} was lost while it ran this job, and an "
            "at_most_once job is never started twice",
            job_id=record.id,
        )


def _call(context: JobContext, loaded: LoadedTask, params: JsonObject) -> object:
    """The task's own code; interrupts are raised only between the two lines that set in_code."""
    context.in_code = True
    try:
        return loaded.task_class().run_wrapped(params)
    finally:
        context.in_code = False


def _dispose(result: object) -> None:
    """Closes a generator or coroutine that a task returned instead of a value: nobody will run it."""
    if result is None:
        return
    close = getattr(result, "close", None)
    if type(result).__name__ in ("generator", "coroutine") and close is not None:
        close()


def _exception_before(error: BaseException) -> BaseException | None:
    """The exception that this one came from, unless it was raised ``from None``."""
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def type_name(error: BaseException) -> str:
    """The exception's class as ``module.Name``; without the module for built-in ones."""
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def format_traceback(error: BaseException) -> str:
    """The traceback as text, without the runner's frames, its middle cut out if it is very long."""
    text = printable(
        "".join(traceback.format_exception(type(error), error, _task_frames(error.__traceback__)))
    )
    if len(text) > _TRACEBACK_HEAD + _TRACEBACK_TAIL:
        text = f"{text[:_TRACEBACK_HEAD]}\n  ... cut ...\n{text[-_TRACEBACK_TAIL:]}"
    return text


def _task_frames(frames: TracebackType | None) -> TracebackType | None:
    while frames is not None and frames.tb_frame.f_code.co_filename.endswith(_OUR_FILES):
        frames = frames.tb_next
    return frames
