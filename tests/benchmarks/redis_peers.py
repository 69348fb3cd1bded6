"""Peers of the Redis broker: Huey, Dramatiq and RQ, each at its best sensible settings, with the same work.

None of them keeps records, indexes or logs. A drain is timed from the first job that is done to the last, by
the number of jobs that the peer still holds, or of the results that it has stored.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis

from tests.benchmarks.ours import Figures
from tests.redis.servers import Server

_HUEY = """
import os
from huey import RedisHuey

huey = RedisHuey("bench", url=os.environ["BENCH_REDIS"], results=True)


@huey.task()
def nothing(n):
    return 1


def put(number):
    for n in range(number):
        nothing(n)
"""
_DRAMATIQ = """
import os
import dramatiq
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))


@dramatiq.actor
def nothing(n):
    return 1


def put(number):
    for n in range(number):
        nothing.send(n)
"""
_RQ = """
import os
import redis
from rq import Queue

queue = Queue(connection=redis.Redis.from_url(os.environ["BENCH_REDIS"]))


def put(number):
    jobs = [Queue.prepare_data("tests.benchmarks.tasks.one", (n,)) for n in range(number)]
    for start in range(0, number, 100):
        queue.enqueue_many(jobs[start : start + 100])
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A library: its application, its worker, and how many of so many jobs are done."""

    name: str
    package: str
    application: str
    command: tuple[str, ...]
    done: Callable[[redis.Redis, int], int]
    jobs: int


def _results(client: redis.Redis, jobs: int) -> int:
    return int(client.hlen("huey.results.bench"))


def _acknowledged(client: redis.Redis, jobs: int) -> int:
    return jobs - int(client.hlen("dramatiq:default.msgs"))


def _finished(client: redis.Redis, jobs: int) -> int:
    return int(client.zcard("rq:finished:default"))


PEERS = (
    Peer(
        "Huey, 50 greenlets",
        "huey",
        _HUEY,
        ("huey.bin.huey_consumer", "bench_application.huey", "-k", "greenlet", "-w", "50", "--quiet"),
        _results,
        5_000,
    ),
    Peer(
        "Huey, 4 threads",
        "huey",
        _HUEY,
        ("huey.bin.huey_consumer", "bench_application.huey", "-k", "thread", "-w", "4", "--quiet"),
        _results,
        5_000,
    ),
    Peer(
        "Dramatiq, 50 greenlets",
        "dramatiq",
        _DRAMATIQ,
        ("dramatiq-gevent", "bench_application", "--processes", "1", "--threads", "50"),
        _acknowledged,
        5_000,
    ),
    Peer("RQ", "rq", _RQ, ("rq", "worker", "--burst", "--quiet", "--url"), _finished, 300),
)


def enqueue(folder: Path, jobs: int, peer: Peer) -> Figures:
    """Jobs a second that one thread enqueues, in bulk if the peer has a call for that."""
    with _application(folder, peer) as (_, application):
        started = time.perf_counter()
        application.put(jobs)
        seconds = time.perf_counter() - started
    return {f"{peer.name} on Redis, enqueue (jobs/s)": jobs / seconds}


def drain(folder: Path, jobs: int, peer: Peer) -> Figures:
    """Jobs a second, from the first that is done to the last."""
    with _application(folder, peer) as (server, application):
        application.put(jobs)
        with _worker(folder, peer, server), server.client() as client:
            first = _until(client, peer, jobs, 1)
            last = _until(client, peer, jobs, jobs)
    return {f"{peer.name} on Redis, drain (jobs/s)": (jobs - first[1]) / (last[0] - first[0])}


@contextlib.contextmanager
def _application(folder: Path, peer: Peer) -> Iterator[tuple[Server, Any]]:
    server = Server("--appendonly", "no", folder=folder)
    (folder / "bench_application.py").write_text(peer.application)
    os.environ["BENCH_REDIS"] = server.url
    sys.path.insert(0, str(folder))
    try:
        import bench_application  # type: ignore[import-not-found]

        yield server, bench_application
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("bench_application", None)
        server.kill()


@contextlib.contextmanager
def _worker(folder: Path, peer: Peer, server: Server) -> Iterator[None]:
    command = list(peer.command)
    program = Path(sys.executable).parent / command[0]
    command = [str(program), *command[1:]] if program.exists() else [sys.executable, "-m", *command]
    if peer.package == "rq":
        command += [server.url, "default"]
    env = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.getcwd()}"}
    process = subprocess.Popen(
        command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # a worker that waits for the server and for nothing else
            process.kill()
            process.wait()


def _until(client: redis.Redis, peer: Peer, jobs: int, number: int) -> tuple[float, int]:
    """When at least so many jobs were done, and how many were."""
    deadline = time.monotonic() + 600
    while True:
        done = peer.done(client, jobs)
        if done >= number:
            return time.monotonic(), done
        if time.monotonic() > deadline:
            raise RuntimeError(f"{peer.name} has done {done} of {jobs} jobs within 600 s")
        time.sleep(0.005)
