"""REPORT_FILE: what a probe on the worker's machine has to go by."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

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
            worker.until_output("failed")  # the worker has met it
            told = written(file)["reported_at"]
            until(lambda: written(file).get("reported_at") != told, what="another report")
            assert worker.popen.poll() is None
    finally:
        server.stop()
