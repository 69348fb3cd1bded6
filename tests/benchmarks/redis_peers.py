"""Peers of the Redis broker: Huey, Dramatiq, Celery and RQ at sensible settings, with the same work.

None of them keeps records, indexes or logs; Huey and RQ store results, the others do not. Each has an empty
server without an append-only file. A drain is timed from the first job that is done to the last, by the
number of jobs that the peer still holds, or of the results that it has stored.
"""

from __future__ import annotations

import contextlib
import os
import signal
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
from rq import Queue, Worker

connection = redis.Redis.from_url(os.environ["BENCH_REDIS"])
queue = Queue(connection=connection)


def nothing(n):
    return 1


def put(number):
    jobs = [Queue.prepare_data("bench_application.nothing", (n,)) for n in range(number)]
    for start in range(0, number, 1000):
        queue.enqueue_many(jobs[start : start + 1000])


def work():
    # This module is loaded before the forks, as RQ's documentation advises.
    Worker([queue], connection=connection).work(burst=True, logging_level="ERROR")
"""
_CELERY = """
import os
from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_REDIS"])
app.conf.task_ignore_result = True


@app.task
def nothing(n):
    return 1


def put(number):
    for n in range(number):
        nothing.delay(n)
"""


@dataclass(frozen=True, slots=True)
class Peer:
    """A library: its application, its worker, how many of so many jobs are done, and its part of the jobs."""

    name: str
    package: str
    application: str
    command: tuple[str, ...]
    done: Callable[[redis.Redis, int], int]
    part: float = 1.0


def _results(client: redis.Redis, jobs: int) -> int:
    return int(client.hlen("huey.results.bench"))


def _acknowledged(client: redis.Redis, jobs: int) -> int:
    return jobs - int(client.hlen("dramatiq:default.msgs"))


def _finished(client: redis.Redis, jobs: int) -> int:
    return int(client.zcard("rq:finished:default"))


def _gone(client: redis.Redis, jobs: int) -> int:
    both = client.pipeline()
    both.llen("celery")
    both.hlen("unacked")
    waiting, taken = both.execute()
    return jobs - int(waiting) - int(taken)


def _huey(kind: str, workers: int) -> Peer:
    options = ("-k", kind, "-w", str(workers), "--quiet")
    command = ("python", "-m", "huey.bin.huey_consumer", "bench_application.huey", *options)
    return Peer(f"Huey, {workers} {kind}s", "huey", _HUEY, command, _results)


PEERS = (
    _huey("greenlet", 50),
    _huey("thread", 4),
    Peer(
        "Dramatiq, 50 greenlets",
        "dramatiq",
        _DRAMATIQ,
        ("dramatiq-gevent", "bench_application", "--processes", "1", "--threads", "50"),
        _acknowledged,
    ),
    Peer(
        "Celery, 50 greenlets",
        "celery",
        _CELERY,
        ("celery", "--app", "bench_application", "worker", "--pool", "gevent", "--concurrency", "50",
         "--loglevel", "ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat"),
        _gone,
        part=0.25,
    ),
    Peer(
        "RQ",
        "rq",
        _RQ,
        ("python", "-c", "import bench_application; bench_application.work()"),
        _finished,
        part=0.025,
    ),
)  # fmt: skip


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
        with _worker(folder, peer) as process, server.client() as client:
            first = _until(client, peer, process, jobs, 1)
            last = _until(client, peer, process, jobs, jobs)
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
def _worker(folder: Path, peer: Peer) -> Iterator[subprocess.Popen[bytes]]:
    name, *arguments = peer.command
    program = sys.executable if name == "python" else str(Path(sys.executable).parent / name)
    with (folder / "worker.log").open("wb") as log:
        process = subprocess.Popen(
            [program, *arguments], cwd=folder, env={**os.environ, "PYTHONPATH": str(folder)},
            stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:  # a worker that waits for the server and for nothing else
            pass
        with contextlib.suppress(ProcessLookupError):  # what it has started; the group is its own
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _until(
    client: redis.Redis, peer: Peer, process: subprocess.Popen[bytes], jobs: int, number: int
) -> tuple[float, int]:
    """When at least so many jobs were done, and how many were."""
    deadline = time.monotonic() + 600
    while True:
        ended = process.poll() is not None
        done = peer.done(client, jobs)
        if done >= number:
            return time.monotonic(), done
        if ended or time.monotonic() > deadline:
            why = f"its worker ended with {process.returncode}" if ended else "600 s are over"
            raise RuntimeError(f"{peer.name} has done {done} of {jobs} jobs, and {why}")
        time.sleep(0.01)
