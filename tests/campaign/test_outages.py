"""Fifty workers that lose their server for a while, and come back one after the other."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from tests.mongo.servers import Server as MongoServer
from tests.redis.servers import Server as RedisServer
from tests.support import Process, open_project, until
from tests.worker.conftest import TASKS
from tests.worker.test_outage import BACK_WITHIN, IN_WINDOW, WORKERS, most_in_a_window

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]

_STARTING = 5
"""The workers that start at the same time."""
_BACK = re.compile(r"^(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}) .* broker\.back ", re.MULTILINE)


def back_at(worker: Process) -> float:
    """The Unix time at which the worker has met its server again, by its own log."""
    [at] = _BACK.findall(worker.output)
    return datetime.strptime(at, "%Y-%m-%d %H:%M:%S,%f").astimezone().timestamp()


@pytest.mark.parametrize("seconds", [1.0, 8.0])
@pytest.mark.parametrize(
    "start", [lambda: RedisServer("--appendonly", "yes"), MongoServer], ids=["redis", "mongo"]
)
def test_fifty_workers_that_lose_their_server_come_back_spread_out(
    start: Callable[[], RedisServer | MongoServer], seconds: float, tmp_path: Path
) -> None:
    server = start()
    try:
        with open_project(tmp_path, server.url) as project:
            project.write("tasks.py", TASKS)
            workers: list[Process] = []
            while len(workers) < WORKERS:
                started = [project.start("worker", "--broker-timeout", "2") for _ in range(_STARTING)]
                for worker in started:
                    worker.until_output("worker.started")
                workers += started
            server.kill()
            for worker in workers:
                worker.until_output("broker.away")
            away = time.monotonic()
            until(lambda: time.monotonic() > away + seconds, what="the outage")
            server.start()
            restored = time.time()
            for worker in workers:
                worker.until_output("broker.back")
            arrivals = [back_at(worker) for worker in workers]
            back = max(arrivals) - restored
            print(
                f"{server.url}, away for {seconds:g} s: {WORKERS} workers back within {back:.2f} s, "
                f"at most {most_in_a_window(arrivals)} within 100 ms"
            )
            assert most_in_a_window(arrivals) <= IN_WINDOW
            assert back < BACK_WITHIN
            for worker in workers:
                assert worker.output.count("broker.away") == worker.output.count("broker.back") == 1
            jobs = [project.queue("tasks.Add", {"a": 1, "b": 1}) for _ in range(WORKERS)]
            assert [project.ended(job).result for job in jobs] == [2] * WORKERS
    finally:
        server.stop()
