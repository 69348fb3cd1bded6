"""What a task's code can reach while it runs: its job, its worker, the configuration, its log.

The running job is a context variable that the runner sets; it is the only ambient thing there
is. Greenlets do not inherit context variables: `spawn` and `subpool_map` hand them on.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar

from mrq_core.client.client import Client, current_client
from mrq_core.client.handles import Job
from mrq_core.contract.naming import check_job_queue_name, check_times
from mrq_core.contract.record import JobRecord
from mrq_core.errors import AbortInterrupt, Interrupt, InvalidValue, NoCurrentJob, RetryInterrupt
from mrq_core.running.logs import JobLog
from mrq_core.tasks.loading import LoadedTask

if TYPE_CHECKING:
    pass

T = TypeVar("T")
R = TypeVar("R")

log = logging.getLogger("mrq.job")
"""The logger for tasks' code. The standard logging functions work as well."""


class JobContext:
    """One attempt of a job, as its code and its runner see it.

    `in_code` is True while the task's code runs: only then may an interrupt be raised. A `shield`
    holds interrupts of its greenlet back until it is left. Changed only by the thread of the hub.
    """

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
        self._held_back: dict[int, Interrupt] = {}

    def set_progress(self, ratio: float) -> None:
        """Notes how far the job is; the worker stores it within a second."""
        number = float(ratio)
        if not 0 <= number <= 1:
            raise InvalidValue(f"the progress is {ratio!r}: expected a number from 0 to 1", path="ratio")
        self.progress = number

    @contextmanager
    def shield(self) -> Iterator[None]:
        """Holds interrupts back: for a call that must not be left half done."""
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

    def accept(self, interrupt: Interrupt, greenlet: int) -> bool:
        """Whether the interrupt is to be raised in this greenlet of the job now. A shield that the greenlet
        holds keeps it for later. Greenlets are named as by threading.get_ident in patched code."""
        if not self.in_code:
            return False
        self.interrupted = interrupt
        if greenlet in self._shields:
            self._held_back[greenlet] = interrupt
            return False
        return True


current_context: ContextVar[JobContext | None] = ContextVar("mrq_job", default=None)


@contextmanager
def shielded() -> Iterator[None]:
    """Holds interrupts of the current job back; nothing outside of a job."""
    context = current_context.get()
    if context is None:
        yield
        return
    with context.shield():
        yield


def get_current_job() -> Job | None:
    """The job that is running this code, or None outside of a job."""
    context = current_context.get()
    return None if context is None else Job(context.record.id, client=context.client, running=context)


def get_current_worker() -> Any:
    """The worker that is running this job, or None outside of a worker."""
    context = current_context.get()
    return None if context is None else context.worker


def get_current_config() -> dict[str, object]:
    """The configuration by upper-case names: settings, and the config file's other names."""
    return current_client().config.as_dict()


def retry_current_job(
    delay: float | None = None, max_retries: int | None = None, queue: str | None = None
) -> None:
    """Ends this attempt and asks for another, `delay` seconds later, on another queue if one is named.

    Delay and max_retries default to the task's options; when no retry is left, the job becomes
    `maxretries`. Never returns: raises RetryInterrupt, which the task must let pass.
    """
    _required("retry_current_job")
    check_times(delay, None)
    if max_retries is not None and (not isinstance(max_retries, int) or max_retries < 0):
        raise InvalidValue(
            f"max_retries is {max_retries!r}: expected a whole number, not negative", path="max_retries"
        )
    if queue is not None:
        check_job_queue_name(queue)
    raise RetryInterrupt(delay=delay, max_retries=max_retries, queue=queue)


def abort_current_job() -> None:
    """Ends the job with the status `abort`. Never returns: raises AbortInterrupt."""
    _required("abort_current_job")
    raise AbortInterrupt("the task asked to be aborted")


def set_current_job_progress(ratio: float) -> None:
    """Tells how far the current job is, from 0 to 1."""
    _required("set_current_job_progress").set_progress(ratio)


def _required(what: str) -> JobContext:
    context = current_context.get()
    if context is None:
        raise NoCurrentJob(f"{what}() was called outside of a job")
    return context
