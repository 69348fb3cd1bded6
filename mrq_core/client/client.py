"""Enqueues jobs and returns their results.

Works without gevent, in any thread of any process. The functions of this module use the client of the
running job, or else the client of the process: the client that `configure` set, or a new client with the
configuration that the command line finds.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from itertools import islice
from typing import Unpack

from msgspec.structs import replace

from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue, storable_params
from mrq_core.contract.messages import CHUNK, NewJob
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import InvalidValue, JobNotFound, TaskError
from mrq_core.ids import new_id
from mrq_core.plugins.manager import Plugins, open_broker
from mrq_core.tasks.enqueue_options import EnqueueOptions, SingleEnqueueOptions, record_template
from mrq_core.tasks.loading import LoadedTask, check_reachable, load_task, resolve_options
from mrq_core.tasks.options import TaskOptions, options_from
from mrq_core.tasks.task import Task, TaskFunction, TaskLike, path_of

_MOST_OPTIONS = 10_000
"""The most tasks whose options a client keeps."""


class Client:
    """A configuration with its plugins and its broker, for code that enqueues jobs and reads them."""

    def __init__(self, config: Config, broker: Broker | None = None, plugins: Plugins | None = None) -> None:
        self.config = config
        self.plugins = plugins or Plugins(config)
        self.broker = broker or open_broker(config, self.plugins)
        self._options: dict[TaskLike, LoadedTask] = {}

    def queue_job(
        self,
        task: TaskLike,
        params: Mapping[str, object] | None = None,
        queue: str | None = None,
        **options: Unpack[SingleEnqueueOptions],
    ) -> str:
        """Queues one job and returns its id. `queue` defaults to the queue of the task.

        Raises like `queue_jobs`; a call without an answer can be repeated with the same `job_id`.
        """
        template = self._template("queue_job", task, queue, options)
        job = self._new_job(template, {} if params is None else params, task, options.get("delay"))
        return self._enqueue([job])[0]

    def queue_jobs(
        self,
        task: TaskLike,
        params_list: Iterable[Mapping[str, object]],
        queue: str | None = None,
        batch_size: int = CHUNK,
        **options: Unpack[EnqueueOptions],
    ) -> list[str]:
        """Queues one job for each item of `params_list`, in batches, and returns their ids in order.

        `params_list` may be a generator. A batch is checked as a whole before it is sent: if one of
        its items cannot be stored, no job of the batch is queued. A note on the error tells how many jobs
        of earlier batches are queued.
        Raises InvalidValue, TypeError for an unknown option, or BrokerUnavailable if the broker does not
        answer in time; the batch is then queued or not queued.
        """
        if not isinstance(batch_size, int) or not 1 <= batch_size <= CHUNK:
            raise InvalidValue(
                f"batch_size is {batch_size}: expected a number from 1 to {CHUNK}", path="batch_size"
            )
        template = self._template("queue_jobs", task, queue, options)
        delay = options.get("delay")
        ids: list[str] = []
        try:
            for batch in _batches(params_list, batch_size):
                ids += self._enqueue([self._new_job(template, params, task, delay) for params in batch])
        except Exception as error:  # also what a generator of params raises
            error.add_note(f"{len(ids)} jobs of earlier batches are queued")
            raise
        return ids

    def get_job_result(self, job_id: str) -> dict[str, JsonValue]:
        """The ``status`` of a job, and its ``result``, which is None unless the job succeeded. Raises
        JobNotFound."""
        record = self.fetch(job_id)
        return {"status": str(record.status), "result": record.result}

    def fetch(self, job_id: str) -> JobRecord:
        """Reads the record of a job; params and result are decoded. Raises JobNotFound."""
        record = self.broker.get([job_id])[0]
        if record is None:
            raise JobNotFound(job_id)
        return self.decoded(record)

    def decoded(self, record: JobRecord) -> JobRecord:
        """The record with params and result as before `mrq_encode`."""
        if not self.plugins.implements("mrq_decode"):
            return record
        params = self.plugins.decode(record.params)
        return replace(
            record,
            params=params if isinstance(params, dict) else record.params,
            result=self.plugins.decode(record.result) if record.status is Status.SUCCESS else record.result,
        )

    def close(self) -> None:
        """Closes the broker's connections."""
        self.broker.close()

    def _template(
        self,
        call: str,
        task: TaskLike,
        queue: str | None,
        options: EnqueueOptions | SingleEnqueueOptions,
    ) -> JobRecord:
        """The record that the jobs of one call share; see `record_template`."""
        check_reachable(task)
        path = path_of(task)
        defaults = self.options_of(task) or self._overrides_of(path)
        return record_template(call, path, queue, options, defaults)

    def options_of(self, task: TaskLike) -> LoadedTask | None:
        """The options of the task, or None if its code cannot be imported here: a process that enqueues does
        not need the code. Keeps the options of a found task; searches again for a task that was not found."""
        options = self._options.get(task)
        if options is None:
            options = self._find_options(task)
            if options is not None and len(self._options) < _MOST_OPTIONS:
                self._options[task] = options
        return options

    def _find_options(self, task: TaskLike) -> LoadedTask | None:
        path = path_of(task)
        if isinstance(task, TaskFunction):
            return resolve_options(path, task.task_class, self.config)
        if isinstance(task, type) and issubclass(task, Task):
            return resolve_options(path, task, self.config)
        try:
            return load_task(path, self.config)
        except TaskError:
            return None

    def _overrides_of(self, path: str) -> TaskOptions:
        """The options in TASKS of a task whose code cannot be imported here."""
        return options_from(self.config.tasks.get(path, {}), where=f"TASKS[{path!r}]")

    def _new_job(
        self, template: JobRecord, params: Mapping[str, object], task: TaskLike, delay: float | None
    ) -> NewJob:
        checked = storable_params(params, max_size=self.config.max_params_size)
        if isinstance(task, TaskFunction):
            task.arguments_from(checked)
        record = replace(template, id=template.id or new_id(), params=self.plugins.encode_params(checked))
        return NewJob(record=self.plugins.before_enqueue(record), delay=delay)

    def _enqueue(self, jobs: list[NewJob]) -> list[str]:
        answers = self.broker.enqueue(jobs)
        if self.plugins.implements("mrq_jobs_enqueued"):
            created = [job.record for job, answer in zip(jobs, answers, strict=True) if answer.created]
            if created:
                self.plugins.observe("mrq_jobs_enqueued", records=created)
        return [answer.id for answer in answers]


def _batches(items: Iterable[Mapping[str, object]], size: int) -> Iterator[Sequence[Mapping[str, object]]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


# --- the client of the process ------------------------------------------------------------------

ambient_client: ContextVar[Client | None] = ContextVar("mrq_client", default=None)
"""The client of the running job; set by the worker."""

_process_client: Client | None = None
_lock = threading.Lock()


def _after_fork() -> None:
    """Replaces the lock: a thread of the parent may have held it, and would never release it here."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


def configure(*, file: str | None = None, **settings: object) -> Client:
    """Sets the client of this process, for instance ``configure(broker="sqlite:///jobs.sqlite3")``.

    The settings override environment and config file, like flags of the command line. Raises ConfigError.
    """
    return set_process_client(Client(load_config(settings, file=file)))


def set_process_client(client: Client) -> Client:
    """Makes this the client of the process. Does not close an earlier client."""
    global _process_client
    with _lock:
        _process_client = client
    return client


def current_client() -> Client:
    """The client of the running job, or else the client of the process, made now if missing.

    Raises ConfigError."""
    global _process_client
    client = ambient_client.get() or _process_client
    if client is None:
        with _lock:
            if _process_client is None:
                _process_client = Client(load_config())
            client = _process_client
    return client


def queue_job(
    task: TaskLike,
    params: Mapping[str, object] | None = None,
    queue: str | None = None,
    **options: Unpack[SingleEnqueueOptions],
) -> str:
    """Queues one job and returns its id; see `Client.queue_job`."""
    return current_client().queue_job(task, params, queue, **options)


def queue_jobs(
    task: TaskLike,
    params_list: Iterable[Mapping[str, object]],
    queue: str | None = None,
    batch_size: int = CHUNK,
    **options: Unpack[EnqueueOptions],
) -> list[str]:
    """Queues many jobs and returns their ids; see `Client.queue_jobs`."""
    return current_client().queue_jobs(task, params_list, queue, batch_size, **options)


def get_job_result(job_id: str) -> dict[str, JsonValue]:
    """The ``status`` and ``result`` of a job; see `Client.get_job_result`. Raises JobNotFound."""
    return current_client().get_job_result(job_id)
