"""Log handlers that do not return: no job gets another outcome, and the worker ends in time."""

from __future__ import annotations

import signal
import time

import pytest

from mrq_core.contract.record import Status
from mrq_core.worker.guards.process_end import LEAVE_WITHIN
from tests.support import LOAD, Project, until

GRACE = 1.0

HANDLERS = """
import logging
import logging.config
import threading
import time

from gevent.monkey import get_original
from mrq_core import log, task
from tasks import note

_lock = threading.Lock()
_lock.acquire()


def block(how: str):
    note("blocks")
    if how == "natively":
        get_original("time", "sleep")(1000)
    elif how == "lock":
        _lock.acquire()
    else:
        time.sleep(1000)


class Blocks(logging.Handler):
    def __init__(self, how: str, start: str):
        super().__init__()
        self.how, self.start = how, start

    def emit(self, record):
        if record.getMessage().startswith(self.start):
            block(self.how)


@task(timeout=2)
def installs(how: str, start: str, fails: bool = False):
    logging.getLogger().addHandler(Blocks(how, start))
    if fails:
        raise ValueError("installed")


@task
def takes_locks():
    for handler in logging.getLogger().handlers:
        handler.acquire()


class Connects(logging.Handler):
    def __init__(self):
        super().__init__()
        note("connects")
        time.sleep(1000)


@task(timeout=60)
def configures():
    config = {"version": 1, "disable_existing_loggers": False, "root": {"handlers": ["slow"]}}
    logging.config.dictConfig({**config, "handlers": {"slow": {"()": Connects}}})


@task
def takes_the_lock():
    logging._lock.acquire()
    note("has it")


@task(timeout=20)
def names_loggers(name: str):
    logging.getLogger(name).warning("a line")
    logging.getLogger(name).setLevel("DEBUG")


@task(timeout=20)
def talks():
    log.info("a line")


@task(timeout=2)
def fails():
    raise ValueError("fails")
"""
WAYS = ["sleep", "lock", "natively"]
PATIENCE = 25.0


@pytest.fixture(autouse=True)
def handlers(project: Project) -> None:
    project.write("handlers.py", HANDLERS)


@pytest.mark.parametrize("how", ["sleep", "lock"])
def test_a_handler_that_blocks_in_the_loop_that_claims_is_interrupted(project: Project, how: str) -> None:
    project.queue("handlers.installs", {"how": how, "start": "worker.stopping"})
    worker = project.worker("--max-jobs", "1")
    assert worker.wait(PATIENCE) == 0
    assert "log.blocks" in worker.output


@pytest.mark.parametrize("how", WAYS)
def test_a_handler_that_blocks_when_the_worker_ends_is_not_waited_for(project: Project, how: str) -> None:
    project.queue("handlers.installs", {"how": how, "start": "worker.stopped"})
    worker = project.start("worker", "--burst")
    until(project.ledger, what="the handler to block")
    since = time.monotonic()
    assert worker.wait(PATIENCE) == 0
    assert time.monotonic() - since < LEAVE_WITHIN + LOAD


@pytest.mark.parametrize("how", WAYS)
def test_a_job_that_failed_at_once_has_failed_though_a_handler_blocks(project: Project, how: str) -> None:
    job = project.queue("handlers.installs", {"how": how, "start": "job.failed", "fails": True})
    worker = project.worker("--stop-grace", str(GRACE))
    record = project.ended(job)
    assert (record.status, record.exception_type, record.claims) == (Status.FAILED, "ValueError", 1)
    until(project.ledger, what="the handler to block")
    if how != "natively":
        jobs = [project.queue("handlers.fails") for _ in range(3)]
        assert [project.ended(job).exception_type for job in jobs] == ["ValueError"] * 3
    since = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    assert time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD


@pytest.mark.parametrize("how", ["sleep", "lock"])
def test_a_handler_that_blocks_keeps_no_more_than_one_job_from_logging(project: Project, how: str) -> None:
    worker = project.worker()
    project.ended(project.queue("handlers.installs", {"how": how, "start": "", "fails": True}))
    worker.until_output("log.blocks")
    job = project.queue("handlers.talks")
    assert project.ended(job).status == Status.SUCCESS
    assert project.log_of(job) == ["a line"]


def test_a_task_that_takes_the_locks_of_all_handlers_keeps_no_job_from_logging(project: Project) -> None:
    worker = project.worker()
    project.queue("handlers.takes_locks")
    failed = project.queue("handlers.fails")
    project.ended(failed)
    job = project.queue("handlers.talks")
    assert project.ended(job).status == Status.SUCCESS
    assert project.log_of(job) == ["a line"]
    worker.until_output(f"job.failed id={failed}")
    worker.until_output(f"job.success id={job}")


@pytest.mark.parametrize("task", ["configures", "takes_the_lock"])
def test_a_job_that_holds_the_lock_of_logging_keeps_no_job_from_its_end(project: Project, task: str) -> None:
    worker = project.worker("--greenlets", "4", "--lease", "2", "--stop-grace", str(GRACE))
    holder = project.queue(f"handlers.{task}")
    until(project.ledger, what="the job to hold the lock")
    named = [project.queue("handlers.names_loggers", {"name": f"new.{number}"}) for number in range(4)]
    failing = [project.queue("handlers.fails") for _ in range(4)]
    ended = [project.ended(job) for job in (*named, *failing)]
    assert [record.status for record in ended] == [Status.SUCCESS] * 4 + [Status.FAILED] * 4
    assert {record.claims for record in ended} == {1}
    assert project.log_of(named[0]) == ["a line"]
    since = time.monotonic()
    worker.send(signal.SIGTERM)
    assert worker.wait(PATIENCE) == 0
    assert time.monotonic() - since < GRACE + LEAVE_WITHIN + LOAD
    [record] = project.client.broker.get([holder])
    assert record is not None
    assert record.claims == 1


def test_the_time_of_a_handler_that_blocks_a_line_about_a_plugin_is_not_that_of_the_job(
    project: Project,
) -> None:
    project.write(
        "mrq-config.py",
        """
        import logging
        import time
        from mrq_core import hookimpl

        class Slow(logging.Handler):
            def emit(self, record):
                if record.getMessage().startswith("plugin.failed"):
                    time.sleep(20)

        logging.getLogger().addHandler(Slow())

        @hookimpl(wrapper=True)
        def mrq_around_job(context):
            yield
            if context.path.endswith("cleans_up"):
                raise ValueError("around")
        """,
    )
    project.write(
        "cleans.py",
        """
        import time
        from mrq_core import task

        @task(timeout=1)
        def cleans_up():
            try:
                time.sleep(100)
            except BaseException:
                time.sleep(0.9)

        @task(at_most_once=True)
        def beside():
            time.sleep(9)
        """,
    )
    jobs = [project.queue("cleans.beside"), project.queue("cleans.cleans_up"), project.queue("cleans.beside")]
    worker = project.work_off("--greenlets", "3")
    assert [project.ended(job).status for job in jobs] == [Status.SUCCESS, Status.TIMEOUT, Status.SUCCESS]
    assert "log.blocks" in worker.output
