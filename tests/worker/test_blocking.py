"""Work that blocks its thread, beside the hub. gevent is used unpatched here."""

from __future__ import annotations

import threading
from types import FrameType

import gevent
import pytest

from mrq_core.worker.guards import blocking
from mrq_core.worker.guards.blocking import run_blocking


def test_run_blocking_returns_what_the_function_returns_and_lets_others_run() -> None:
    release = threading.Event()
    seen: list[str] = []

    def other() -> None:
        seen.append("other")
        release.set()

    def block() -> int:
        assert release.wait(10)
        seen.append("blocked")
        return 42

    gevent.spawn(other)
    assert run_blocking(block) == 42
    assert seen == ["other", "blocked"]


def test_run_blocking_raises_what_the_function_raised() -> None:
    def broken() -> None:
        raise LookupError("from the thread")

    with pytest.raises(LookupError, match="from the thread"):
        run_blocking(broken)


def test_run_blocking_is_not_left_before_its_function_has_ended() -> None:
    started, release, ended = threading.Event(), threading.Event(), threading.Event()

    def block() -> None:
        started.set()
        assert release.wait(10)
        ended.set()

    greenlet = gevent.spawn(run_blocking, block)
    while not started.is_set():
        gevent.sleep(0.001)
    had_ended: list[bool] = []
    greenlet.link(lambda _: had_ended.append(ended.is_set()))
    greenlet.kill(block=False)
    gevent.sleep(0)
    release.set()
    while not had_ended:
        gevent.sleep(0.001)
    value: object = greenlet.value
    assert isinstance(value, gevent.GreenletExit)
    assert had_ended == [True]


@pytest.mark.parametrize("kind", ["settrace", "setprofile"])
@pytest.mark.parametrize("at_once", [True, False])
def test_run_blocking_runs_without_the_trace_function_that_a_task_sets_meanwhile(
    kind: str, at_once: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task sets it after the worker's last look, before the thread takes the function."""
    looks: list[str] = []
    ran: list[int] = []

    def function() -> None:
        ran.append(threading.get_ident())

    def broken(frame: FrameType, event: str, argument: object) -> None:
        if at_once or frame.f_code is function.__code__:
            raise ValueError("traced")

    def look() -> None:
        restore()
        if not looks:
            getattr(threading, kind)(broken)
        looks.append(kind)

    restore = blocking._restore_hooks_of_threads
    monkeypatch.setattr(blocking, "_restore_hooks_of_threads", look)
    try:
        run_blocking(function)
    finally:
        restore()
    assert len(ran) == 1
    assert ran != [threading.get_ident()]
