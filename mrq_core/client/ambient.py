"""The client that code uses without naming one: `queue_job` and the like, and the handles of jobs.

The functions of this module use the client of the running job, or else the client of the process: the client
that `configure` set, or a new client with the configuration of the command that runs, or else with the
configuration that the command line finds.
"""

from __future__ import annotations

# Drivers' libraries need it, and Python refuses to import it once the main thread has ended, though other
# threads may go on and make their first call then.
import concurrent.futures.thread  # noqa: F401
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Unpack

from mrq_core.client.client import Client
from mrq_core.config.loading import LoadWait, refuse_while_loading
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.messages import CHUNK
from mrq_core.errors import ConfigError
from mrq_core.tasks.enqueue_options import EnqueueOptions, SingleEnqueueOptions
from mrq_core.tasks.task import TaskLike

ambient_client: ContextVar[Client | None] = ContextVar("mrq_client", default=None)
"""The client of the running job; set by the worker."""


class _Maker:
    """A thread that makes the client of the process."""

    def __init__(self, thread: int) -> None:
        self.thread = thread


_process_client: Client | None = None
_command_config: Config | None = None
"""The configuration of the command that this process runs, flags included."""
_makers: dict[str, _Maker] = {}
"""Who makes the client of the process. A lock could stay locked: a signal handler can raise between the
taking of a lock and the block that gives it back."""
_DEPTH_MOST = 1
"""A signal handler may make a client while one is made. Code that Python calls in each step would go on so
without end."""
_depth: ContextVar[int] = ContextVar("mrq_client_depth", default=0)
"""The number of clients of the process that this code is making."""


def _after_fork() -> None:
    """Forgets a thread of the parent that makes the client: it would never end here."""
    global _makers
    _makers = {}


os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def reading_config() -> Iterator[Callable[[Config], None]]:
    """While a command reads its configuration: other threads that ask for the client of the process, such as
    one that the config file has started, wait until it is read. The block gets a function that takes the
    configuration, of which the client is made from then on."""
    me = _Maker(threading.get_ident())
    _makers.setdefault("maker", me)
    try:
        yield _set_command_config
    finally:
        if _makers.get("maker") is me:
            del _makers["maker"]


@contextmanager
def command_config() -> Iterator[None]:
    """Forgets the configuration of a command when it has ended: its caller may be a program that goes on."""
    try:
        yield
    finally:
        _set_command_config(None)


def _set_command_config(config: Config | None) -> None:
    global _command_config
    _command_config = config


def _new_client() -> Client:
    return Client(_command_config or load_config())


def configure(*, file: str | None = None, **settings: object) -> Client:
    """Sets the client of this process, for instance ``configure(broker="sqlite:///jobs.sqlite3")``.

    The settings override environment and config file, like flags of the command line. Raises ConfigError.
    """
    config = load_config(settings, file=file, source_of=lambda name: f"configure({name.lower()}=...)")
    return set_process_client(Client(config))


def set_process_client(client: Client) -> Client:
    """Makes this the client of the process. Does not close an earlier client."""
    global _process_client
    _process_client = client
    return client


def current_client() -> Client:
    """The client of the running job, or else the client of the process, made now if missing.

    Raises ConfigError, also in code that is loaded while the client is made: in the config file, in a plugin.
    """
    client = ambient_client.get() or _process_client
    return client if client is not None else _made_client()


def _made_client() -> Client:
    """Makes the client of the process, unless another thread does."""
    refuse_while_loading("the client of this process")
    depth = _depth.get()
    if depth > _DEPTH_MOST:
        raise ConfigError(
            "the client of this process was asked for while it is made, by code that Python calls meanwhile, "
            "such as an audit hook: let the hook ask for it only after the first call of the program"
        )
    token = _depth.set(depth + 1)
    try:
        return _made_in_turn()
    finally:
        _depth.reset(token)


def _made_in_turn() -> Client:
    makers, me, waiting = _makers, _Maker(threading.get_ident()), LoadWait("the client of this process")
    try:
        # Never blocks: gevent may have patched threads after this module was imported.
        while (maker := makers.setdefault("maker", me)) is not me:
            if maker.thread == me.thread:  # another greenlet of an unpatched process: waiting would block it
                return _adopted(_new_client())
            waiting.pause()
        return _process_client or _adopted(_new_client())
    finally:
        if makers.get("maker") is me:
            del makers["maker"]


def _adopted(made: Client) -> Client:
    """Makes this the client of the process, unless there is one meanwhile. Returns that of the process."""
    global _process_client
    if _process_client is None:
        _process_client = made
    elif _process_client is not made:
        made.close()
    return _process_client


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
