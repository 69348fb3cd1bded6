"""Hostile log handlers and standard streams: neither a job nor its worker is harmed."""

from __future__ import annotations

import signal

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until
from tests.worker.hostile import RAISING

HANDLERS = (
    RAISING
    + """
import logging
import sys
from mrq_core import task


class Hostile(logging.Handler):
    def __init__(self, method):
        super().__init__()
        setattr(self, method, lambda *arguments: fail())


class Fake:
    write = flush = lambda *arguments: fail()


@task
def installs(method: str):
    if method == "close":
        sys.stderr.close()
    elif method == "none":
        sys.stdout = sys.stderr = None
    elif method == "fake":
        sys.stdout = sys.stderr = Fake()
    elif method == "factory":
        logging.setLogRecordFactory(lambda *arguments, **more: fail())
    elif method == "filter_of_logger":
        logging.getLogger("mrq.worker").addFilter(lambda record: fail())
    else:
        handler = Hostile("emit" if method == "emit_of_logger" else method)
        logging.getLogger("mrq.worker" if method == "emit_of_logger" else None).addHandler(handler)
    raise ValueError("installed")
"""
)


@pytest.mark.parametrize("raised", ["LookupError", "Own"])
@pytest.mark.parametrize(
    "method", ["emit", "handle", "filter", "format", "close", "none", "fake", "factory", "filter_of_logger",
               "emit_of_logger"]
)  # fmt: skip
def test_whatever_a_log_handler_does_jobs_have_outcomes_and_the_worker_goes_on(
    project: Project, method: str, raised: str
) -> None:
    project.write("handlers.py", HANDLERS)
    project.env["RAISED"] = raised
    jobs = [project.queue("handlers.installs", {"method": method})]
    jobs += [project.queue("tasks.fail") for _ in range(3)]
    # The libraries of the brokers log at this level too, in the worker's greenlets and threads.
    worker = project.worker("--log-level", "INFO" if method == "factory" else "DEBUG")
    records = [project.ended(job) for job in jobs]
    assert {(record.status, record.exception_type, record.claims) for record in records} == {
        (Status.FAILED, "ValueError", 1)
    }
    sleeper = project.queue("tasks.noted", {"word": "cancelled", "seconds": 1000})
    until(project.ledger, what="the job to start")
    project.job(sleeper).cancel(interrupt=True)
    assert project.ended(sleeper).status == Status.CANCEL
    worker.send(signal.SIGINT)
    assert worker.wait() == 0


def test_a_worker_logs_on_after_a_task_has_closed_standard_error(project: Project) -> None:
    project.write("handlers.py", HANDLERS)
    project.env["RAISED"] = "LookupError"
    project.queue("handlers.installs", {"method": "close"})
    adding = project.queue("tasks.Add", {"a": 20, "b": 22})
    worker = project.work_off()
    assert project.ended(adding).result == 42
    assert project.log_of(adding) == ["adding 20 and 22"]
    assert "adding 20 and 22" in worker.output


@pytest.mark.parametrize("method", ["emit", "handle", "filter", "format", "close", "none", "fake"])
def test_a_log_handler_of_one_job_does_not_fail_the_lines_of_another(project: Project, method: str) -> None:
    project.write("handlers.py", HANDLERS)
    project.env["RAISED"] = "LookupError"
    project.queue("handlers.installs", {"method": method})
    adding = project.queue("tasks.Add", {"a": 20, "b": 22})
    project.work_off()
    assert project.ended(adding).result == 42
    assert project.log_of(adding) == ["adding 20 and 22"]


NESTED = """
from mrq_core import log, task

calls = []


class LogsItself:
    def __str__(self):
        calls.append(None)
        log.info("%s", self)
        return "itself"

    __repr__ = __str__


class LogsItsTraceback(Exception):
    def __str__(self):
        calls.append(None)
        log.info("why", exc_info=self)
        return "itself"


@task(timeout=5)
def logs_itself():
    log.info("%s", LogsItself())
    return len(calls)


@task(timeout=5)
def logs_its_traceback():
    try:
        raise LogsItsTraceback
    except LogsItsTraceback:
        log.exception("caught")
    return len(calls)


@task(timeout=5)
def fails():
    raise LogsItsTraceback
"""


@pytest.mark.parametrize("log_format", ["%(message)s", "json"])
@pytest.mark.parametrize("options", ["timeout=5", "timeout=5, isolate=True"])
def test_a_line_whose_text_logs_again_makes_few_lines(
    project: Project, log_format: str, options: str
) -> None:
    project.write("nested.py", NESTED.replace("timeout=5", options))
    jobs = [project.queue(f"nested.{name}") for name in ("logs_itself", "logs_its_traceback")]
    failing = project.queue("nested.fails")
    worker = project.work_off("--log-format", log_format)
    for job in jobs:
        record = project.ended(job)
        assert record.status == Status.SUCCESS
        assert isinstance(record.result, int)
        assert 0 < record.result < 200
    assert project.ended(failing).status == Status.FAILED
    assert "itself" in project.log_of(jobs[0])[-1]
    assert "a log line was left out" in worker.output


def test_the_next_line_after_lines_inside_lines_is_logged(project: Project) -> None:
    lines = "\n    ".join(["log.info('%s', LogsItself())"] * 9)
    project.write("nested.py", f"{NESTED}\n\n@task\ndef goes_on():\n    {lines}\n    log.info('after')\n")
    job = project.queue("nested.goes_on")
    project.work_off()
    assert project.ended(job).status == Status.SUCCESS
    assert project.log_of(job)[-1] == "after"


LOCKED = """
import io
import logging

from mrq_core import log, task

handler = logging.StreamHandler(io.StringIO())


@task
def leaves_it_locked():
    logging.getLogger().addHandler(handler)
    handler.acquire()


@task(timeout=30)
def logs():
    log.info("logged")
"""


def test_a_handler_whose_lock_is_never_released_keeps_no_job(project: Project) -> None:
    project.write("locked.py", LOCKED)
    locking = project.queue("locked.leaves_it_locked")
    project.worker("--greenlets", "3")
    assert project.ended(locking).status == Status.SUCCESS
    jobs = [project.queue("locked.logs") for _ in range(3)]
    assert [project.ended(job).status for job in jobs] == [Status.SUCCESS] * 3
    assert [project.log_of(job) for job in jobs] == [["logged"]] * 3


SENDS = """
import logging


class Sends(logging.Handler):
    def emit(self, record):
        raise ConnectionError("the log server is away")


class Notes(logging.Handler):
    def emit(self, record):
        with open("noted", "a") as out:
            out.write(record.getMessage() + "\\n")


def refuse(record):
    raise ConnectionError("a filter")
"""
PAYS = """
import logging
from mrq_core import log, task
from sends import Notes, Sends, refuse

shop = logging.getLogger("shop")


class Odd(list):
    def __iter__(self):
        raise ValueError("a list")


class NoHandler:
    level = 0


@task
def changes(way):
    root = logging.getLogger()
    match way:
        case "below":
            shop.handlers[:] = [Sends(), Notes()]
        case "filter":
            shop.filters[:] = [refuse]
        case "first":
            root.handlers.insert(0, Sends())
            root.addHandler(Notes())
        case "nothing":
            root.handlers[:0] = ["x", None, NoHandler()]
        case "deleted":
            del root.handlers
        case "odd":
            root.handlers = Odd(root.handlers)


@task
def pays():
    shop.error("paying")
    log.warning("paid")
"""


@pytest.mark.parametrize("way", ["below", "filter", "first", "nothing", "deleted", "odd"])
def test_lines_go_on_to_the_other_handlers_after_one_that_raises(project: Project, way: str) -> None:
    project.write("sends.py", SENDS)
    project.write("pays.py", PAYS)
    project.queue("pays.changes", {"way": way})
    jobs = [project.queue("pays.pays") for _ in range(3)]
    project.queue("pays.changes", {"way": way})
    jobs += [project.queue("pays.pays") for _ in range(3)]
    worker = project.work_off("--greenlets", "1")
    for job in jobs:
        assert project.log_of(job) == ["paying", "paid"]
        assert f"job.success id={job}" in worker.output
        assert worker.output.count(f"{job} paying") == 1
    assert "worker.stopped" in worker.output
    if way in ("below", "first"):
        assert (project.path / "noted").read_text().count("paying") >= len(jobs)


def test_a_handler_of_the_config_file_that_raises_silences_no_command(project: Project) -> None:
    project.write("sends.py", SENDS)
    project.write("pays.py", PAYS)
    project.write(
        "mrq-config.py",
        "import logging, sends\nlogging.basicConfig(level='INFO', handlers=[sends.Sends(), sends.Notes()])\n",
    )
    job = project.queue("pays.pays")
    worker = project.work_off()
    assert all(f"worker.{word}" in worker.output for word in ("starting", "started", "stopped"))
    assert worker.output.count("a log handler raised") == 1
    assert project.log_of(job) == ["paying", "paid"]
    assert "job.success" in (project.path / "noted").read_text()
    said = project.mrq("run", "pays.pays", errors=True)
    assert "paid" in said
    scheduler = project.start("scheduler")
    scheduler.until_output("scheduler.started")
    scheduler.send(signal.SIGTERM)
    assert scheduler.wait() == 0
