"""Timeouts, cancellations and signals that meet a wrapper of `mrq_around_job`, or the code inside it."""

from __future__ import annotations

import signal

import pytest

from mrq_core.contract.record import JobRecord, Status
from tests.support import Project, until

pytestmark = pytest.mark.parametrize("project", ["sqlite"], indirect=True)

SLOW = """
import time
from mrq_core import hookimpl
from tasks import note


def sleeps():
    time.sleep(1000)


def spins():
    while True:
        pass


def is_deaf():
    while True:
        try:
            time.sleep(0.05)
        except BaseException:
            pass


HOWS = {function.__name__: function for function in (sleeps, spins, is_deaf)}


@hookimpl(wrapper=True)
def mrq_around_job(context):
    when, _, what = context.job.params.get("how", "").partition(":")
    if when == "before":
        note("before")
        HOWS[what]()
    try:
        yield
    except BaseException as error:
        note(f"saw-{type(error).__name__}-{context.outcome.status}")
        raise
    if when == "after":
        note("after")
        HOWS[what]()
"""

TASKS = """
from slow import HOWS
from tasks import note
from mrq_core import task


@task(timeout=0.5)
def short(how: str):
    note("ran")
    when, _, what = how.partition(":")
    if when == "inside":
        HOWS[what]()
    return "done"


@task(timeout=1000)
def long(how: str):
    return short.function(how)
"""


@pytest.fixture
def slow(project: Project) -> Project:
    project.write("slow.py", SLOW)
    project.write("code.py", TASKS)
    return project


def run_beside_another(project: Project, how: str) -> JobRecord:
    """The record of a job whose wrapper, or code, lasts longer than its timeout. The worker goes on."""
    job = project.queue("code.short", {"how": how})
    after = project.queue("tasks.Add", {"a": 1, "b": 1})
    project.work_off("--plugins", "slow")
    assert project.ended(after).result == 2
    return project.ended(job)


def failures_of(project: Project, record: JobRecord) -> list[str]:
    """The last lines of what the job's log says about failed plugins."""
    lines = [line for line in project.log_of(record.id) if line.startswith("plugin.failed")]
    return [line.splitlines()[-1] for line in lines]


@pytest.mark.parametrize("what", ["sleeps", "spins"])
def test_a_timeout_before_the_code_ends_the_job_as_timeout(slow: Project, what: str) -> None:
    record = run_beside_another(slow, f"before:{what}")
    assert record.status == Status.TIMEOUT
    assert "mrq_around_job" in (record.traceback or "")
    assert slow.ledger() == ["before"]


@pytest.mark.parametrize("what", ["sleeps", "spins"])
def test_a_timeout_reaches_the_code_inside_a_wrapper_and_then_the_wrapper(slow: Project, what: str) -> None:
    record = run_beside_another(slow, f"inside:{what}")
    assert record.status == Status.TIMEOUT
    assert slow.ledger() == ["ran", "saw-TimeoutInterrupt-timeout"]
    assert failures_of(slow, record) == []


@pytest.mark.parametrize("what", ["sleeps", "spins"])
def test_a_timeout_after_the_code_is_logged_and_the_outcome_of_the_code_stands(
    slow: Project, what: str
) -> None:
    record = run_beside_another(slow, f"after:{what}")
    assert (record.status, record.result, record.claims) == (Status.SUCCESS, "done", 1)
    assert slow.ledger() == ["ran", "after"]
    (line,) = failures_of(slow, record)
    assert line.startswith("mrq_core.errors.TimeoutInterrupt")


@pytest.mark.parametrize(
    ("how", "status", "ledger"),
    [
        ("before:is_deaf", Status.TIMEOUT, ["before"]),
        ("after:is_deaf", Status.SUCCESS, ["ran", "after"]),
    ],
)
def test_a_worker_that_is_given_up_for_a_wrapper_keeps_the_outcome_of_the_code(
    slow: Project, how: str, status: Status, ledger: list[str]
) -> None:
    job = slow.queue("code.short", {"how": how})
    worker = slow.worker("--plugins", "slow")
    assert worker.wait() == 1
    record = slow.client.fetch(job)
    assert (record.status, record.claims) == (status, 1)
    assert slow.ledger() == ledger
    assert f"job {job} (code.short) could not be ended" in worker.output


@pytest.mark.parametrize(
    ("how", "status", "ledger"),
    [
        ("before:sleeps", Status.INTERRUPT, ["before"]),
        ("inside:sleeps", Status.INTERRUPT, ["ran", "saw-JobInterrupt-interrupt"]),
        ("after:sleeps", Status.SUCCESS, ["ran", "after"]),
        ("after:is_deaf", Status.SUCCESS, ["ran", "after"]),
    ],
)
def test_sigterm_interrupts_wrapper_or_code_and_keeps_the_outcome_of_code_that_ended(
    slow: Project, how: str, status: Status, ledger: list[str]
) -> None:
    job = slow.queue("code.long", {"how": how})
    worker = slow.worker("--plugins", "slow")
    until(lambda: slow.ledger() == [word for word in ledger if not word.startswith("saw")], what="the job")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert slow.client.fetch(job).status == status
    assert slow.ledger() == ledger


@pytest.mark.parametrize(
    ("how", "status", "ledger"),
    [
        ("before:sleeps", Status.CANCEL, ["before"]),
        ("inside:sleeps", Status.CANCEL, ["ran", "saw-CancelInterrupt-cancel"]),
        ("after:sleeps", Status.SUCCESS, ["ran", "after"]),
    ],
)
def test_cancelling_interrupts_wrapper_or_code_and_keeps_the_outcome_of_code_that_ended(
    slow: Project, how: str, status: Status, ledger: list[str]
) -> None:
    job = slow.queue("code.long", {"how": how})
    worker = slow.worker("--plugins", "slow", "--paused-queues-refresh-interval", "0.05")
    until(lambda: slow.ledger() == [word for word in ledger if not word.startswith("saw")], what="the job")
    slow.job(job).cancel(interrupt=True)
    assert slow.ended(job).status == status
    assert slow.ledger() == ledger
    assert worker.popen.poll() is None
