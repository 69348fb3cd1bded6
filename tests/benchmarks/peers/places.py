"""Where peers keep their jobs: an empty place for them, and how many of those in it have not ended."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import redis

from tests.benchmarks.systems import Place
from tests.redis.servers import Server

Unfinished = Callable[[redis.Redis], int]


@contextlib.contextmanager
def on_redis(folder: Path, unfinished: Unfinished) -> Iterator[Place]:
    """A server of its own, without an append-only file."""
    server = Server("--appendonly", "no", folder=folder)
    try:
        with server.client() as client:
            yield Place({"BENCH_URL": server.url}, lambda: unfinished(client))
    finally:
        server.kill()


@contextlib.contextmanager
def on_sqlite(folder: Path, table: str) -> Iterator[Place]:
    """A new file; the rows of one of its tables are what is not finished."""
    file = folder / "bench.sqlite3"

    def unfinished() -> int:
        with contextlib.closing(sqlite3.connect(file, timeout=30)) as connection:
            (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            return int(number)

    yield Place({"BENCH_URL": str(file)}, unfinished)


def of_rq(client: redis.Redis) -> int:
    """Those in the queue and those that have been started."""
    return int(client.llen("rq:queue:default")) + int(client.zcard("rq:wip:default"))


def of_celery(client: redis.Redis) -> int:
    """Messages in the queue, and those that a worker has and has not acknowledged."""
    both = client.pipeline()
    both.llen("celery")
    both.hlen("unacked")
    waiting, taken = both.execute()
    return int(waiting) + int(taken)


def of_dramatiq(client: redis.Redis) -> int:
    """Messages that are not acknowledged."""
    return int(client.hlen("dramatiq:default.msgs"))


def of_huey(client: redis.Redis) -> int:
    """Those in the queue; Huey does not know what runs."""
    return int(client.llen("huey.redis.bench"))


def of_saq(client: redis.Redis) -> int:
    """Those that have not ended."""
    return int(client.zcard("saq:default:incomplete"))


def of_taskiq_list(client: redis.Redis) -> int:
    """Those in the queue; taskiq does not know what runs."""
    return int(client.llen("taskiq"))


def of_taskiq_stream(client: redis.Redis) -> int:
    """Messages that no worker has had, and those that are not acknowledged."""
    (group,) = client.xinfo_groups("taskiq")
    waiting = client.xrange("taskiq", min=b"(" + group["last-delivered-id"]) or []
    return len(waiting) + int(group["pending"])


def of_arq(client: redis.Redis) -> int:
    """Those in the queue; they leave it when they have ended."""
    return int(client.zcard("arq:queue"))
