"""The log of a worker: its lines for people and programs, its file, and the lines about jobs that end."""

from __future__ import annotations

import json
import os
import re
import signal
from typing import Any

import pytest

from mrq_core.contract.record import Status
from tests.support import Project, until

TASKS = """
import json
import logging
import logging.config
from pathlib import Path

from mrq_core import get_current_job, log, spawn, task


class Seen(logging.Handler):
    def emit(self, record):
        error = record.exc_info[1] if record.exc_info else None
        line = [record.levelname, record.getMessage().split()[0], record.job, repr(error)]
        with open("seen", "a") as file:
            file.write(json.dumps(line) + "\\n")


@task
def installs():
    logging.getLogger().addHandler(Seen())


@task
def configures():
    logging.config.dictConfig({
        "version": 1,
        "handlers": {"seen": {"()": Seen}},
        "root": {"handlers": ["seen"], "level": "INFO"},
    })
    log.info("configured")


@task
def says():
    log.info("said")
    spawn(log.info, "spawned").join()


@task
def forges():
    log.info("first\\n2030-01-01 00:00:00,000 ERROR   - forged\\r\\x1b[2J")
    raise ValueError("why\\n2030-01-01 00:00:00,000 ERROR   - forged")


@task
def odd_calls():
    log.info("%d apples", "x")
    log.info("left", "over")
    log.info("%s", Unreadable())
    log.info("forged job", extra={"job": "a\\n2030-01-01 00:00:00,000 ERROR   - forged"})
    for values in ({"created": float("nan")}, {"created": 1e300}, {"name": None}):
        log.handle(logging.makeLogRecord({"msg": "made", "levelno": 20, "levelname": "INFO", **values}))
    logging.addLevelName(25, "A\\n2030-01-01 00:00:00,000 ERROR   - forged")
    log.log(25, "named level")
    return "done"


class Unreadable:
    def __repr__(self):
        raise ValueError("no text")


@task(isolate=True)
def fails_alone():
    log.info("said alone")
    raise KeyError("alone")


@task(isolate=True)
def waits_alone():
    log.info("first")
    Path("waits").touch()
    while not Path("go").exists():
        pass
    log.info("second")
"""
FIRST = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} [A-Z]+ +(-|[0-9a-f]{24}) ")


@pytest.fixture(autouse=True)
def logged(project: Project) -> None:
    project.write("logged.py", TASKS)


def lines_of(text: str) -> list[dict[str, Any]]:
    """The lines of JSON."""
    return [json.loads(line) for line in text.splitlines()]


def test_json_has_one_object_a_line_with_the_job_and_the_exception(project: Project) -> None:
    good = project.queue("tasks.Add", {"a": 1, "b": 2})
    bad = project.queue("logged.forges", queue="high")
    worker = project.work_off("--queues", "default high", "--log-format", "json")
    lines = lines_of(worker.output)
    [adding] = [line for line in lines if line["event"] == "adding 1 and 2"]
    [success] = [line for line in lines if line["event"] == "job.success"]
    [failed] = [line for line in lines if line["event"] == "job.failed"]
    for line, job, task in ((adding, good, "tasks.Add"), (success, good, "tasks.Add"),
                            (failed, bad, "logged.forges")):  # fmt: skip
        assert (line["job"], line["task"], line["attempt"]) == (job, task, 1)
        assert line["worker"].endswith(f".{worker.pid}")
    assert (adding["level"], success["level"], failed["level"]) == ("INFO", "INFO", "ERROR")
    assert (success["queue"], failed["queue"]) == ("default", "high")
    assert success["duration"] == pytest.approx(project.ended(good).total_time, abs=0.001)
    assert failed["exception"]["type"] == "ValueError"
    assert failed["exception"]["message"].startswith("why\n2030")
    assert "in forges" in failed["exception"]["traceback"]
    assert [line["event"] for line in lines].count("worker.starting") == 1


def test_the_text_of_a_task_forges_no_line_and_each_line_names_its_job(project: Project) -> None:
    job = project.queue("logged.forges")
    worker = project.work_off()
    lines = worker.output.splitlines()
    assert all(FIRST.match(line) or line.startswith("    ") for line in lines)
    assert not [line for line in lines if FIRST.match(line) and "forged" in line]
    assert [line for line in lines if f" ERROR   {job} job.failed id={job} " in line]
    assert [line for line in lines if f" INFO    {job} first" in line]


CALLS = (
    "(TypeError: %d format: a real number is required, not str): '%d apples' with ('x',), logged at ",
    "(TypeError: not all arguments converted during string formatting): 'left' with ('over',), logged at ",
    "(ValueError: no text): '%s' with (<Unreadable instance at ",
)


@pytest.mark.parametrize("format", ["json", ""])
def test_a_log_call_that_cannot_be_formatted_is_one_line_that_says_why(project: Project, format: str) -> None:
    job = project.queue("logged.odd_calls")
    lines = project.work_off(*(["--log-format", format] if format else [])).output.splitlines()
    if format:
        assert all(json.loads(line) for line in lines)
    else:
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:", line) for line in lines)
        assert not any(line.startswith("2030") for line in lines)
    stored = project.log_of(job)
    assert project.ended(job).result == "done"
    for call in CALLS:
        assert [call in line for line in stored].count(True) == 1
        assert [call in line for line in lines].count(True) == 1
    assert stored.count("made") == 3


def test_an_ended_job_is_one_line_that_quiet_leaves_out_and_its_own_log_lacks(project: Project) -> None:
    jobs = [project.queue("tasks.Add", {"a": 1, "b": 2}), project.queue("tasks.fail")]
    worker = project.work_off()
    assert [len(re.findall(rf"job\.[a-z]+ id={job}", worker.output)) for job in jobs] == [1, 1]
    assert project.log_of(jobs[0]) == ["adding 1 and 2"]
    assert project.log_of(jobs[1]) == []
    jobs = [project.queue("tasks.Add", {"a": 1, "b": 2}), project.queue("tasks.fail")]
    worker = project.work_off("--quiet")
    assert [len(re.findall(rf"job\.[a-z]+ id={job}", worker.output)) for job in jobs] == [0, 1]


@pytest.mark.parametrize("how", ["installs", "configures"])
def test_a_handler_of_a_task_gets_failed_jobs_as_errors_and_the_job_of_each_line(
    project: Project, how: str
) -> None:
    first = project.queue(f"logged.{how}")
    worker = project.worker()
    project.ended(first)
    bad, said = project.queue("tasks.fail"), project.queue("logged.says")
    project.ended(bad)
    project.ended(said)
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
    seen = [json.loads(line) for line in (project.path / "seen").read_text().splitlines()]
    assert ["ERROR", "job.failed", bad, "ValueError('it does not work')"] in seen
    assert ["INFO", "said", said, "None"] in seen
    assert ["INFO", "spawned", said, "None"] in seen
    assert ["INFO", "job.success", said, "None"] in seen
    assert [line[2] for line in seen if line[1] == "worker.stopped"] == ["-"]


def test_a_solo_job_is_told_once_by_its_process(project: Project) -> None:
    job = project.queue("logged.fails_alone")
    worker = project.work_off("--log-format", "json")
    lines = [line for line in lines_of(worker.output) if line.get("job") == job]
    assert [line["event"] for line in lines] == ["said alone", "job.failed"]
    assert {line["worker"].rpartition(".")[2] for line in lines} == {str(worker.pid)}
    assert lines[1]["exception"]["type"] == "KeyError"
    assert project.ended(job).status == Status.FAILED


def test_the_first_line_says_where_everything_is_and_no_secret(project: Project) -> None:
    config = project.write("my-config.py", "SHOP = 1\n")
    worker = project.work_off("--config", str(config), "--queues", "high low", "--greenlets", "3")
    first = worker.output.splitlines()[0]
    broker = project.client.broker
    assert " worker.starting name=" in first
    assert f" broker={broker.name} at {broker.location} " in first
    assert f" config={config} queues=high, low greenlets=3" in first
    for address in filter(None, project.address):
        host_or_path = address.partition("://")[2].rpartition("@")[2].partition("?")[0]
        assert host_or_path.lstrip("/") in first


def test_the_log_file_is_opened_again_on_sigusr1_also_while_a_job_blocks(project: Project) -> None:
    file, moved = project.path / "worker.log", project.path / "worker.log.1"
    busy = project.queue("tasks.busy", {"seconds": 2})
    worker = project.start("worker", "--log-file", str(file), "--max-latency", "0.05", "-g", "2")
    until(project.ledger, what="the job to block the hub")
    file.rename(moved)
    worker.send(signal.SIGUSR1)
    until(file.exists, what="the new file")
    assert project.client.fetch(busy).status == Status.STARTED
    project.ended(busy)
    until(lambda: f"job.success id={busy}" in file.read_text(), what="the line in the new file")
    assert "worker.starting" in moved.read_text()
    assert "job.success" not in moved.read_text()
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
    assert "worker.stopped" in file.read_text()
    assert worker.output == ""


def test_a_solo_process_follows_the_log_file(project: Project) -> None:
    file, moved = project.path / "worker.log", project.path / "worker.log.1"
    job = project.queue("logged.waits_alone")
    worker = project.start("worker", "--log-file", str(file), "--max-latency", "0.05")
    until((project.path / "waits").exists, what="the process to wait")
    file.rename(moved)
    os.killpg(worker.pid, signal.SIGUSR1)
    until(file.exists, what="the new file")
    (project.path / "go").touch()
    assert project.ended(job).status == Status.SUCCESS
    until(lambda: f"job.success id={job}" in file.read_text(), what="the end of the job")
    assert f" {job} second" in file.read_text()
    assert f" {job} first" in moved.read_text()


def test_a_log_file_that_cannot_be_opened_again_is_told_and_the_earlier_one_kept(project: Project) -> None:
    folder, moved = project.path / "logs", project.path / "moved"
    folder.mkdir()
    worker = project.start("worker", "--log-file", str(folder / "log"), "--max-latency", "0.05")
    until(lambda: "worker.started" in _text(folder / "log"), what="the start")
    folder.rename(moved)
    worker.send(signal.SIGUSR1)
    until(lambda: "log.not_reopened" in _text(moved / "log"), what="the line about the file")
    assert worker.popen.poll() is None


@pytest.mark.parametrize("path", ["missing/log", ".", "pipe"])
def test_a_log_file_that_cannot_be_written_keeps_a_worker_from_starting(project: Project, path: str) -> None:
    os.mkfifo(project.path / "pipe")
    worker = project.start("worker", "--log-file", path)
    assert worker.wait() == 2
    assert worker.output.startswith("mrq: LOG_FILE cannot be written: ")
    assert len(worker.output.splitlines()) == 1


def test_a_log_file_on_a_full_disk_is_one_line_on_standard_error(project: Project) -> None:
    job = project.queue("logged.waits_alone")
    (project.path / "go").touch()
    worker = project.work_off("--log-file", "/dev/full")
    assert project.ended(job).status == Status.SUCCESS
    lines = set(worker.output.splitlines())  # of the worker, and of the process of the job
    assert lines == {
        "mrq: LOG_FILE cannot be written: '/dev/full': No space left on device; lines are lost until it can"
    }


def _text(path: Any) -> str:
    return path.read_text() if path.exists() else ""


SILENCING = """
import logging.config
logging.config.dictConfig({"version": 1, "root": {"level": "ERROR"}})
logging.getLogger("mrq.worker").setLevel("WARNING")
"""


@pytest.mark.parametrize("place", ["config", "plugin"])
@pytest.mark.parametrize("processes", [0, 2])
def test_a_program_that_sets_logging_up_for_itself_silences_no_worker(
    project: Project, place: str, processes: int
) -> None:
    project.write("mrq-config.py" if place == "config" else "silencing.py", SILENCING)
    plugins = ("--plugins", "silencing") if place == "plugin" else ()
    project.queue("tasks.fail")
    project.queue("tasks.Add", {"a": 1, "b": 2})
    worker = project.work_off("--processes", str(processes), *plugins)
    assert "job.failed" in worker.output
    assert "adding 1 and 2" in worker.output
    assert "worker.started" not in worker.output  # the level of this logger is meant


@pytest.mark.parametrize("place", ["config", "plugin"])
def test_it_silences_no_scheduler(project: Project, place: str) -> None:
    project.write("mrq-config.py" if place == "config" else "silencing.py", SILENCING)
    scheduler = project.start("scheduler", *(("--plugins", "silencing") if place == "plugin" else ()))
    scheduler.until_output("scheduler.started")
