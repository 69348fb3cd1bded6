"""Which jobs may have made a call that outlasts it, such as one that sets a timer.

A greenlet that knows no job is of the job from whose greenlet it comes; a native thread may be of any job
that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from greenlet import getcurrent

from mrq_core.running.context import JobContext, current_context


class Owners:
    """Notes which jobs run code of their tasks. One for each process."""

    def __init__(self) -> None:
        self._running: Callable[[], Iterable[tuple[object, JobContext]]] = tuple

    def know(self, running: Callable[[], Iterable[tuple[object, JobContext]]]) -> None:
        """Takes the jobs that run, and their greenlets, from this function, which may be called in any
        thread."""
        self._running = running

    def now(self) -> tuple[JobContext, ...] | None:
        """The job that calls, or those of which one may have made the call. None: a module that a job imports
        makes it, which lasts as long as the process."""
        caller = current_context.get()
        if caller is not None:
            return (caller,) if _is_in_task(caller) else None
        of_greenlet = self._of_greenlet()
        if of_greenlet is not None:
            return (of_greenlet,)
        return tuple(context for _, context in self._running() if _is_in_task(context))

    def here(self) -> JobContext | None:
        """The job whose code the current greenlet runs. None: it runs code of the worker."""
        context = current_context.get() or self._of_greenlet()
        return context if context is not None and _is_in_task(context) else None

    def mark_of_first(self, jobs: tuple[JobContext, ...]) -> dict[str, Any]:
        """The mark of the first of these jobs whose code runs, or one of no job."""
        for greenlet, context in self._running():
            if context in jobs and _is_in_task(context) and (mark := mark_of(greenlet)) is not None:
                return mark
        return {}

    def _of_greenlet(self) -> JobContext | None:
        """The job from which the current greenlet comes."""
        mark = mark_of(getcurrent())
        if mark is None:
            return None
        for greenlet, context in self._running():
            if _is_in_task(context) and mark_of(greenlet) is mark:
                return context
        return None


def mark_of(greenlet: Any) -> dict[str, Any] | None:
    """What a greenlet has in common with the greenlets that it spawns, with those that these spawn, and so
    on: the dict `spawn_tree_locals` of gevent. A thread of patched code is a greenlet, too. A greenlet of
    another library has none, and goes on in the one to which it returns."""
    while greenlet is not None:
        mark: dict[str, Any] | None = getattr(greenlet, "spawn_tree_locals", None)
        if mark is not None:
            return mark
        greenlet = greenlet.parent
    return None


def is_any_in_task(jobs: tuple[JobContext, ...]) -> bool:
    """Whether code of one of these tasks still runs."""
    return any(map(_is_in_task, jobs))


def _is_in_task(context: JobContext) -> bool:
    return context.in_code and context.loaded is not None


owners = Owners()
"""Those of this process."""
