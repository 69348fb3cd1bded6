"""The I/O of one attempt of a job: the calls that are in progress now, and totals by kind.

A call belongs to the greenlet that makes it. Inside a call others are not noted: a command of Redis is one
call, although it sends to a socket and receives from it. Only calls that the code of the job makes are
noted, not those of the worker for the job.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any, TypeVar

from greenlet import getcurrent

from mrq_core.clock import monotonic
from mrq_core.contract.plain import printable
from mrq_core.errors import on_one_line
from mrq_core.operations.workers import IoCall, IoState, IoTotal
from mrq_core.running.context import JobContext

R = TypeVar("R")
CALLS_MOST = 3
"""The calls in progress that a report names for each job."""
_TEXT_MOST = 160
"""Characters of the text of a call."""
_BACKGROUND = ("pymongo_",)
"""How the names of threads begin with which pymongo watches its servers."""
_GENERATIONS_MOST = 20
"""How far a greenlet may be from the greenlet of the job that started it."""

Describe = Callable[[Any], str]
"""Makes the text of a call from its subject, in any thread. Must not call methods of a task's classes."""


class OpenCall:
    """A call in progress. Its text is made only when it is shown. `weight`: how many calls it counts as."""

    __slots__ = ("describe", "kind", "since", "subject", "weight")

    def __init__(self, kind: str, describe: Describe, subject: object, weight: int = 1) -> None:
        self.kind = kind
        self.describe = describe
        self.subject = subject
        self.weight = weight
        self.since = monotonic()

    def shown(self, now: float) -> IoCall:
        """The call for a report. Never raises an Exception: its subject may be changed meanwhile."""
        text = ""
        with suppress(Exception):
            text = printable(on_one_line(self.describe(self.subject)))[:_TEXT_MOST]
        return IoCall(kind=self.kind, text=text, seconds=round(max(0.0, now - self.since), 3))


class Label:
    """A command whose start and end a library reports, such as pymongo. `socket`: the `id` of the socket that
    the library used first since then.

    An interrupt may keep the library from reporting the end. Therefore a label is shown only while its socket
    waits, and is forgotten when the greenlet uses another socket.
    """

    __slots__ = ("call", "greenlet", "socket")

    def __init__(self, call: OpenCall, greenlet: object) -> None:
        self.call = call
        self.greenlet = greenlet
        self.socket: int | None = None


class JobIo:
    """The I/O of one attempt. Greenlets of one thread change it; `state` may be called in any thread."""

    __slots__ = ("_context", "_greenlet", "labels", "open", "totals")

    def __init__(self, context: JobContext, greenlet: object) -> None:
        self._context = context
        self._greenlet = greenlet
        self.open: dict[int, OpenCall] = {}
        """The call in progress of each greenlet, by its `id`: a class of a task may have another hash."""
        self.labels: dict[int, Label] = {}
        """The labelled command of each greenlet, by its `id`."""
        self.totals: dict[str, list[float]] = {}
        """The number of calls, and their seconds, by kind."""

    @property
    def is_in_code(self) -> bool:
        """Whether code of the job runs, and not the worker before and after it."""
        return self._context.in_code

    def label_of(self, socket: object) -> OpenCall | None:
        """The labelled command for which the current greenlet uses this socket, or None."""
        if not self.labels:
            return None
        me = getcurrent()
        label = self.labels.get(id(me))
        if label is None:
            return None
        if label.socket is None:
            label.socket = id(socket)
        if label.socket != id(socket) or label.greenlet is not me:
            self.labels.pop(id(me), None)
            return None
        return label.call

    def count(self, kind: str, calls: int, seconds: float) -> None:
        """Adds to the totals."""
        total = self.totals.get(kind)
        if total is None:
            total = self.totals[kind] = [0, 0.0]
        total[0] += calls
        total[1] += seconds

    def state(self) -> IoState:
        """The calls in progress and the totals: first the call of the job's own greenlet, then the longest
        calls. In any thread."""
        now = monotonic()
        found = sorted(self.open.items(), key=lambda one: (one[0] != id(self._greenlet), one[1].since))
        calls = [call for _, call in found]
        totals = {
            kind: IoTotal(calls=int(calls), seconds=round(seconds, 3))
            for kind, (calls, seconds) in list(self.totals.items())
        }
        shown = tuple(call.shown(now) for call in calls[:CALLS_MOST])
        return IoState(calls=shown, left_out=len(calls) - len(shown), totals=totals)


current_io: ContextVar[JobIo | None] = ContextVar("mrq_io", default=None)
"""The I/O of the attempt that runs in the current context."""


def io_of_caller() -> JobIo | None:
    """The I/O of the job whose code runs now. None: no job's code, or not traced.

    A greenlet that a job has started without `mrq_core.spawn` has no context. It belongs to the job whose
    greenlet is the nearest of those that started it; threads of pymongo belong to none.
    """
    io = current_io.get()
    if io is None:
        try:
            io = _io_of_ancestors(getcurrent())
        except Exception:  # a class of the task
            io = None
    return io if io is not None and io.is_in_code else None


def _io_of_ancestors(one: Any) -> JobIo | None:
    """The I/O of the job that has started this greenlet."""
    for _ in range(_GENERATIONS_MOST):
        if one is None:
            return None
        io = getattr(one, "io", None)
        if isinstance(io, JobIo):
            return None if _is_background() else io
        reference = getattr(one, "spawning_greenlet", None)
        one = reference() if reference is not None else None
    return None


def _is_background() -> bool:
    """Whether the current greenlet is a thread of a library, which belongs to no job although a job has
    started it."""
    active: dict[int, Any] = getattr(threading, "_active", {})
    thread = active.get(threading.get_ident())
    return thread is not None and str(thread.name).startswith(_BACKGROUND)


def noted(io: JobIo, call: OpenCall, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> R:
    """Calls the function, and notes that as this call, unless it is inside another call."""
    me = id(getcurrent())
    if me in io.open:
        return function(*args, **kwargs)
    try:
        # In here: an interrupt may be raised between any two lines.
        io.open[me] = call
        return function(*args, **kwargs)
    finally:
        if io.open.get(me) is call:
            del io.open[me]
        io.count(call.kind, call.weight, monotonic() - call.since)
