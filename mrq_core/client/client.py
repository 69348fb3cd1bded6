"""Enqueues jobs and returns their results. Works without gevent, in any thread of any process."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import islice
from typing import Any, NoReturn, Unpack

from msgspec.structs import replace

from mrq_core.client.attempt import whole_call
from mrq_core.client.threads import ThreadBrokers
from mrq_core.clock import after
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject, JsonValue, storable_params
from mrq_core.contract.exception_fields import add_note
from mrq_core.contract.messages import CHUNK, Enqueued, Limit, NewJob, Unique
from mrq_core.contract.plain import from_other_copy, has_type, is_mapping, number_of, text_of, whole_of
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.signal_errors import is_ctrl_c, is_made, raised_by_handler
from mrq_core.contract.terms import keys_in
from mrq_core.contract.values import check_job_id
from mrq_core.drivers import open_files
from mrq_core.errors import (
    BrokerError,
    BrokerUnavailable,
    CallRefused,
    ConfigError,
    InvalidValue,
    JobNotFound,
    TaskError,
    shown,
    shown_error,
)
from mrq_core.ids import new_id
from mrq_core.operations.limits import publish_missing_limits
from mrq_core.plugins.manager import Plugins
from mrq_core.plugins.opening import open_broker
from mrq_core.tasks.enqueue_options import EnqueueOptions, SingleEnqueueOptions, is_decided, record_template
from mrq_core.tasks.import_waits import ImportWaits
from mrq_core.tasks.limits import limit_keys_in, rules_in
from mrq_core.tasks.loading import LoadedTask, check_reachable, load_task, resolve_options
from mrq_core.tasks.options import TaskOptions, options_from
from mrq_core.tasks.task import Task, TaskFunction, TaskLike, path_of

_log = logging.getLogger("mrq.client")

_MOST_OPTIONS = 10_000
"""The most tasks whose options a client keeps."""
_NO_OPTIONS = TaskOptions()
_PUBLISHED = ("queue", "priority", "at_most_once", "searchable", "limits")
"""The options of a task that decide about its new jobs."""

_is_observed: ContextVar[bool] = ContextVar("mrq_is_observed", default=False)
"""Whether observers of enqueued jobs run. Jobs that they queue are not observed: that would not end."""


class Client:
    """A configuration with its plugins and its broker, for code that enqueues jobs and reads them."""

    def __init__(self, config: Config, broker: Broker | None = None, plugins: Plugins | None = None) -> None:
        if not has_type(config, Config):
            raise ConfigError(
                f"config is {shown(config)}: expected a Config, as load_config() of "
                "mrq_core.config.sources returns; configure(broker=...) makes a client of settings"
                f"{from_other_copy(config, Config)}"
            )
        self.config = config
        if plugins is None:
            open_files.require_one("a client")
            plugins = Plugins(config)
        self.plugins = plugins
        opened = broker or open_broker(config, self.plugins)
        self._brokers = ThreadBrokers(opened, lambda: open_broker(config, self.plugins, again=True))
        self._is_kept_open = False
        self._options: dict[str | int, LoadedTask] = {}
        self._kept_tasks: list[TaskLike] = []
        """The task objects whose identities are keys of `_options`."""
        self._overrides: dict[str, TaskOptions] = {}
        self._learned: dict[str, TaskOptions] = {}
        self._with_limits: set[str] = set()
        """The paths of tasks whose limits were published, or could not be."""

    @property
    def broker(self) -> Broker:
        """The broker for the calling thread, see `ThreadBrokers`."""
        return self._brokers.current()

    def queue_job(
        self,
        task: TaskLike,
        params: Mapping[str, object] | None = None,
        queue: str | None = None,
        **options: Unpack[SingleEnqueueOptions],
    ) -> str:
        """Queues one job and returns its id. `queue` defaults to the queue of the task.

        Raises like `queue_jobs`; a call without an answer can be repeated with the same `idempotency_key` or
        `job_id`.
        """
        template, chosen = self._template("queue_job", task, queue, options)
        given = {} if params is None else params
        job = self._new_job(template, given, task, number_of(options.get("delay")), chosen)
        if chosen.limits:
            self._publish_limits(template.path, chosen.limits)
        return self.enqueue([job])[0].id

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
        its items cannot be stored, no job of the batch is queued. Notes on the error tell the index of the
        item, and how many jobs of earlier batches are queued.
        Raises InvalidValue, TypeError for an unknown option, or BrokerUnavailable if the broker does not
        answer in time; the batch is then queued or not queued.
        """
        most = whole_of(batch_size)
        if most is None or not 1 <= most <= CHUNK:
            raise InvalidValue(
                f"batch_size is {shown(batch_size)}: expected a whole number from 1 to {CHUNK}",
                path="batch_size",
            )
        template, chosen = self._template("queue_jobs", task, queue, options)
        delay = number_of(options.get("delay"))
        items = _iterator(params_list)
        ids: list[str] = []
        try:
            while True:
                jobs: list[NewJob] = []
                for params in islice(items, most):
                    # Copied before the next item is made: a generator may use one dict for all items.
                    try:
                        jobs.append(self._new_job(template, params, task, delay, chosen))
                    except BaseException as error:
                        error.add_note(f"item {len(ids) + len(jobs)} of params_list, counted from 0")
                        raise
                if not jobs:
                    break
                if chosen.limits:
                    self._publish_limits(template.path, chosen.limits)
                ids += [answer.id for answer in self.enqueue(jobs)]
        except BaseException as error:  # also what a generator of params raises
            error.add_note(f"{len(ids)} jobs of earlier batches are queued")
            raise
        return ids

    def scheduled_job(
        self,
        path: str,
        params: Mapping[str, object],
        *,
        job_id: str,
        schedule: str,
        queue: str | None = None,
        priority: int | None = None,
        limit_keys: tuple[str, ...] = (),
        unique: Unique | None = None,
    ) -> NewJob:
        """Makes a job of a schedule for `enqueue`. Its id may have any time. A unique key that a plugin adds
        replaces `unique`. Raises InvalidValue."""
        template, chosen = self._template("queue_job", path, queue, {"priority": priority})
        template = replace(template, id=job_id, schedule=schedule)
        job = self._new_job(template, params, path, None, chosen)
        if chosen.limits:
            self._publish_limits(path, chosen.limits)
        if limit_keys:
            keys = (*job.record.limit_keys, *limit_keys)
            job = replace(job, record=replace(job.record, limit_keys=keys))
        return job if unique is None or job.unique is not None else replace(job, unique=unique)

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Stores jobs that this client has made, as `Broker.enqueue` does, and tells plugins."""
        with whole_call():
            answers = self.broker.enqueue(jobs)
        if self.plugins.implements("mrq_jobs_enqueued"):
            created = [job.record for job, answer in zip(jobs, answers, strict=True) if answer.created]
            if created and not _is_observed.get():
                token = _is_observed.set(True)
                try:
                    self.plugins.observe("mrq_jobs_enqueued", records=created)
                finally:
                    _is_observed.reset(token)
        return answers

    def get_job_result(self, job_id: str) -> dict[str, JsonValue]:
        """The ``status`` of a job, and its ``result``, which is None unless the job succeeded. Raises
        JobNotFound."""
        record = self.stored(job_id)
        return {"status": str(record.status), "result": self._decoded_result(record)}

    def fetch(self, job_id: str) -> JobRecord:
        """Reads the record of a job; params and result are decoded. Raises what `stored` and `decoded`
        raise."""
        return self.decoded(self.stored(job_id))

    def stored(self, job_id: str) -> JobRecord:
        """Reads the record of a job; params and result are as `mrq_encode` made them. Raises JobNotFound, and
        InvalidValue for a value that is no id."""
        job_id = check_job_id(job_id)
        record = self.broker.get([job_id])[0]
        if record is None:
            raise JobNotFound(job_id)
        return record

    def decoded(self, record: JobRecord) -> JobRecord:
        """The record with params and result as before `mrq_encode`. Raises the error of a plugin that cannot
        decode them, with notes that name the plugin and the job."""
        if not self.plugins.implements("mrq_decode"):
            return record
        with _naming(record):
            params = self.plugins.decode(record.params)
        if not isinstance(params, dict):
            params = record.params
        return replace(record, params=params, result=self._decoded_result(record))

    def _decoded_result(self, record: JobRecord) -> JsonValue:
        if record.status is not Status.SUCCESS:
            return record.result
        with _naming(record):
            return self.plugins.decode(record.result)

    def stored_params(self, path: str, params: Mapping[str, object]) -> tuple[JsonObject, JsonObject]:
        """Checks the new params of a job of this task; returns them as they are stored, and the search keys.
        Raises InvalidValue."""
        checked = storable_params(params, max_size=self.config.max_params_size)
        options = self.options_of(path) or self._learned.get(path) or self._overrides_of(path)
        return self.plugins.encode_params(checked), keys_in(checked, options.searchable or ())

    def close(self) -> None:
        """Closes the broker's connections. Has no effect on a client that others use, see `keep_open`."""
        if self._is_kept_open:
            _log.warning("client.kept_open: the worker and all jobs use this client, so it stays open")
            return
        self._brokers.close()

    def keep_open(self) -> None:
        """Makes `close` have no effect: the jobs of a worker get the worker's client."""
        self._is_kept_open = True

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "a Client cannot be copied or pickled, because it has connections: make a client in each "
            "process, with configure()"
        )

    def _template(
        self,
        call: str,
        task: TaskLike,
        queue: str | None,
        options: EnqueueOptions | SingleEnqueueOptions,
    ) -> tuple[JobRecord, LoadedTask | TaskOptions]:
        """The record that the jobs of one call share, see `record_template`, and the options of the task."""
        known = self._options.get(_key_of(task))
        if known is not None:
            return record_template(call, known.path, queue, options, known), known
        path = check_reachable(task)
        overrides = self._overrides_of(path)
        is_path = has_type(task, str)
        if is_path and is_decided(overrides, queue, options):
            return record_template(call, path, queue, options, overrides), overrides
        found = self.options_of(path if is_path else task)
        defaults = found or self._learned.get(path) or overrides
        return record_template(call, path, queue, options, defaults), defaults

    def learn_options(self, path: str, published: JsonObject) -> None:
        """From now on uses these options of a task, as a worker has published them, where its code cannot be
        imported here. Leaves out options that this version cannot read."""
        found: dict[str, Any] = {}
        for name in _PUBLISHED:
            try:
                found[name] = getattr(options_from({name: published[name]}, where=path), name)
            except (KeyError, ConfigError):
                continue
        if len(self._learned) < _MOST_OPTIONS or path in self._learned:
            self._learned[path] = TaskOptions(**found)

    def searchable_of(self, path: str) -> tuple[str, ...]:
        """The names of the params by which jobs of the task are found. Imports the module of the task, or
        reads TASKS where that fails."""
        return (self.options_of(path) or self._overrides_of(path)).searchable or ()

    def options_of(self, task: TaskLike) -> LoadedTask | None:
        """The options of the task, or None if its code cannot be imported here: a process that enqueues does
        not need the code. Imports the module of a path, unless it is imported already.

        Keeps the options of a found task, which a worker can find too if `check_reachable` accepts it;
        searches again for a task that was not found."""
        key = _key_of(task)
        options = self._options.get(key)
        if options is None:
            options = self._find_options(task)
            if options is not None and len(self._options) < _MOST_OPTIONS:
                if type(key) is int:
                    self._kept_tasks.append(task)
                self._options[key] = options
        return options

    def _find_options(self, task: TaskLike) -> LoadedTask | None:
        path = path_of(task)
        if has_type(task, TaskFunction):
            return resolve_options(path, task.task_class, self.config)
        if has_type(task, type) and issubclass(task, Task):
            return resolve_options(path, task, self.config)
        try:
            return load_task(path, self.config, gives_up=True)
        except TaskError as error:
            cause = error.__cause__
            if has_type(cause, ImportWaits):  # the options of the task are not known yet
                raise
            if cause is not None and _is_interrupt_of_caller(cause):
                raise cause from None
            raised = None if cause is None else raised_by_handler(cause)
            if raised is not None:
                raise raised from None
            return None

    def _overrides_of(self, path: str) -> TaskOptions:
        """The options in TASKS of a task."""
        overrides = self._overrides.get(path)
        if overrides is None:
            given = self.config.tasks.get(path)
            if given is None:
                return _NO_OPTIONS
            overrides = self._overrides[path] = options_from(given, where=f"TASKS[{path!r}]")
        return overrides

    def _publish_limits(self, path: str, limits: Mapping[str, Limit]) -> None:
        """Before the first job of a task: publishes its limits where none are stored, so that they hold also
        if no worker has loaded the task yet. A broker that refuses that may take the job. A broker that is
        away takes neither, and is asked again before the next job."""
        if path in self._with_limits:
            return
        try:
            publish_missing_limits(self.broker, rules_in(limits))
        except BrokerError as error:
            if isinstance(error, BrokerUnavailable) and not isinstance(error, CallRefused):
                raise
            _log.warning("limits.not_published task=%s error=%s", path, error)
        self._with_limits.add(path)

    def _new_job(
        self,
        template: JobRecord,
        params: Mapping[str, object],
        task: TaskLike,
        delay: float | None,
        chosen: LoadedTask | TaskOptions,
    ) -> NewJob:
        checked = storable_params(params, max_size=self.config.max_params_size)
        if has_type(task, TaskFunction):
            task.arguments_from(checked)
        record = replace(template, id=template.id or new_id(), params=self.plugins.encode_params(checked))
        if chosen.searchable:
            record = replace(record, search_keys=keys_in(checked, chosen.searchable))
        if chosen.limits:
            record = replace(record, limit_keys=limit_keys_in(checked, chosen.limits))
        record = self.plugins.before_enqueue(record)
        key = record.unique_key
        unique = None if key is None else Unique(key=key, until="record")
        if record.due_at is not None:  # a plugin that sets `due_at` replaces a delay
            return NewJob(record=replace(record, waits_from=record.due_at), unique=unique)
        if delay:
            record = replace(record, waits_from=after(record.queued_at, delay))
        return NewJob(record=record, delay=delay, unique=unique)


@contextmanager
def _naming(record: JobRecord) -> Iterator[None]:
    """Adds the job to the error of a plugin."""
    try:
        yield
    except Exception as error:
        note = f"the params or the result of job {record.id} cannot be decoded"
        add_note(error, note)
        raise


def _key_of(task: object) -> str | int:
    """The key of a task: the text of a path, or the identity of an object, whose hash may be code."""
    if type(task) is str:
        return task
    text = text_of(task)
    return id(task) if text is None else text


def checked_client(client: object) -> Client | None:
    """Returns the argument `client` of a handle. Raises InvalidValue for anything but a Client, or None."""
    if client is not None and not has_type(client, Client):
        raise InvalidValue(
            f"client is {shown(client)}: expected a Client, or None{from_other_copy(client, Client)}",
            path="client",
        )
    return client


def _is_interrupt_of_caller(error: BaseException) -> bool:
    """Whether an exception that ended an import is for the caller: Ctrl-C, or a kill or Timeout of gevent
    that the module has not raised itself."""
    module = vars(type)["__module__"].__get__(type(error))  # that of a class whose metaclass may raise
    return is_ctrl_c(error) or (module in ("greenlet", "gevent.timeout") and not is_made(error))


def _iterator(params_list: Any) -> Iterator[Mapping[str, object]]:
    """Raises InvalidValue for a value that is no iterable of params."""
    is_dict = is_mapping(params_list)
    hint = "; queue_job queues one job" if is_dict else ""
    try:
        if not is_dict and not has_type(params_list, str) and not has_type(params_list, bytes):
            return iter(params_list)
    except TypeError:  # not iterable
        pass
    except Exception as error:  # code of the value
        if raised_by_handler(error) is not None:
            raise
        hint = f"; its __iter__ raised {shown_error(error)}"
    raise InvalidValue(
        f"params_list is {shown(params_list)}: expected a list, or another iterable, of dicts{hint}",
        path="params_list",
    )
