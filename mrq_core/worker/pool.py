"""The greenlets that run jobs. They take jobs from a queue: a new greenlet for each short job would cost ten
times as much."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.queue import SimpleQueue

from mrq_core.clock import monotonic
from mrq_core.contract.plain_tracebacks import repr_of_error
from mrq_core.worker.executions import Execution
from mrq_core.worker.guards import forking
from mrq_core.worker.guards.guarded_log import GuardedLog

_SHORT = 0.001
"""Seconds. A greenlet whose job took longer is not used again: a new greenlet is cheap beside such a job, and
a threading.local that the job left behind reaches no other job."""

_log = GuardedLog("mrq.worker")


if TYPE_CHECKING:
    _Greenlet = gevent.Greenlet[[], None]
else:
    _Greenlet = gevent.Greenlet  # which is generic for type checkers only


class JobGreenlet(_Greenlet):
    """A greenlet that runs jobs. `has_waited`: other greenlets have run meanwhile, or a timeout was started
    that may be raised in it later. gevent calls `switch_out` when it waits."""

    has_waited = False
    io: object = None
    """What I/O tracing notes of the job that runs."""

    def switch_out(self) -> None:
        """Notes that other greenlets run now."""
        self.has_waited = True


def restore_class(greenlet: JobGreenlet) -> None:
    """Undoes that a task has given its greenlet another class, whose methods may raise."""
    if type(greenlet) is not JobGreenlet:
        object.__setattr__(greenlet, "__class__", JobGreenlet)
        greenlet.has_waited = True  # it takes no other job


_start_timeout = gevent.Timeout.start


def _start_noted(timeout: gevent.Timeout) -> None:
    """Replaces `Timeout.start` in a worker. A timeout without a reference to the loop is not in its count of
    active watchers."""
    greenlet = gevent.getcurrent()
    if isinstance(greenlet, JobGreenlet):
        greenlet.has_waited = True
    _start_timeout(timeout)


class GreenletPool:
    """Up to `size` greenlets, started on demand. `run` must not raise. It returns whether the code of the job
    has left the loop as it was: only then its greenlet takes another job, because a timer, a kill or another
    callback that the job left behind would reach that job."""

    def __init__(self, size: int, run: Callable[[Execution], bool]) -> None:
        setattr(gevent.Timeout, "start", _start_noted)  # noqa: B010
        self._size = size
        self._run = run
        self._hub: Any = gevent.get_hub()
        self._inbox: SimpleQueue[Execution] = SimpleQueue()
        self._living: set[int] = set()
        """The greenlets, by their ids: a task may change attributes of its greenlet."""
        self._idle = 0

    def start(self, execution: Execution) -> None:
        """Runs the job in a free greenlet. The caller starts no more than `size` at a time."""
        self._inbox.put(execution)
        self._spawn_if_needed()

    def _spawn_if_needed(self) -> None:
        if self._inbox.qsize() > self._idle and len(self._living) < self._size:
            self._idle += 1  # it takes an execution as soon as it runs
            greenlet = JobGreenlet(self._work)
            greenlet.spawn_tree_locals = {}  # tells its greenlets from those of others: see `mark_of`
            self._living.add(id(greenlet))
            greenlet.rawlink(self._ended)
            greenlet.start()

    def _work(self) -> None:
        try:
            self._run_jobs()
        finally:
            # Besides the link, which a task can remove. In the hub, from which no greenlet inherits anything.
            this: Any = gevent.getcurrent()
            restore_class(this)
            this.parent = self._hub  # which a task can change too
            self._hub.loop.run_callback(self._ended, this)

    def _run_jobs(self) -> None:
        is_fresh = True
        while is_fresh:
            try:
                execution = self._inbox.get()
            except BaseException as error:
                text = "greenlet.disturbed by %s, which an earlier job left behind"
                _log.warning(text, repr_of_error(error))
                break
            self._idle -= 1
            execution.greenlet = gevent.getcurrent()
            started = monotonic()
            # A copy of the context for each job: the next job does not see its variables.
            try:
                is_clean = contextvars.copy_context().run(self._run, execution)
                is_fresh = is_clean and monotonic() - started < _SHORT
            except BaseException as error:
                forking.end_if_child()
                is_fresh = False
                _log.error("greenlet.broke id=%s: another one goes on", execution.record.id, exc_info=error)
            self._idle += 1

    def _ended(self, greenlet: JobGreenlet) -> None:
        if id(greenlet) in self._living:
            self._living.remove(id(greenlet))
            self._idle -= 1
            self._spawn_if_needed()
