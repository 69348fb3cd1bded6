"""What the tests of the pair of Redis and MongoDB share."""

from __future__ import annotations

from dataclasses import dataclass

from mrq_broker_mongo.store import MongoStore
from mrq_broker_redis.queue import RedisQueue
from mrq_core.clock import Clock, SystemClock
from mrq_core.composed import ComposedBroker
from mrq_core.contract.driver import Opening
from tests.mongo.kit import Place as MongoPlace
from tests.redis.kit import Place as RedisPlace


@dataclass(frozen=True, slots=True)
class Place:
    """A prefix on each server."""

    redis: RedisPlace
    mongo: MongoPlace

    def open(self, clock: Clock | None = None, timeout: float = 10.0) -> ComposedBroker:
        """A broker there."""
        return open_broker(self, clock, timeout)

    def clear(self) -> None:
        """Deletes what is in both."""
        self.redis.clear()
        self.mongo.clear()


def open_broker(place: Place, clock: Clock | None = None, timeout: float = 10.0) -> ComposedBroker:
    """A broker at the place, in whichever process."""
    opening = Opening(
        settings={
            "REDIS": place.redis.url,
            "REDIS_PREFIX": place.redis.prefix,
            "MONGODB": place.mongo.url,
            "MONGODB_PREFIX": place.mongo.prefix,
        },
        clock=clock or SystemClock(),
        timeout=timeout,
    )
    return ComposedBroker(RedisQueue(opening), MongoStore(opening))
