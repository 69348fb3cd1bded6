"""The calls of one attempt: which are noted, for whom, and in which order they are shown."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import gevent
import pytest
from gevent import Timeout
from greenlet import getcurrent

from mrq_core.debug.io_calls import CALLS_MOST, JobIo, Label, OpenCall, current_io, io_of_caller, noted
from mrq_core.running.context import JobContext


@pytest.fixture
def io() -> JobIo:
    """The I/O of an attempt that runs in the current greenlet."""
    return JobIo(cast(JobContext, SimpleNamespace(in_code=True)), getcurrent())


def call(text: Any, kind: str = "redis") -> OpenCall:
    return OpenCall(kind, lambda subject: f"{subject}", text)


def texts(io: JobIo) -> list[str]:
    return [one.text for one in io.state().calls]


def test_only_the_outer_call_is_noted(io: JobIo) -> None:
    def inner() -> list[str]:
        return texts(io)

    assert noted(io, call("outer"), noted, io, call("inner"), inner) == ["outer"]
    assert io.state().calls == ()
    assert io.state().totals["redis"].calls == 1


@pytest.mark.parametrize("error", [ValueError, Timeout, gevent.GreenletExit, KeyboardInterrupt])
def test_a_call_that_raises_is_over(io: JobIo, error: type[BaseException]) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(error):
        noted(io, call("fails"), fail)
    assert io.state().calls == ()
    assert io.state().totals["redis"].calls == 1


def test_the_call_of_the_jobs_greenlet_comes_first_then_the_longest(io: JobIo) -> None:
    others = [gevent.spawn(noted, io, call(number), gevent.sleep, 60) for number in range(CALLS_MOST + 2)]
    gevent.sleep(0)
    shown = noted(io, call("own"), io.state)
    gevent.killall(others)
    assert [one.text for one in shown.calls] == ["own", "0", "1"]
    assert shown.left_out == CALLS_MOST
    assert io.state().calls == ()


def test_a_text_that_cannot_be_made_is_empty_and_a_long_one_is_cut(io: JobIo) -> None:
    broken = OpenCall("redis", lambda subject: subject.nothing, object())
    assert noted(io, broken, texts, io) == [""]
    assert [len(text) for text in noted(io, call("x" * 1000), texts, io)] == [160]
    assert noted(io, call("a\nb\x1b\ud800"), texts, io) == ["a b\\x1b\\ud800"]


def test_a_label_belongs_to_one_socket_and_one_greenlet(io: JobIo) -> None:
    first, second = object(), object()
    label = call("find", "mongodb")

    def labelled() -> None:
        io.labels[id(getcurrent())] = Label(label, getcurrent())

    labelled()
    assert [io.label_of(one) for one in (first, first)] == [label, label]
    assert gevent.spawn(io.label_of, first).get() is None
    assert [io.label_of(one) for one in (second, first)] == [None, None]
    labelled()
    io.labels[id(getcurrent())].greenlet = object()
    assert io.label_of(first) is None


def test_the_caller_is_a_job_whose_code_runs(io: JobIo) -> None:
    def started_by(function: Callable[[], JobIo | None]) -> JobIo | None:
        """The answer in a greenlet that a greenlet of the job starts, both without its context."""
        job: Any = gevent.spawn(lambda: gevent.spawn(gevent.spawn(function).get).get())
        job.io = io
        found: JobIo | None = job.get()
        return found

    assert io_of_caller() is None
    context = contextvars.copy_context()
    context.run(current_io.set, io)
    assert context.run(io_of_caller) is io
    assert started_by(io_of_caller) is io
    cast(Any, io)._context.in_code = False
    assert context.run(io_of_caller) is None
    assert started_by(io_of_caller) is None
