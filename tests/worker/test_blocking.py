"""Work that blocks its thread, beside the hub. gevent is used unpatched here."""

from __future__ import annotations

import threading

import gevent
import pytest

from mrq_core.worker.blocking import run_blocking


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
