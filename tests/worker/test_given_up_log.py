"""What the log says of a worker that is given up for a job that does not end."""

from __future__ import annotations

import json
import signal

import pytest

from mrq_core.contract.record import Status
from tests.support import Process, Project, until

TASKS = """
import ctypes
import logging
import threading
import time
from mrq_core import task
from tasks import note


def sleep_on():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass


@task
def steady():
    note("steady")
    while True:
        time.sleep(0.05)


@task(timeout=0.5)
def swallows():
    note("swallows")
    sleep_on()


@task
def keeps_the_hub():
    note("keeps")
    while True:
        try:
            ctypes.CDLL(None).pause()
        except BaseException:
            pass


class Locked(logging.Handler):
    def emit(self, record):
        with open("other.log", "a") as out:
            out.write(record.getMessage() + "\\n")


@task(timeout=0.5)
def logs():
    "Has the lock of another handler for ever."
    handler = Locked()
    logging.getLogger().addHandler(handler)
    handler.acquire()
    note("logs")
    sleep_on()


@task
def observes():
    logging.getLogger().addHandler(Locked())
"""


@pytest.fixture(autouse=True)
def code(project: Project) -> None:
    project.write("stuck.py", TASKS)


def test_the_end_of_a_worker_is_a_line_of_the_log_on_standard_error(project: Project) -> None:
    job = project.queue("stuck.swallows")
    worker = project.start("worker", "--greenlets", "1", "--log-format", "json")
    assert worker.wait() == 1
    lines = [json.loads(line) for line in worker.output.splitlines()]
    (line,) = (line for line in lines if line["event"] == "worker.given_up")
    assert line["level"] == "ERROR"
    assert f"job {job} (stuck.swallows) could not be ended" in line["message"]


def told(project: Project) -> set[tuple[str, str]]:
    """The level and the first two words of each line in the log file."""
    lines = [json.loads(line) for line in (project.path / "worker.log").read_text().splitlines()]
    messages = [(line["level"], line.get("message", line["event"])) for line in lines]
    return {(level, " ".join(message.split(" ")[:2])) for level, message in messages}


def worker_with_log(project: Project) -> Process:
    logs = ("--log-file", "worker.log", "--log-format", "json")
    return project.start("worker", "--greenlets", "4", "--stop-grace", "0", *logs)


@pytest.mark.parametrize("task", ["swallows", pytest.param("logs", marks=pytest.mark.campaign)])
def test_each_attempt_that_ends_with_a_worker_that_is_given_up_has_its_line(
    project: Project, task: str
) -> None:
    steady = project.queue("stuck.steady")
    job = project.queue(f"stuck.{task}")
    worker = worker_with_log(project)
    assert worker.wait() == 1
    assert project.ended(job).status == Status.TIMEOUT
    assert {
        ("ERROR", f"job.timeout id={job}"),
        ("INFO", f"job.interrupt id={steady}"),
        ("ERROR", "worker.given_up: job"),
    } <= told(project)


@pytest.mark.campaign
def test_handlers_of_the_program_learn_of_the_end_of_a_worker(project: Project) -> None:
    project.queue("stuck.observes")
    job = project.queue("stuck.swallows")
    worker = project.worker("--greenlets", "1")
    assert worker.wait() == 1
    lines = (project.path / "other.log").read_text()
    assert lines.count(f"job.timeout id={job}") == 1
    assert "worker.given_up: job" in lines


def test_each_attempt_that_is_abandoned_when_the_worker_stops_has_its_line(project: Project) -> None:
    job = project.queue("stuck.swallows")
    worker = worker_with_log(project)
    until(lambda: "swallows" in project.ledger(), what="the job")
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    status = project.client.fetch(job).status
    level = {Status.TIMEOUT: "ERROR", Status.INTERRUPT: "INFO"}[status]
    assert (level, f"job.{status} id={job}") in told(project)


def test_a_worker_that_stops_names_the_job_that_keeps_it_from_stopping(project: Project) -> None:
    project.queue("stuck.steady")
    job = project.queue("stuck.keeps_the_hub")
    worker = project.worker("--greenlets", "2")
    until(lambda: {*project.ledger()} == {"steady", "keeps"}, what="both jobs")
    worker.send(signal.SIGTERM)
    worker.wait()
    assert f"job {job} (stuck.keeps_the_hub) could not be ended" in worker.output
