"""Tasks that swallow the interrupt of a timeout, a cancel or a stop, and return."""

from __future__ import annotations

import signal

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until
from tests.worker.hostile import HOSTILE


@pytest.fixture(autouse=True)
def hostile(project: Project) -> None:
    project.write("hostile.py", HOSTILE)


@pytest.mark.parametrize("path", ["hostile.swallows", "hostile.swallows_solo"])
def test_code_that_swallows_its_timeout_and_returns_is_a_timeout_whose_log_has_the_result(
    project: Project, path: str
) -> None:
    job = project.queue(path, {"value": "kept"} if path == "hostile.swallows" else {})
    project.work_off()
    record = project.ended(job)
    assert (record.status, record.result) == (Status.TIMEOUT, None)
    assert record.exception_type == "mrq_core.errors.TimeoutInterrupt"
    assert "in swallows" in (record.traceback or "")
    assert any('TimeoutInterrupt and returned "kept"' in line for line in project.log_of(job))


@pytest.mark.parametrize("kind", ["set", "dict", "float"])
def test_code_that_swallows_a_timeout_and_returns_what_cannot_be_stored_is_a_timeout_whose_log_has_the_type(
    project: Project, kind: str
) -> None:
    project.write(
        "swallowing.py",
        """
        from hostile import swallows
        from mrq_core import task

        @task(timeout=0.5)
        def odd(kind: str):
            swallows.function()
            return {"set": {1}, "dict": {1: 2}, "float": float("nan")}[kind]
        """,
    )
    job = project.queue("swallowing.odd", {"kind": kind})
    project.work_off()
    record = project.ended(job)
    assert (record.status, record.exception_type) == (Status.TIMEOUT, "mrq_core.errors.TimeoutInterrupt")
    assert "result" not in (record.exception_message or "")
    assert "in swallows" in (record.traceback or "")
    assert any(
        f"swallowed TimeoutInterrupt and returned a value of type {kind}" in line
        for line in project.log_of(job)
    )


def test_the_log_of_a_swallowed_timeout_hides_secrets_of_the_result(project: Project) -> None:
    job = project.queue("hostile.swallows", {"value": {"password": "hunter2", "name": "anna"}})
    project.work_off()
    assert project.ended(job).status == Status.TIMEOUT
    [line] = [line for line in project.log_of(job) if "swallowed" in line]
    assert 'returned {"password":"***","name":"anna"}' in line


ASKING = """
import time
from mrq_core import abort_current_job, get_current_job, retry_current_job, task
from tasks import note


def ask(how):
    note("runs")
    try:
        time.sleep(1000)
    except BaseException:
        pass
    if how == "retry":
        retry_current_job(delay=0)
    if how == "abort":
        abort_current_job()
    raise ValueError(how)


@task(timeout=0.5, retry_on=ValueError, retry_delay=0)
def asks(how: str):
    ask(how)


@task(timeout=0.5, isolate=True)
def asks_solo(how: str):
    ask(how)


@task(timeout=0)
def waits(how: str):
    ask(how)
"""


@pytest.mark.parametrize("how", ["retry", "abort", "raise"])
@pytest.mark.parametrize("path", ["asks", "asks_solo"])
def test_code_that_swallows_its_timeout_and_asks_for_another_outcome_is_a_timeout(
    project: Project, path: str, how: str
) -> None:
    project.write("asking.py", ASKING)
    job = project.queue(f"asking.{path}", {"how": how})
    project.work_off()
    record = project.ended(job)
    assert (record.status, record.claims, record.retry_count) == (Status.TIMEOUT, 1, 0)
    told = "interrupted by TimeoutInterrupt, which stands" in (record.traceback or "")
    assert told is (how != "raise")


@pytest.mark.parametrize("how", ["retry", "abort"])
def test_code_that_swallows_a_cancel_and_asks_for_another_outcome_is_cancelled(
    project: Project, how: str
) -> None:
    project.write("asking.py", ASKING)
    job = project.queue("asking.waits", {"how": how})
    project.worker("--paused-queues-refresh-interval", "0.05")
    until(project.ledger, what="the job to start")
    project.job(job).cancel(interrupt=True)
    record = project.ended(job)
    assert (record.status, record.claims) == (Status.CANCEL, 1)


def test_code_that_a_stop_interrupts_may_ask_for_a_retry(project: Project) -> None:
    project.write("asking.py", ASKING)
    job = project.queue("asking.waits", {"how": "retry"})
    worker = project.worker()
    until(project.ledger, what="the job to start")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert project.client.fetch(job).retry_count == 1


def test_code_that_swallows_a_cancel_and_returns_is_cancelled(project: Project) -> None:
    job = project.queue("hostile.swallows_later")
    worker = project.worker("--paused-queues-refresh-interval", "0.05")
    until(project.ledger, what="the job to start")
    project.job(job).cancel(interrupt=True)
    assert project.ended(job).status == Status.CANCEL
    assert any('CancelInterrupt and returned "kept"' in line for line in project.log_of(job))
    assert worker.popen.poll() is None


def test_code_that_a_stop_interrupts_and_that_returns_has_succeeded(project: Project) -> None:
    job = project.queue("hostile.swallows_later")
    worker = project.worker()
    until(project.ledger, what="the job to start")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    record = project.client.fetch(job)
    assert (record.status, record.result) == (Status.SUCCESS, "kept")


SHARED = """
from gevent.event import AsyncResult
from mrq_core import task
from tasks import note

made = AsyncResult()


@task(timeout=TIMEOUT)
def first():
    note("first")
    try:
        AsyncResult().get()
    except BaseException as error:
        made.set_exception(error)
        raise


@task
def others():
    note("others")
    made.get()


@task
def makes(kind: str):
    import mrq_core.errors
    raise getattr(mrq_core.errors, kind)("made up")
"""


@pytest.mark.parametrize("how", ["cancel", "timeout"])
def test_the_interrupt_of_a_job_that_another_job_raises_is_a_failure_of_the_other(
    project: Project, how: str
) -> None:
    """As a cache does that computes a value once, and passes the exception on to all who wait."""
    project.write("shared.py", f"TIMEOUT = {1 if how == 'timeout' else 1000}\n{SHARED}")
    first = project.queue("shared.first")
    project.worker("--paused-queues-refresh-interval", "0.05", "--greenlets", "4")
    until(lambda: "first" in project.ledger(), what="the first job")
    other = project.queue("shared.others")
    until(lambda: "others" in project.ledger(), what="the other job")
    if how == "cancel":
        project.job(first).cancel(interrupt=True)
    assert project.ended(first).status == Status(how)
    later = project.queue("shared.others")
    kind = {"cancel": "CancelInterrupt", "timeout": "TimeoutInterrupt"}[how]
    for job in (other, later):
        record = project.ended(job)
        assert (record.status, record.claims) == (Status.FAILED, 1)
        assert (record.exception_type or "").endswith(kind)
        assert "the job itself was not interrupted" in (record.traceback or "")


ASKED = """
import asyncio, pickle
from pathlib import Path

from gevent.event import AsyncResult
from gevent.threadpool import ThreadPool
from mrq_core import abort_current_job, retry_current_job, spawn, task

made = AsyncResult()


def ask(how):
    abort_current_job() if how == "abort" else retry_current_job(delay=60)


@task
def first(how: str):
    try:
        ask(how)
    except BaseException as error:
        Path("pickled").write_bytes(pickle.dumps(error))
        made.set_exception(error)
        raise


@task
def plain(how: str):
    made.get()


@task
def pooled(how: str):
    ThreadPool(1).apply(lambda: made.get())


async def wait():
    made.get()


@task
def asynchronous(how: str):
    asyncio.run(wait())


@task(isolate=True)
def isolated(how: str):
    raise pickle.loads(Path("pickled").read_bytes())


@task
def own(how: str):
    spawn(ask, how).get()


async def group(*calls):
    async with asyncio.TaskGroup() as tasks:
        for call in calls:
            tasks.create_task(call)


async def asks(how):
    ask(how)


async def fails():
    raise ValueError("beside the wish")


@task
def grouped(how: str):
    asyncio.run(group(group(asks(how)), asks(how)))


@task
def mixed(how: str):
    asyncio.run(group(asks(how), fails()))
"""


@pytest.mark.parametrize("how", ["abort", "retry"])
def test_a_job_that_raises_what_another_job_has_asked_for_has_failed(project: Project, how: str) -> None:
    project.write("asked.py", ASKED)
    first = project.queue("asked.first", {"how": how})
    project.worker("--greenlets", "4")
    status = {"abort": Status.ABORT, "retry": Status.RETRY}[how]
    project.until_status(first, status)
    kinds = ["plain", "pooled", "asynchronous", "isolated"]
    jobs = {kind: project.queue(f"asked.{kind}", {"how": how}) for kind in kinds}
    for kind, job in jobs.items():
        record = project.ended(job)
        assert (record.status, record.claims) == (Status.FAILED, 1), kind
        assert f"claim 1 of the job {first} did, and its code passed this interrupt on" in (
            record.traceback or ""
        )


@pytest.mark.parametrize("how", ["abort", "retry"])
def test_a_greenlet_or_a_group_of_asyncio_tasks_may_ask_for_its_job(project: Project, how: str) -> None:
    project.write("asked.py", ASKED)
    status = {"abort": Status.ABORT, "retry": Status.RETRY}[how]
    own = project.queue("asked.own", {"how": how})
    grouped = project.queue("asked.grouped", {"how": how})
    mixed = project.queue("asked.mixed", {"how": how})
    project.work_off()
    assert project.client.fetch(own).status == status
    assert project.client.fetch(grouped).status == status
    record = project.client.fetch(mixed)
    assert (record.status, record.exception_type) == (Status.FAILED, "BaseExceptionGroup")


@pytest.mark.parametrize("kind", ["JobInterrupt", "CancelInterrupt", "TimeoutInterrupt"])
def test_an_interrupt_that_a_task_makes_up_is_a_failure(project: Project, kind: str) -> None:
    project.write("shared.py", f"TIMEOUT = 1000\n{SHARED}")
    job = project.queue("shared.makes", {"kind": kind})
    project.worker("--burst")
    record = project.ended(job)
    assert (record.status, record.claims) == (Status.FAILED, 1)


REFUSING = """
from mrq_core import task


@task(timeout=0.3)
def once():
    while True:
        try:
            int("x")
        except ValueError:
            pass


@task(timeout=0.3)
def twice():
    while True:
        try:
            int("x")
        except ValueError:
            try:
                int("y")
            except ValueError:
                pass


@task(timeout=0.3, isolate=True)
def isolated():
    once.function()
"""


@pytest.mark.parametrize("name", ["once", "twice", "isolated"])
def test_a_function_in_c_that_drops_the_interrupt_of_a_loop_keeps_the_loop_for_seconds_only(
    project: Project, name: str
) -> None:
    """`int` checks for signals while it makes the text of its error, and drops what a handler raises."""
    project.write("refusing.py", REFUSING)
    job = project.queue(f"refusing.{name}")
    other = project.queue("tasks.noted", {"word": "other", "seconds": 0.1})
    worker = project.work_off("--greenlets", "2")
    assert project.ended(job).status == Status.TIMEOUT, worker.output
    assert "could not be ended" not in worker.output
    record = project.ended(other)
    assert (record.status, record.claims) == (Status.SUCCESS, 1)
