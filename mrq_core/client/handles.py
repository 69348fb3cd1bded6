"""Handles: a job by its id, a queue by its name."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

from mrq_core.client.ambient import current_client
from mrq_core.client.attempt import RunningAttempt, current_attempt, whole_call
from mrq_core.client.client import Client, checked_client
from mrq_core.clock import monotonic
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Cancel, ChangeResult, Edit, Requeue
from mrq_core.contract.naming import (
    MAX_SECONDS,
    check_job_queue_name,
    check_served_name,
    check_times,
    is_covered,
)
from mrq_core.contract.plain import has_type, number_of
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.values import check_job_id, check_priority
from mrq_core.errors import (
    ChangeRefused,
    ConfigError,
    InvalidValue,
    JobNotFound,
    NoCurrentJob,
    WaitRefused,
    WaitTimeout,
    shown,
)
from mrq_core.operations.queues import pause_queues, pause_tasks, waiting_in
from mrq_core.tasks.loading import check_reachable
from mrq_core.tasks.task import TaskLike

_WAIT_FIRST, _WAIT_MOST = 0.005, 0.25
_WAIT_WARNING = 1.0
"""Seconds after which a job that waits is told if its worker cannot run the other job."""


_waiting: Counter[str] = Counter()
"""The jobs of this process that wait for jobs, with the number of their waits."""

_log = logging.getLogger("mrq.client")


class Job:
    """A handle of one job. Making a handle does no I/O, and does not check that the job exists.

    A handle without a client uses the client of the running job, or else the client of the process, at the
    time of each call.
    """

    def __init__(
        self, job_id: str, *, client: Client | None = None, running: RunningAttempt | None = None
    ) -> None:
        self.id = check_job_id(job_id)
        self._own_client = checked_client(client)
        self._running = running

    @property
    def _client(self) -> Client:
        return self._own_client or current_client()

    def __repr__(self) -> str:
        return f"Job({self.id!r})"

    def __eq__(self, other: object) -> bool:
        return has_type(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __copy__(self) -> Job:
        return self

    def __deepcopy__(self, memo: object) -> Job:
        return self

    def __reduce__(self) -> tuple[type[Job], tuple[str]]:
        """Pickles as its id: the copy uses the client of the process that loads it. Raises TypeError for a
        handle with a client, except that of the running job."""
        if self._running is None:
            _refuse_pickle(self._own_client, f"Job({self.id!r}, client=...)", "id")
        return Job, (self.id,)

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

        Polls the broker at growing intervals of at most 0.25 seconds. Inside a job, logs a warning if all
        greenlets of the worker wait for jobs, so that none is left to run them.
        Raises WaitTimeout after `timeout` seconds, WaitRefused if the job waits for itself, and JobNotFound.
        """
        return self._client.decoded(self._ended(timeout))

    def _ended(self, timeout: float | None) -> JobRecord:
        """Waits as `wait` does. Returns the stored record, whose params and result no plugin has decoded."""
        seconds = 0 if timeout is None else number_of(timeout)
        if seconds is None or not seconds >= 0:
            raise InvalidValue(
                f"timeout is {shown(timeout)}: expected seconds, not negative, or None", path="timeout"
            )
        if timeout is not None:
            timeout = float(min(seconds, MAX_SECONDS))
        attempt = current_attempt.get()
        if attempt is None:
            return self._wait(timeout, None)
        waiting = attempt.record.id
        if waiting == self.id:
            raise WaitRefused(f"job {self.id} waits for itself, and would wait for ever", job_id=self.id)
        if attempt.worker is None:  # `mrq run`
            return self._wait(timeout, None)
        _waiting[waiting] += 1
        try:
            return self._wait(timeout, waiting)
        finally:
            _waiting[waiting] -= 1
            if not _waiting[waiting]:
                del _waiting[waiting]

    def _wait(self, timeout: float | None, waiting: str | None) -> JobRecord:
        """`waiting`: the job that waits, which a warning may concern."""
        started = monotonic()
        deadline = None if timeout is None else started + timeout
        pause = _WAIT_FIRST
        while True:
            record = self._client.stored(self.id)
            if record.is_ended:
                return record
            now = monotonic()
            if deadline is not None and now >= deadline:
                raise WaitTimeout(
                    f"job {self.id} has not ended after {timeout:g} s: its status is {record.status}",
                    job_id=self.id,
                )
            if waiting is not None and now - started >= _WAIT_WARNING and self._is_blocked(record):
                _warn_of_wait(record, waiting, self._client.config.greenlets)
                waiting = None
            time.sleep(pause if deadline is None else min(pause, deadline - now))
            pause = min(pause * 1.5, _WAIT_MOST)

    def _is_blocked(self, record: JobRecord) -> bool:
        """Whether no greenlet of this worker is left for the job, or for the jobs for which it waits."""
        is_behind = record.status.is_waiting or record.id in _waiting
        return is_behind and len(_waiting) >= self._client.config.greenlets

    def cancel(self, *, interrupt: bool = False) -> ChangeResult:
        """Cancels the job. A running job is only marked (REQUESTED): its attempt finishes, but the job does
        not run again. With `interrupt` its worker stops it. Raises ChangeRefused and JobNotFound."""
        how = Cancel(interrupt=_checked_bool("interrupt", interrupt), ttl=self._cancel_ttl())
        with whole_call():
            change = self._client.broker.cancel([self.id], how)[0]
        return self._done(change, "cancelled")

    def requeue(self, *, queue: str | None = None, reset_retries: bool = True) -> ChangeResult:
        """Queues a job again that has ended or waits for a retry. Raises ChangeRefused and JobNotFound."""
        if queue is not None:
            queue = check_job_queue_name(queue)
        how = Requeue(queue=queue, reset_retries=_checked_bool("reset_retries", reset_retries))
        with whole_call():
            change = self._client.broker.requeue([self.id], how)[0]
        return self._done(change, "requeued")

    def edit(
        self,
        *,
        params: Mapping[str, object] | None = None,
        priority: int | None = None,
        delay: float | None = None,
        at: datetime | None = None,
        seen: JobRecord | None = None,
    ) -> ChangeResult:
        """Changes a job that waits. `params` replaces all params, and the search keys with them; `delay` or
        `at` is the new due time. Parts that are None stay, and so do unique key and limit keys.

        The edit is made only if the job was neither claimed nor edited since `seen` was read (None: since
        now). The hook `mrq_before_enqueue` does not see it. Raises InvalidValue, ChangeRefused and
        JobNotFound.
        """
        if params is None and priority is None and delay is None and at is None:
            raise InvalidValue(
                "the edit changes nothing: expected params, priority, delay or at", path="params"
            )
        if seen is not None and type(seen) is not JobRecord:
            raise InvalidValue(
                f"seen is {shown(seen)}: expected the record that `fetch` returned", path="seen"
            )
        if seen is not None and seen.id != self.id:
            raise InvalidValue(
                f"seen is the record of job {seen.id}: expected that of {self.id}", path="seen"
            )
        due_at = check_times(delay, at)
        priority = None if priority is None else check_priority(priority)
        record = self._client.stored(self.id) if seen is None else seen
        stored, keys = (None, {}) if params is None else self._client.stored_params(record.path, params)
        edit = Edit(
            id=self.id,
            claims=record.claims,
            edits=record.edits,
            params=stored,
            search_keys=keys,
            priority=priority,
            delay=number_of(delay),
            due_at=due_at,
        )
        with whole_call():
            change = self._client.broker.edit([edit])[0]
        if change is ChangeResult.REFUSED:
            why = _refusal_of_edit(record, self._client.stored(self.id))
            raise ChangeRefused(f"job {self.id} cannot be edited: {why}", job_id=self.id)
        return self._done(change, "edited")

    def set_progress(self, ratio: float) -> None:
        """Sets the progress of the job, from 0 to 1. Raises NoCurrentJob outside the running job."""
        if self._running is None:
            raise NoCurrentJob("only the running job itself can set its progress")
        self._running.set_progress(ratio)

    def _cancel_ttl(self) -> float:
        """The task's `cancel_ttl`, or the default if the task cannot be loaded here."""
        path = self._client.stored(self.id).path
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
                f"its status is {self._client.stored(self.id).status}"
                if change is ChangeResult.REFUSED
                else "another job holds its unique key"
            )
            raise ChangeRefused(f"job {self.id} cannot be {what}: {why}", job_id=self.id)
        return change


def wait_for_status(job: Job, timeout: float | None) -> Status:
    """Waits as `Job.wait` does, and returns the status alone: no plugin decodes params and result."""
    return job._ended(timeout).status


def _refusal_of_edit(seen: JobRecord, record: JobRecord) -> str:
    """Why an edit was refused. `seen`: the record for which it was meant."""
    if record.is_ended or not record.status.is_waiting:
        hint = ""
        if record.is_ended:
            hint = f"; `mrq jobs requeue {record.id}` queues it again, and it can be edited then"
        return f"only a waiting job can be, and its status is {record.status}{hint}"
    what = "has run" if record.claims != seen.claims else "was edited"
    return f"it {what} since its record was read; read it again"


def _warn_of_wait(record: JobRecord, waiting: str, greenlets: int) -> None:
    _log.warning(
        "job.wait_blocked id=%s waits_for=%s status=%s queue=%s: all %d greenlets of this worker run jobs "
        "that wait for jobs, so this worker starts no job. The wait ends only if another worker runs the "
        "job: start a worker for its queue, raise GREENLETS, or let the job end without a wait",
        waiting, record.id, record.status, record.queue, greenlets,
    )  # fmt: skip


def _checked_bool(name: str, value: object) -> bool:
    if type(value) is not bool:
        raise InvalidValue(f"{name} is {shown(value)}: expected True or False", path=name)
    return value


def _refuse_pickle(client: Client | None, handle: str, attribute: str) -> None:
    """Raises TypeError for a handle that would use another client after a pickle."""
    if client is not None:
        raise TypeError(
            f"{handle} cannot be pickled, because its client has connections: send its {attribute}, and make "
            "the handle with a client of the other process, or without a client"
        )


class Queue:
    """A handle of a queue, or of a tree: a name that ends with ``/`` means its subqueues.

    Making a handle does no I/O, so a module may have one. It finds its client like the handle of a job."""

    def __init__(self, name: str, *, client: Client | None = None) -> None:
        self.name = check_served_name(name)
        self._own_client = checked_client(client)

    @property
    def _client(self) -> Client:
        return self._own_client or current_client()

    def __repr__(self) -> str:
        return f"Queue({self.name!r})"

    def __copy__(self) -> Queue:
        return self

    def __deepcopy__(self, memo: object) -> Queue:
        return self

    def __reduce__(self) -> tuple[type[Queue], tuple[str]]:
        """Pickles as its name: the copy uses the client of the process that loads it. Raises TypeError for a
        handle with a client."""
        _refuse_pickle(self._own_client, f"Queue({self.name!r}, client=...)", "name")
        return Queue, (self.name,)

    def size(self) -> int:
        """The number of waiting jobs, due or not; claimed jobs do not count. The cost of a tree grows with
        the number of its subqueues."""
        return waiting_in(self._client.broker, self.name)

    def pause(self, *, until: datetime | None = None, seconds: float | None = None) -> None:
        """Pauses the queue: within a second workers claim nothing more from it. Running jobs go on.

        The pause ends at `until`, an aware datetime, or after these seconds, by the broker's clock, or with
        `resume`. Raises InvalidValue for a time that is not in the future."""
        pause_queues(self._client.broker, [self.name], until=until, seconds=seconds)

    def resume(self) -> None:
        """Reverses `pause`."""
        self._client.broker.resume([self.name])

    def is_paused(self) -> bool:
        """Whether the queue, or a tree that contains it, is paused."""
        return is_covered(self.name, self._client.broker.paused())


def pause_task(
    task: TaskLike,
    *,
    until: datetime | None = None,
    seconds: float | None = None,
    client: Client | None = None,
) -> None:
    """Pauses a task in all queues: within a second workers start none of its jobs. Running jobs go on, and
    waiting jobs use no attempt. The pause ends as that of a `Queue`."""
    broker = (checked_client(client) or current_client()).broker
    pause_tasks(broker, [check_reachable(task)], until=until, seconds=seconds)


def resume_task(task: TaskLike, *, client: Client | None = None) -> None:
    """Reverses `pause_task`."""
    (checked_client(client) or current_client()).broker.resume_tasks([check_reachable(task)])
