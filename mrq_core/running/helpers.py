"""Helpers for a task's code: running another task in place, and greenlets that belong to the current job."""

from __future__ import annotations

import contextvars
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from mrq_core.contract.codec import JsonObject
from mrq_core.contract.plain import has_type, text_of, whole_of
from mrq_core.errors import InvalidValue, shown
from mrq_core.tasks.loading import find_task, is_task_class, no_task
from mrq_core.tasks.task import Task, TaskLike

if TYPE_CHECKING:
    from gevent import Greenlet

T = TypeVar("T")
R = TypeVar("R")
_MOST_GREENLETS = 2**31 - 1
"""The size of a pool that gevent can count."""


def run_task(task: TaskLike, params: JsonObject) -> Any:
    """Runs the code of another task inside the current job, and returns its result."""
    if not has_type(params, dict):
        raise InvalidValue(f"params is {shown(params)}: expected a dict of named values", path="params")
    instance = _class_behind(task)()
    instance.is_main_task = False
    return instance.run_wrapped(params)


def spawn(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Greenlet[..., Any]:
    """Starts a greenlet that belongs to the current job: its code reaches the job and logs to it."""
    import gevent

    _check_callable(function)
    return gevent.spawn(run_in, contextvars.copy_context(), function, *args, **kwargs)


def run_in(context: contextvars.Context, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
    """Calls the function in this context. `worker/hub_time.py` finds its frame, and so the job."""
    return context.run(function, *args, **kwargs)


def subpool_map(pool_size: int, function: Callable[[T], R], iterable: Iterable[T]) -> list[R]:
    """Calls the function with each item, in up to `pool_size` greenlets at once. Returns the results in
    order.

    The greenlets belong to the current job. When one raises, the others are killed and its
    exception is raised here. The iterable is read as places become free.
    """
    from gevent.event import Event
    from gevent.pool import Pool

    size = whole_of(pool_size)
    if size is None or size < 1:
        raise InvalidValue(
            f"pool_size is {shown(pool_size)}: expected a whole number, at least 1", path="pool_size"
        )
    _check_callable(function)
    results: list[Any] = []
    failures: list[BaseException] = []
    settled = Event()
    pool = Pool(min(size, _MOST_GREENLETS))
    ended = 0
    process = os.getpid()

    def call(index: int, item: T) -> None:
        nonlocal ended
        try:
            results[index] = function(item)
        except BaseException as error:
            if os.getpid() != process:  # a child that the function has forked: it ends with this exception
                raise
            failures.append(error)
        ended += 1
        settled.set()

    try:
        for index, item in enumerate(iterable):
            pool.wait_available()
            if failures:
                break
            results.append(None)
            pool.spawn(run_in, contextvars.copy_context(), call, index, item)
        while ended < len(results) and not failures:
            settled.clear()
            settled.wait()
    finally:
        pool.kill()
    if failures:
        raise failures[0]
    return results


def _class_behind(task: object) -> type[Task]:
    path = text_of(task)
    if path is not None:
        return find_task(path)
    found = getattr(task, "task_class", task)
    if not is_task_class(found):
        raise no_task(task)
    return found


def _check_callable(function: object) -> None:
    if not callable(function):
        raise InvalidValue(f"function is {shown(function)}: expected a function", path="function")
