"""Which jobs may have made a call that outlasts it, such as one that sets a timer.

A greenlet that knows no job is of the job from whose greenlet it comes; a native thread may be of any job
that runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
        running = {id(greenlet): context for greenlet, context in self._running() if _is_in_task(context)}
        for greenlet in origins(getcurrent()):
            if id(greenlet) in running:
                return (running[id(greenlet)],)
        return tuple(running.values())


def origins(greenlet: Any) -> Iterator[Any]:
    """The greenlet, the one that has spawned it, and so on, as far as they still exist. A thread of patched
    code is a greenlet, too."""
    while greenlet is not None:
        yield greenlet
        spawned_by = getattr(greenlet, "spawning_greenlet", None)  # a weak reference
        greenlet = None if spawned_by is None else spawned_by()


def is_any_in_task(jobs: tuple[JobContext, ...]) -> bool:
    """Whether code of one of these tasks still runs."""
    return any(map(_is_in_task, jobs))


def _is_in_task(context: JobContext) -> bool:
    return context.in_code and context.loaded is not None


owners = Owners()
"""Those of this process."""
