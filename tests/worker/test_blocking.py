"""Work that blocks its thread, beside the hub. gevent is used unpatched here."""

from __future__ import annotations

import signal
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from types import FrameType

import gevent
import pytest

from mrq_core.contract.record import Status
from mrq_core.drivers.unwanted_calls import is_unwanted
from mrq_core.worker.guards import blocking
from mrq_core.worker.guards.blocking import run_blocking
from tests.support import Project, until


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


def test_a_call_that_waits_for_another_is_taken_back_when_its_caller_is_interrupted() -> None:
    free = threading.Event()
    ran: list[int] = []
    before = gevent.spawn(run_blocking, free.wait)
    gevent.sleep(0)
    waiting = gevent.spawn(run_blocking, lambda: ran.append(1))
    gevent.sleep(0)
    waiting.kill(timeout=5)
    assert waiting.dead
    free.set()
    before.get(timeout=5)
    assert not ran


def test_a_call_learns_that_its_caller_is_interrupted() -> None:
    begun = threading.Event()

    def block() -> None:
        begun.set()
        until(is_unwanted, what="the interrupt")

    greenlet = gevent.spawn(run_blocking, block)
    while not begun.is_set():
        gevent.sleep(0.001)
    greenlet.kill(timeout=5)
    assert greenlet.dead
    assert run_blocking(is_unwanted) is False


@pytest.mark.parametrize("greenlets", [1, 3])
def test_the_timeout_of_a_job_ends_its_wait_for_a_locked_file(tmp_path: Path, greenlets: int) -> None:
    """Another program has the file of the embedded broker locked, longer than a worker waits for a job."""
    address = f"sqlite:///{tmp_path}/jobs.sqlite3"
    with closing(Project(tmp_path, address)) as project:
        project.write(
            "locking.py",
            """
            import time
            from mrq_core import queue_job, task

            @task(timeout=1)
            def queues():
                open("begun", "w").close()
                time.sleep(0.5)
                return queue_job("tasks.Add", {"a": 1, "b": 2}, queue="other")

            @task(at_most_once=True)
            def pays():
                time.sleep(8)
                return "paid"
            """,
        )
        job = project.queue("locking.queues")
        beside = project.queue("locking.pays") if greenlets > 1 else None
        worker = project.worker("--greenlets", str(greenlets))
        until((tmp_path / "begun").exists, what="the job to begin")
        with closing(sqlite3.connect(tmp_path / "jobs.sqlite3", timeout=10, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            time.sleep(9)  # longer than the worker waits for the end of a job that it interrupts
            other.execute("ROLLBACK")
        assert project.ended(job).status == Status.TIMEOUT
        assert beside is None or project.ended(beside).result == "paid"
        assert project.client.fetch(job).claims == 1
        worker.send(signal.SIGTERM)
        assert worker.wait() == 0
