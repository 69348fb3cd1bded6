"""REPORT_FILE: what a probe on the worker's machine has to go by."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from mrq_core.operations.workers import WorkerReport
from mrq_core.worker.reporting.report_file import ReportFile
from tests.mongo.servers import Server as MongoServer
from tests.redis.servers import Server as RedisServer
from tests.support import Project, open_project, until


def written(path: Path) -> dict[str, Any]:
    """What the file says; nothing where it is not there."""
    try:
        told: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return told


def test_the_report_is_in_the_file_before_work_begins_and_gone_after_it(project: Project) -> None:
    file = project.path / "report.json"
    job = project.queue("tasks.noted", {"word": "x", "seconds": 1000})
    worker = project.worker("--name", "seen", "--report-file", str(file))
    assert (
        written(file)["name"] == f"seen.{socket.gethostname()}.{worker.pid}"
    )  # `worker` has waited for the line that says that it is at work
    told = until(lambda: written(file).get("running") and written(file), what="the job in the report")
    assert isinstance(told, dict)
    assert [running["id"] for running in told["running"]] == [job]
    shown = json.loads(project.mrq("workers", "show", "seen", "--json"))
    assert shown.keys() == told.keys()
    worker.send(signal.SIGTERM)
    assert worker.wait() == 0
    assert list(project.path.glob("report.json*")) == []


def test_a_file_that_cannot_be_written_keeps_a_worker_from_starting(project: Project) -> None:
    worker = project.start("worker", "--report-file", str(project.path / "missing" / "report.json"))
    assert worker.wait() == 2
    assert "mrq: REPORT_FILE cannot be written" in worker.output
    assert "missing/report.json" in worker.output
    assert "Traceback" not in worker.output


def test_a_file_that_cannot_be_written_any_more_is_told_once_and_stops_nothing(project: Project) -> None:
    folder = project.path / "reports"
    folder.mkdir()
    file = folder / "report.json"
    worker = project.worker("--report-file", str(file), "--report-interval", "0.1")
    folder.rename(project.path / "elsewhere")
    worker.until_output("housekeeping.failed step=write_file")
    (project.path / "elsewhere").rename(folder)
    until(lambda: written(file).get("status") == "wait", what="the next report")
    assert project.ended(project.queue("tasks.Add", {"a": 1, "b": 1})).result == 2
    assert "Traceback" not in worker.output


@pytest.mark.parametrize("start", [RedisServer, MongoServer], ids=["redis", "mongo"])
def test_the_file_stays_young_while_the_broker_is_away(
    start: Callable[[], RedisServer | MongoServer], tmp_path: Path
) -> None:
    server = start()
    file = tmp_path / "report.json"
    try:
        with open_project(tmp_path, server.url) as project:
            worker = project.worker("--report-file", str(file), "--report-interval", "0.1")
            server.kill()
            worker.until_output("broker.away")
            told = written(file)["reported_at"]
            until(lambda: written(file).get("reported_at") != told, what="another report")
            assert worker.popen.poll() is None
    finally:
        server.stop()


REPORT = {
    "name": "w.host.1", "host": "host", "pid": 1, "status": "wait", "version": "0.9",
    "reported_at": "2025-01-31T12:00:00.000Z",
}  # fmt: skip
"""A report of another version: with other fields, and without some."""


def listener(path: Path) -> socket.socket:
    """A socket with a path, which must fit into 108 bytes."""
    server = socket.socket(socket.AF_UNIX)
    with contextlib.chdir(path.parent):
        server.bind(path.name)
    return server


@pytest.mark.parametrize(
    "kind", ["pipe", "socket", "link", "dangling link", "folder", "json", "text", "empty"]
)
def test_a_worker_refuses_to_replace_what_is_no_report(project: Project, kind: str) -> None:
    file, target = project.path / "report.json", project.path / "target"
    text = {"json": '{"name": "anna", "pid": 7}', "text": "my notes", "empty": ""}.get(kind, "")
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "socket":
        listener(file).close()
    elif kind == "folder":
        file.mkdir()
    elif kind.endswith("link"):
        file.symlink_to(target)
    else:
        file.write_text(text)
    if kind == "link":
        target.write_text(json.dumps(REPORT))
    before = file.lstat()
    worker = project.start("worker", "--burst", "--report-file", str(file))
    assert worker.wait() == 2, worker.output
    assert worker.output.startswith("mrq: REPORT_FILE cannot be written: ")
    assert len(worker.output.splitlines()) == 1
    after = file.lstat()
    assert (after.st_ino, after.st_mode, after.st_mtime) == (before.st_ino, before.st_mode, before.st_mtime)
    assert kind not in ("json", "text", "empty") or file.read_text() == text
    assert [path.name for path in project.path.glob("report*")] == ["report.json"]
    assert target.exists() == (kind == "link")


@pytest.mark.parametrize("path", ["/", ".", "..", "new/", "x" * 300])
def test_a_path_that_names_no_file_keeps_a_worker_from_starting(tmp_path: Path, path: str) -> None:
    with open_project(tmp_path, f"sqlite:///{tmp_path}/jobs.sqlite3") as project:
        worker = project.start("worker", "--burst", "--report-file", path)
        assert worker.wait() == 2, worker.output
        assert worker.output.startswith("mrq: REPORT_FILE cannot be written: ")
        assert len(worker.output.splitlines()) == 1


def test_an_earlier_report_is_replaced(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    file.write_text(json.dumps(REPORT))
    ReportFile(str(file), "mine.host.2").write(report("mine.host.2"))
    assert written(file)["name"] == "mine.host.2"


def test_a_worker_leaves_a_file_that_took_the_place_of_its_report(tmp_path: Path) -> None:
    file = tmp_path / "report.json"
    mine = ReportFile(str(file), "mine.host.2")
    mine.write(report("mine.host.2"))
    file.write_text("my notes")
    with pytest.raises(FileExistsError, match="no report of a worker"):
        mine.write(report("mine.host.2"))
    mine.remove()
    assert file.read_text() == "my notes"
    file.unlink()
    other = ReportFile(str(file), "other.host.3")
    other.write(report("other.host.3"))
    mine.remove()
    assert written(file)["name"] == "other.host.3"
    other.remove()
    other.remove()
    assert list(tmp_path.iterdir()) == []


def report(name: str) -> WorkerReport:
    now = datetime.now(UTC)
    return WorkerReport(
        name=name, host="host", pid=2, status="wait", queues=("default",), greenlets=1, started_at=now,
        reported_at=now, jobs={}, running=(), unsettled=0, memory=1, cpu_time=0.1, version="1",
    )  # fmt: skip
