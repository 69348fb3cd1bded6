"""Code that interrupts must not reach."""

from __future__ import annotations

import threading

import pytest

from mrq_core.contract.record import Status
from mrq_core.errors import TimeoutInterrupt
from tests.support import Project
from tests.worker.records import execution


def test_a_shield_holds_an_interrupt_back_until_it_is_left() -> None:
    context = execution().context
    context.in_code = True
    interrupt = TimeoutInterrupt("too long")
    reached: list[str] = []

    def shielded_code() -> None:
        with context.shield():
            with context.shield():
                assert not context.accept(interrupt, threading.get_ident())
            reached.append("left the inner shield")
        reached.append("left the outer shield")

    with pytest.raises(TimeoutInterrupt):
        shielded_code()
    assert reached == ["left the inner shield"]
    assert context.accept(interrupt, threading.get_ident())
    context.in_code = False
    assert not context.accept(interrupt, threading.get_ident())


def test_a_call_holds_an_interrupt_back_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("mrq_core.running.context.monotonic", lambda: now[0])
    context = execution().context
    context.in_code = True
    interrupt, me = TimeoutInterrupt("too long"), threading.get_ident()

    def call() -> None:
        with context.shield_call(), context.shield_call():
            now[0] += 10  # the call is long, and no interrupt was due
            assert not context.accept(interrupt, me)

    with pytest.raises(TimeoutInterrupt):
        call()
    with context.shield_call():
        assert not context.accept(interrupt, me)
        now[0] += 1
        assert context.accept(interrupt, me)
    assert context.accept(interrupt, me)


ENQUEUEING = """
from mrq_core import queue_jobs, task


@task(timeout=0.5)
def enqueues():
    while True:
        queue_jobs("tasks.never", [{}] * 20, queue="never", delay=1000)
"""


def test_a_job_that_is_interrupted_while_it_enqueues_leaves_whole_jobs(project: Project) -> None:
    project.write("enqueueing.py", ENQUEUEING)
    jobs = [project.queue("enqueueing.enqueues") for _ in range(6)]
    project.work_off("--greenlets", "2")
    assert {project.ended(job).status for job in jobs} == {Status.TIMEOUT}
    checked = project.mrq("check")
    assert "have no entry" not in checked
    assert "too few" not in checked
