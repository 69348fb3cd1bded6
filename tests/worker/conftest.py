"""Each test gets a folder with the tasks below and an empty broker."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import brokers
from tests.mongo.servers import Server as MongoServer
from tests.redis.servers import Server as RedisServer
from tests.servers import ServerProcess
from tests.support import Project, open_project

TASKS = '''
import os
import time

from mrq_core import (
    Task, abort_current_job, get_current_job, log, queue_job, retry_current_job, run_task,
    set_current_job_progress, subpool_map, task,
)


def note(word):
    """Appends a line to the ledger in one write, which survives the death of the process."""
    file = os.open(os.environ["LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(file, f"{word}\\n".encode())
    os.close(file)


class Add(Task):
    def run(self, params):
        log.info("adding %s and %s", params["a"], params["b"])
        return params["a"] + params["b"]


@task
def noted(word: str, seconds: float = 0):
    note(f"start-{word}")
    time.sleep(seconds)
    note(f"end-{word}")
    return word


@task
def fail():
    raise ValueError("it does not work")


@task(retry_delay=0.05)
def flaky(failures: int):
    if get_current_job().record.retry_count < failures:
        retry_current_job()
    return "at last"


@task(retry_on=ConnectionError, retry_delay=0.05, max_retries=2)
def unreachable():
    raise ConnectionError("nobody there")


@task
def abort():
    abort_current_job()


@task(timeout=0.5)
def sleep_too_long():
    time.sleep(1000)


@task(timeout=1)
def spin():
    note("spinning")
    while True:
        pass


@task
def busy(seconds: float):
    note("busy")
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass
    return "done"


@task(timeout=0.5)
def deaf():
    note("deaf")
    while True:
        try:
            time.sleep(0.05)
        except BaseException:
            pass
'''


@pytest.fixture(params=brokers.PARAMS)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, *brokers.address_of(request.param, tmp_path)) as opened:
        opened.write("tasks.py", TASKS)
        yield opened


@pytest.fixture(params=["redis", "mongo"])
def own_server(request: pytest.FixtureRequest) -> Iterator[ServerProcess]:
    """A server that keeps its data when it is killed, for one test."""
    server = RedisServer("--appendonly", "yes") if request.param == "redis" else MongoServer()
    yield server
    server.stop()
