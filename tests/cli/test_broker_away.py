"""Commands that wait or follow while a server of the broker goes away."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests import brokers
from tests.cli.conftest import TASKS
from tests.mongo.servers import Server as MongoServer
from tests.redis.servers import Server as RedisServer
from tests.servers import ServerProcess
from tests.support import Project, open_project, until

KINDS = ("redis", "mongo", "redis+mongo", "redis+mongo, the store")
"""The brokers, and the server that goes away where there are two."""


def params(*kinds: str) -> list[object]:
    """The kinds of the brokers that are tested; the usual run leaves MongoDB out."""
    return [
        kind
        if kind.partition(",")[0] in brokers.PER_COMMIT
        else pytest.param(kind, marks=pytest.mark.campaign)
        for kind in kinds
        if kind.partition(",")[0] in brokers.NAMES
    ]


def is_connected(pid: int, port: int) -> bool:
    """Whether the process is connected to this port."""
    return any(one.raddr and one.raddr.port == port for one in psutil.Process(pid).net_connections())


@pytest.fixture(params=params(*KINDS))
def away(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Project, ServerProcess]]:
    """A project, and the server that will go away."""
    name: str = request.param
    server: ServerProcess
    if name == "redis" or name == "redis+mongo":
        server = RedisServer("--appendonly", "yes", "--appendfsync", "always")
        urls = [server.url, *([brokers.address_of("mongo", tmp_path).broker] if "+" in name else [])]
    else:
        server = MongoServer()
        urls = [*([brokers.address_of("redis", tmp_path).broker] if "+" in name else []), server.url]
    try:
        with open_project(tmp_path, *urls) as project:
            project.write("tasks.py", TASKS)
            yield project, server
    finally:
        server.stop()


def test_a_demo_goes_on_when_the_broker_is_back(away: tuple[Project, ServerProcess]) -> None:
    project, server = away
    process = project.start("demo", "--jobs", "300", "--no-dashboard")
    process.until_output("76 of 306 jobs have ended")
    server.kill()
    process.until_output("The demo goes on when the broker is back")
    server.start()
    assert process.wait() == 0
    assert "306 of 306 jobs have ended" in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("away", params("redis"), indirect=True)
def test_a_demo_that_is_stopped_while_the_broker_is_away_says_how_to_go_on(
    away: tuple[Project, ServerProcess],
) -> None:
    project, server = away
    process = project.start("demo", "--jobs", "300", "--no-dashboard")
    process.until_output("76 of 306 jobs have ended")
    server.kill()
    process.until_output("The demo goes on when the broker is back")
    process.send(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):  # it keeps outcomes, until the second Ctrl-C
        process.popen.wait(0.5)
    process.send(signal.SIGINT)
    assert process.wait() == 130
    assert "stay on the queue demo" in process.output
    assert "Traceback" not in process.output


@pytest.mark.parametrize("arguments", [["jobs", "wait"], ["jobs", "logs", "--follow"]])
@pytest.mark.parametrize("away", params("redis", "mongo", "redis+mongo, the store"), indirect=True)
def test_a_command_that_waits_for_a_job_ends_with_one_line(
    away: tuple[Project, ServerProcess], arguments: list[str]
) -> None:
    project, server = away
    job_id = project.queue("tasks.nap", {"seconds": 0})
    process = project.start(*arguments, job_id)
    until(lambda: is_connected(process.pid, server.port), what="the command to wait")
    server.kill()
    assert process.wait() == 1
    assert process.output.startswith("mrq: ")
    assert "Traceback" not in process.output


def test_a_scheduler_that_is_stopped_while_the_broker_is_away_has_done_its_work(
    away: tuple[Project, ServerProcess],
) -> None:
    project, server = away
    process = project.start("scheduler")
    process.until_output("scheduler.started")
    server.kill()
    process.send(signal.SIGTERM)
    assert process.wait() == 0
    assert "Traceback" not in process.output
