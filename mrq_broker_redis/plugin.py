"""The entry point of the Redis driver. redis-py and the driver are loaded when a broker is opened."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from mrq_core.config.importing import import_whole
from mrq_core.contract.broker import Broker
from mrq_core.contract.driver import Driver, Opening
from mrq_core.contract.pair import JobQueue
from mrq_core.errors import ConfigError
from mrq_core.plugins.hookspecs import hookimpl


@hookimpl
def mrq_driver() -> Driver:
    """The driver ``redis``."""
    return Driver(
        name="redis",
        summary="queues and records in Redis 6.2 or later",
        url_schemes=(
            "redis",
            "rediss",
            "unix",
            "redis+sentinel",
            "rediss+sentinel",
            "redis+cluster",
            "rediss+cluster",
        ),
        settings=("REDIS", "REDIS_PREFIX"),
        open_broker=open_broker,
        open_queue=open_queue,
    )


def open_broker(opening: Opening) -> Broker:
    """Opens the broker, which connects at its first use. Raises ConfigError."""
    with _that_is_installed():
        import_whole("mrq_broker_redis.broker")
        from mrq_broker_redis.broker import RedisBroker
    return RedisBroker(opening)


def open_queue(opening: Opening) -> JobQueue:
    """Opens the queue of a broker whose records are in another store, like `open_broker`."""
    with _that_is_installed():
        import_whole("mrq_broker_redis.queue")
        from mrq_broker_redis.queue import RedisQueue
    return RedisQueue(opening)


@contextmanager
def _that_is_installed() -> Iterator[None]:
    """Says what to install where redis-py is missing. Raises ConfigError."""
    try:
        yield
    except ModuleNotFoundError as error:
        is_blocked = sys.modules.get("redis", error) is None
        if error.name != "redis" or is_blocked:
            raise
        raise ConfigError(
            "the Redis broker needs the package redis, which is not installed: pip install 'redis[hiredis]'"
        ) from error
