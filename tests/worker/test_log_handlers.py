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
