"""Helpers for a task's code: running another task in place, and greenlets that belong to the current job."""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from mrq_core.contract.codec import JsonObject
from mrq_core.errors import InvalidValue
from mrq_core.tasks.loading import find_task
from mrq_core.tasks.task import TaskLike, path_of

if TYPE_CHECKING:
    from gevent import Greenlet

T = TypeVar("T")
R = TypeVar("R")


def run_task(task: TaskLike, params: JsonObject) -> Any:
    """Runs the code of another task inside the current job, and returns its result."""
    instance = find_task(path_of(task))() if isinstance(task, str) else _class_behind(task)()
    instance.is_main_task = False
    return instance.run_wrapped(params)


def spawn(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Greenlet[..., Any]:
    """Starts a greenlet that belongs to the current job: its code reaches the job and logs to it."""
    import gevent

    return gevent.spawn(contextvars.copy_context().run, function, *args, **kwargs)


def subpool_map(pool_size: int, function: Callable[[T], R], iterable: Iterable[T]) -> list[R]:
    """Calls the function with each item, in up to `pool_size` greenlets at once. Returns the results in
    order.

    The greenlets belong to the current job. When one raises, the others are killed and its
    exception is raised here. The iterable is read as places become free.
    """
    from gevent.event import Event
    from gevent.pool import Pool

    if pool_size < 1:
        raise InvalidValue(f"pool_size is {pool_size}: expected at least 1", path="pool_size")
    results: list[Any] = []
    failures: list[BaseException] = []
    settled = Event()
    pool = Pool(pool_size)
    ended = 0

    def call(index: int, item: T) -> None:
        nonlocal ended
        try:
            results[index] = function(item)
        except BaseException as error:
            failures.append(error)
        ended += 1
        settled.set()

    try:
        for index, item in enumerate(iterable):
            pool.wait_available()
            if failures:
                break
            results.append(None)
            pool.spawn(contextvars.copy_context().run, call, index, item)
        while ended < len(results) and not failures:
            settled.clear()
            settled.wait()
    finally:
        pool.kill()
    if failures:
        raise failures[0]
    return results


def _class_behind(task: TaskLike) -> Any:
    return getattr(task, "task_class", task)
