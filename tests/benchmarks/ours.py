"""The arrangements of mrq that are measured: what keeps the jobs, and with what settings."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.contract.record import Status
from tests.benchmarks import tasks
from tests.benchmarks.systems import Place, System
from tests.mongo.servers import Server as MongoServer
from tests.redis.servers import Server as RedisServer

GREENLETS = 100
_SERVER = ("--appendonly", "no")
_AOF = ("--appendonly", "yes", "--appendfsync", "everysec")
_WEAK = "?w=1&journal=false"
"""Writes that the primary has in its memory, and nothing more, are acknowledged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrangement:
    """One way to keep jobs: a driver or two, their servers, and what else their environment says."""

    title: str
    broker: str
    store: str = ""
    redis: tuple[str, ...] | None = None
    """The options of a Redis server, if one is needed."""
    mongo: str | None = None
    """What follows on the URL of a MongoDB server, if one is needed."""
    environ: Mapping[str, str] = field(default_factory=dict)
    settings: str = ""


ARRANGEMENTS: dict[str, Arrangement] = {
    "sqlite": Arrangement(
        title="mrq on SQLite",
        broker="sqlite",
        settings="waits for the disk at each enqueue (`synchronous=FULL`)",
    ),
    "redis": Arrangement(title="mrq on Redis", broker="redis", redis=_SERVER, settings="no append-only file"),
    "redis with AOF": Arrangement(
        title="mrq on Redis with AOF",
        broker="redis",
        redis=_AOF,
        settings="append-only file, synced every second",
    ),
    "mongo": Arrangement(
        title="mrq on MongoDB", broker="mongo", mongo="", settings="`w=majority`, journaled"
    ),
    "redis+mongo": Arrangement(
        title="mrq on Redis and MongoDB",
        broker="redis",
        store="mongo",
        redis=_SERVER,
        mongo="",
        settings="queues in Redis without an append-only file, records in MongoDB: `w=majority`, journaled",
    ),
    "mongo with w=1": Arrangement(
        title="mrq on MongoDB with w=1", broker="mongo", mongo=_WEAK, settings="`w=1&journal=false`"
    ),
}
"""By the name that the command line has for it."""


@contextlib.contextmanager
def started(arrangement: Arrangement, folder: Path) -> Iterator[dict[str, str]]:
    """Starts its servers; gives the variables that lead there."""
    environ = {
        **arrangement.environ,
        "MRQ_BROKER": arrangement.broker,
        "MRQ_STORE": arrangement.store,
        "MRQ_SQLITE": f"{folder}/bench.sqlite3",
    }
    with contextlib.ExitStack() as stack:
        if arrangement.redis is not None:
            (own := folder / "redis").mkdir()
            redis_server = RedisServer(*arrangement.redis, folder=own)
            stack.callback(redis_server.kill)
            environ["MRQ_REDIS"] = redis_server.url
        if arrangement.mongo is not None:
            (own := folder / "mongo").mkdir()
            mongo_server = MongoServer("--wiredTigerCacheSizeGB", "1", folder=own)
            stack.callback(mongo_server.kill)
            environ["MRQ_MONGODB"] = mongo_server.url + arrangement.mongo
        yield environ


@contextlib.contextmanager
def client_of(environ: Mapping[str, str]) -> Iterator[Client]:
    """A client of what these variables lead to, ready for jobs."""
    with contextlib.closing(Client(load_config(environ=environ))) as client:
        client.broker.prepare()
        yield client


@contextlib.contextmanager
def opened(folder: Path, arrangement: Arrangement) -> Iterator[Place]:
    """An empty place. A job counts as unfinished there until it is stored as a success."""
    with started(arrangement, folder) as environ, client_of(environ) as client:

        def unfinished() -> int:
            numbers = client.broker.totals().by_status()
            return sum(number for status, number in numbers.items() if status is not Status.SUCCESS)

        yield Place(environ, unfinished)


def system_of(arrangement: Arrangement) -> System:
    """As it is measured beside others."""
    return System(
        name=arrangement.title,
        store="+".join(filter(None, (arrangement.broker, arrangement.store))),
        application=tasks.__name__,
        command=("python", "-m", "mrq_core.cli", "worker", "--quiet", "--greenlets", "{concurrency}"),
        opened=partial(opened, arrangement=arrangement),
        concurrency=GREENLETS,
        settings=f"{GREENLETS} greenlets, {arrangement.settings}; in bulk: `queue_jobs`",
        keeps="params, result, times, status, attempts; found by queue, task and status",
        killed="run again, when its lease of a minute is over",
    )
