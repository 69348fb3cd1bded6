"""The objects that a task's code reaches while it runs: its job, its worker, the configuration, its log.

The worker sets the running job as a context variable, which is the only ambient state of mrq.
Greenlets do not inherit context variables; `spawn` and `subpool_map` copy them.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, cast

from mrq_core.client.ambient import ambient_client, current_client
from mrq_core.client.attempt import current_attempt
from mrq_core.client.client import Client
from mrq_core.client.handles import Job
from mrq_core.clock import monotonic
from mrq_core.config.loading import is_loading, refuse_while_loading
from mrq_core.contract.messages import Outcome
from mrq_core.contract.naming import check_job_queue_name, check_times
from mrq_core.contract.plain import number_of, whole_of
from mrq_core.contract.record import JobRecord
from mrq_core.errors import AbortInterrupt, Interrupt, InvalidValue, NoCurrentJob, RetryInterrupt, shown
from mrq_core.running.job_log import JobLog
from mrq_core.tasks.loading import LoadedTask

_CALL_MOST = 0.9
"""Seconds. The watchdog repeats an interrupt that was held back a second later."""

log = logging.getLogger("mrq.job")
"""A logger for the code of tasks. The standard logging functions work as well."""


class JobContext:
    """One attempt of a job, as its code and its runner see it.

    `in_code` is True while code of the task or of a plugin around it runs: only then may an interrupt be
    raised. A `shield` defers interrupts of its greenlet. Only the thread of the hub changes the attributes.
    """

    outcome: Outcome | None = None
    """The outcome of the code, while plugins around the job still run."""
    error: BaseException | None = None
    """The exception that ended the attempt, until its line is logged."""
    is_told: bool = False
    """Whether another process has logged the end of the attempt."""

    def __init__(self, record: JobRecord, client: Client, log: JobLog, worker: object = None) -> None:
        self.record = record
        self.client = client
        self.log = log
        self.worker = worker
        self.loaded: LoadedTask | None = None
        self.in_code = False
        self.interrupted: Interrupt | None = None
        self.progress: float | None = None
        self._shields: dict[int, int] = {}
        self._calls: dict[int, list[float]] = {}
        """When each call under a short shield has held its first interrupt back, by greenlet, if it has."""
        self._held_back: dict[int, Interrupt] = {}

    @property
    def attempt(self) -> tuple[str, int]:
        """Identifies the attempt: the id of the job, and the number of its claim."""
        return self.record.id, self.record.claims

    def set_progress(self, ratio: float) -> None:
        """Sets the progress of the job, from 0 to 1; the worker stores it within a second."""
        try:  # numbers of other libraries too, but neither text nor a bool
            number = math.nan if isinstance(ratio, str | bytes | bool) else float(ratio)
        except Exception:  # of a `__float__`
            number = math.nan
        if not 0 <= number <= 1:
            raise InvalidValue(f"the progress is {shown(ratio)}: expected a number from 0 to 1", path="ratio")
        self.progress = number

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Defers interrupts to the end of the block, for a call that must complete."""
        me = threading.get_ident()
        self._shields[me] = self._shields.get(me, 0) + 1
        try:
            yield
        finally:
            self._shields[me] -= 1
            if not self._shields[me]:
                del self._shields[me]
                held_back = self._held_back.pop(me, None)
                if held_back is not None:
                    raise held_back

    @contextmanager
    def shield_call(self) -> Iterator[None]:
        """Like `shield`, for a call that may wait for a server: defers an interrupt by `_CALL_MOST`."""
        me = threading.get_ident()
        if me in self._calls or me in self._shields:
            yield
            return
        self._calls[me] = []
        try:
            yield
        finally:
            del self._calls[me]
            held_back = self._held_back.pop(me, None)
            if held_back is not None:
                raise held_back

    def accept(self, interrupt: Interrupt, greenlet: int) -> bool:
        """Whether to raise the interrupt in this greenlet of the job now. A shield of the greenlet defers it.

        Greenlets are identified as by threading.get_ident in patched code."""
        if not self.in_code:
            return False
        self.interrupted = interrupt
        if greenlet in self._shields:
            self._held_back[greenlet] = interrupt
            return False
        held_since = self._calls.get(greenlet)
        if held_since is not None:
            now = monotonic()
            if not held_since:
                held_since.append(now)
            if now - held_since[0] < _CALL_MOST:
                self._held_back[greenlet] = interrupt
                return False
            self._held_back.pop(greenlet, None)
        return True


current_context = cast("ContextVar[JobContext | None]", current_attempt)
"""The attempt of the job that runs this code."""


@contextmanager
def shielded() -> Iterator[None]:
    """Defers interrupts of the current job to the end of the block. Has no effect outside a job."""
    context = current_context.get()
    if context is None:
        yield
        return
    with context.shield():
        yield


def get_current_job() -> Job | None:
    """The job that runs this code. None: no job runs."""
    context = current_context.get()
    return None if context is None else Job(context.record.id, client=context.client, running=context)


def get_current_worker() -> Any:
    """The worker that runs this job. None: no job runs."""
    context = current_context.get()
    return None if context is None else context.worker


def get_current_config() -> dict[str, object]:
    """The configuration as a dict: settings, and other upper-case names of the config file.

    Raises ConfigError in the config file itself, which is not read completely then."""
    code = is_loading.get()
    if code is not None and ambient_client.get() is None:
        if code.config is not None:
            return code.config.as_dict()
        refuse_while_loading("the configuration")
    return current_client().config.as_dict()


def retry_current_job(
    delay: float | None = None, max_retries: int | None = None, queue: str | None = None
) -> None:
    """Ends this attempt and retries the job `delay` seconds later, on `queue` if given.

    Delay and max_retries default to the task's options; when no retry is left, the job becomes
    `maxretries`. Never returns: raises RetryInterrupt, which the task must let pass.
    """
    context = _required("retry_current_job")
    check_times(delay, None)
    most = whole_of(max_retries)
    if max_retries is not None and (most is None or most < 0):
        raise InvalidValue(
            f"max_retries is {shown(max_retries)}: expected a whole number, not negative", path="max_retries"
        )
    if queue is not None:
        queue = check_job_queue_name(queue)
    interrupt = RetryInterrupt(delay=number_of(delay), max_retries=most, queue=queue)
    interrupt.asked_by = context.attempt
    raise interrupt


def abort_current_job() -> None:
    """Ends the job with the status `abort`. Never returns; raises AbortInterrupt."""
    context = _required("abort_current_job")
    interrupt = AbortInterrupt("the task asked to be aborted")
    interrupt.asked_by = context.attempt
    raise interrupt


def set_current_job_progress(ratio: float) -> None:
    """Sets the progress of the current job, from 0 to 1."""
    _required("set_current_job_progress").set_progress(ratio)


def _required(what: str) -> JobContext:
    context = current_context.get()
    if context is None:
        raise NoCurrentJob(f"{what}() was called outside of a job")
    return context
