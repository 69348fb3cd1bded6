"""Fifty workers that lose their server for a while, and come back one after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil
import pytest

from tests.mongo.servers import Server as MongoServer
from tests.proxy import Proxy
from tests.redis.servers import Server as RedisServer
from tests.support import Process, Project, open_project, until
from tests.worker.conftest import TASKS
from tests.worker.test_outage import BACK_WITHIN, IN_WINDOW, WORKERS, most_in_a_window

pytestmark = pytest.mark.campaign

_STARTING = 5
"""The workers that start at the same time."""


@contextmanager
def proxied(kind: str, path: Path) -> Iterator[tuple[Proxy, Project]]:
    """A project whose workers reach their server through a proxy."""
    with ExitStack() as stack:
        server = RedisServer() if kind == "redis" else MongoServer()
        stack.callback(server.stop)
        proxy = stack.enter_context(Proxy(server.port))
        url = server.url.replace(f":{server.port}", f":{proxy.port}")
        project = stack.enter_context(open_project(path, url))
        project.write("tasks.py", TASKS)
        yield proxy, project


def owners(workers: list[Process]) -> dict[int, int]:
    """The process that each local port of a connection belongs to."""
    return {
        connection.laddr.port: worker.pid
        for worker in workers
        for connection in psutil.Process(worker.pid).net_connections("tcp")
        if connection.laddr
    }


@pytest.mark.parametrize("seconds", [0.5, 8.0])
@pytest.mark.parametrize("kind", ["redis", "mongo"])
def test_fifty_workers_that_lose_their_server_come_back_spread_out(
    kind: str, seconds: float, tmp_path: Path
) -> None:
    with proxied(kind, tmp_path) as (proxy, project):
        workers: list[Process] = []
        while len(workers) < WORKERS:
            started = [project.start("worker", "--broker-timeout", "2") for _ in range(_STARTING)]
            for worker in started:
                worker.until_output("worker.started")
            workers += started
        proxy.cut()
        cut = time.monotonic()
        until(lambda: time.monotonic() > cut + seconds, what="the outage")
        proxy.arrivals.clear()
        proxy.restore()
        restored = time.monotonic()
        until(
            lambda: all("broker.back" in worker.output for worker in workers),
            patience=20,
            what="all workers to be back",
        )
        back = time.monotonic() - restored
        of_port = owners(workers)
        first: dict[int, float] = {}
        for at, port in list(proxy.arrivals):
            if port in of_port:
                first.setdefault(of_port[port], at)
        print(
            f"{kind}, away for {seconds:g} s: {len(first)} workers back within {back:.2f} s, at most "
            f"{most_in_a_window(list(first.values()))} within 100 ms; {len(proxy.arrivals)} connections, at "
            f"most {most_in_a_window([at for at, _ in proxy.arrivals])} within 100 ms"
        )
        print(sorted(round(at - restored, 2) for at in first.values()))
        assert len(first) == WORKERS
        assert most_in_a_window(list(first.values())) <= IN_WINDOW
        assert back < BACK_WITHIN
        for worker in workers:
            assert worker.output.count("broker.away") == worker.output.count("broker.back") == 1
        jobs = [project.queue("tasks.Add", {"a": 1, "b": 1}) for _ in range(WORKERS)]
        assert [project.ended(job).result for job in jobs] == [2] * WORKERS
