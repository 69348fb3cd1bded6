"""What the tests of the Redis broker share."""

from __future__ import annotations

from dataclasses import dataclass

import redis

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.queue import RedisQueue
from mrq_broker_redis.server.scripts import script
from mrq_core.clock import Clock, SystemClock
from mrq_core.contract.driver import Opening
from tests.proxy import Proxy


@dataclass(frozen=True, slots=True)
class Place:
    """A prefix on a server."""

    url: str
    prefix: str

    def open(self, clock: Clock | None = None, timeout: float = 10.0) -> RedisBroker:
        """A broker there."""
        return open_broker(self, clock, timeout)

    def open_queue(self, clock: Clock | None = None, timeout: float = 10.0) -> RedisQueue:
        """A queue half there."""
        return open_queue(self, clock, timeout)

    def clear(self) -> None:
        """Deletes its keys."""
        with redis.Redis.from_url(self.url) as client:
            keys = list(client.scan_iter("{" + self.prefix + "}:*", count=1000))
            for start in range(0, len(keys), 1000):
                client.delete(*keys[start : start + 1000])


def open_broker(place: Place, clock: Clock | None = None, timeout: float = 10.0) -> RedisBroker:
    """A broker at the place, in this process or in a child."""
    return RedisBroker(_opening(place, clock, timeout))


def open_queue(place: Place, clock: Clock | None = None, timeout: float = 10.0) -> RedisQueue:
    """The same for the queue half."""
    return RedisQueue(_opening(place, clock, timeout))


def _opening(place: Place, clock: Clock | None, timeout: float) -> Opening:
    settings = {"REDIS": place.url, "REDIS_PREFIX": place.prefix}
    return Opening(settings=settings, clock=clock or SystemClock(), timeout=timeout)


def lose_reply_to(proxy: Proxy, name: str) -> None:
    """Loses the reply to the next call of that script."""
    proxy.lose_reply_to(script(name).digest.encode())
