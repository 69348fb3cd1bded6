"""A pair of servers that tests kill, empty and start again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.campaign import ledger
from tests.mongo import servers as mongo
from tests.redis import servers as redis
from tests.support import Project, open_project


@dataclass(frozen=True, slots=True)
class Pair:
    """A Redis server and a MongoDB server that keep what they have acknowledged, unless they are emptied."""

    redis: redis.Server
    mongo: mongo.Server

    def empty_redis(self) -> None:
        """Deletes all that the Redis server holds."""
        with self.redis.client() as client:
            client.flushall()


@contextlib.contextmanager
def pair() -> Iterator[Pair]:
    """Both servers, started."""
    with contextlib.ExitStack() as stack:
        queue = redis.Server("--appendonly", "yes", "--appendfsync", "always")
        stack.callback(queue.stop)
        store = mongo.Server()
        stack.callback(store.stop)
        yield Pair(queue, store)


@contextlib.contextmanager
def project_on(path: Path, redis_url: str, mongo_url: str, prefix: str = "") -> Iterator[Project]:
    """A project on both, with the tasks that write to a ledger."""
    urls = [redis_url, mongo_url]
    if prefix:
        urls = [f"{url}{'&' if '?' in url else '?'}prefix={prefix[-40:]}" for url in urls]
    with open_project(path, *urls) as project:
        project.write("tasks.py", ledger.TASKS)
        yield project
