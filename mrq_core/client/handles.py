"""Handles: a job by its id, a queue by its name."""

from __future__ import annotations

import time
from typing import Protocol

from mrq_core.client.client import Client, current_client
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Cancel, ChangeResult, Requeue
from mrq_core.contract.naming import check_job_queue_name, check_queue_or_tree, is_covered
from mrq_core.contract.record import JobRecord
from mrq_core.errors import ChangeRefused, ConfigError, JobNotFound, NoCurrentJob, WaitTimeout
from mrq_core.operations.queues import waiting_in

_WAIT_FIRST, _WAIT_MOST = 0.005, 0.25


class RunningAttempt(Protocol):
    """The attempt that runs this code, for the handle of the current job."""

    record: JobRecord

    def set_progress(self, ratio: float) -> None: ...


class Job:
    """A handle of one job. Making a handle does no I/O, and does not check that the job exists."""

    def __init__(
        self, job_id: str, *, client: Client | None = None, running: RunningAttempt | None = None
    ) -> None:
        self.id = job_id
        self._client = client or current_client()
        self._running = running

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    @property
    def record(self) -> JobRecord:
        """The record: inside the job itself the claimed record, elsewhere the stored record."""
        if self._running is not None:
            return self._client.decoded(self._running.record)
        return self.fetch()

    @property
    def params(self) -> JsonObject:
        """The params of the job."""
        return self.record.params

    def fetch(self) -> JobRecord:
        """Reads the stored record. Raises JobNotFound."""
        return self._client.fetch(self.id)

    def wait(self, timeout: float | None = None) -> JobRecord:
        """Blocks until the job has ended, with any status, and returns its record.

        Polls the broker at growing intervals of at most 0.25 seconds.
        Raises WaitTimeout after `timeout` seconds, and JobNotFound.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        pause = _WAIT_FIRST
        while True:
            record = self.fetch()
            if record.is_ended:
                return record
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise WaitTimeout(
                    f"job {self.id} has not ended after {timeout:g} s: its status is {record.status}",
                    job_id=self.id,
                )
            time.sleep(pause if left is None else min(pause, left))
            pause = min(pause * 1.5, _WAIT_MOST)

    def cancel(self, *, interrupt: bool = False) -> ChangeResult:
        """Cancels the job. A running job is only marked (REQUESTED): its attempt finishes, but the job does
        not run again. With `interrupt` its worker stops it. Raises ChangeRefused and JobNotFound."""
        how = Cancel(interrupt=interrupt, ttl=self._cancel_ttl())
        return self._done(self._client.broker.cancel([self.id], how)[0], "cancelled")

    def requeue(self, *, queue: str | None = None, reset_retries: bool = True) -> ChangeResult:
        """Queues a job again that has ended or waits for a retry. Raises ChangeRefused and JobNotFound."""
        if queue is not None:
            check_job_queue_name(queue)
        how = Requeue(queue=queue, reset_retries=reset_retries)
        return self._done(self._client.broker.requeue([self.id], how)[0], "requeued")

    def set_progress(self, ratio: float) -> None:
        """Sets the progress of the job, from 0 to 1. Raises NoCurrentJob outside the running job."""
        if self._running is None:
            raise NoCurrentJob("only the running job itself can set its progress")
        self._running.set_progress(ratio)

    def _cancel_ttl(self) -> float:
        """The task's `cancel_ttl`, or the default if the task cannot be loaded here."""
        path = self.fetch().path
        try:
            options = self._client.options_of(path)
        except ConfigError:
            options = None
        return options.cancel_ttl if options else self._client.config.default_job_cancel_ttl

    def _done(self, change: ChangeResult, what: str) -> ChangeResult:
        if change is ChangeResult.UNKNOWN:
            raise JobNotFound(self.id)
        if change in (ChangeResult.REFUSED, ChangeResult.HELD):
            why = (
                f"its status is {self.fetch().status}"
                if change is ChangeResult.REFUSED
                else "another job holds its unique key"
            )
            raise ChangeRefused(f"job {self.id} cannot be {what}: {why}", job_id=self.id)
        return change


class Queue:
    """A handle of a queue, or of a tree: a name that ends with ``/`` means its subqueues."""

    def __init__(self, name: str, *, client: Client | None = None) -> None:
        check_queue_or_tree(name)
        self.name = name
        self._client = client or current_client()

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    def size(self) -> int:
        """The number of waiting jobs, due or not; claimed jobs do not count. The cost of a tree grows with
        the number of its subqueues."""
        return waiting_in(self._client.broker, self.name)

    def pause(self) -> None:
        """Pauses the queue: within a second workers claim nothing more from it. Running jobs go on."""
        self._client.broker.pause([self.name])

    def resume(self) -> None:
        """Reverses `pause`."""
        self._client.broker.resume([self.name])

    def is_paused(self) -> bool:
        """Whether the queue, or a tree that contains it, is paused."""
        return is_covered(self.name, self._client.broker.paused())
