"""What the queue half keeps counted is right after any history, and the recount would tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
import redis

from mrq_broker_redis.queue import RedisQueue
from mrq_core.clock import Clock
from mrq_core.composed import ComposedBroker
from mrq_core.contract.messages import Limit, Unique
from mrq_core.testing.conformance import BrokerFactory
from mrq_core.testing.conformance.against_model import MachineContract
from mrq_core.testing.conformance.machine import JobMachine
from mrq_core.testing.conformance.machine_raw import RawMachine
from mrq_core.testing.conformance.queue_kit import put, put_many, take
from mrq_core.testing.memory import MemoryStore, StoreData
from tests.redis.kit import Place, open_queue
from tests.redis.recount_entries import check_entries


class CountedMachine(RawMachine):
    """Counts everything anew at the end of a history, and in its middle."""

    def compare(self) -> None:
        super().compare()
        assert isinstance(self.driver, ComposedBroker)
        queue = self.driver._queue
        assert isinstance(queue, RedisQueue)
        check_entries(queue)


class TestRedisEntriesAfterAnyHistory(MachineContract):
    examples = 30

    @property
    def machine(self) -> type[JobMachine]:
        return CountedMachine

    @pytest.fixture
    def empty_broker_factory(self, place: Place) -> Iterator[BrokerFactory]:
        numbers = count()

        def open_pair(clock: Clock) -> ComposedBroker:
            queue = open_queue(replace(place, prefix=f"{place.prefix}-{next(numbers)}"), clock)
            return ComposedBroker(queue, MemoryStore(clock=clock, data=StoreData()))

        yield open_pair
        for number in range(next(numbers)):
            replace(place, prefix=f"{place.prefix}-{number}").clear()


WRONGS = {
    "a record": lambda client, key: client.set(key("r:" + "0" * 24), "x"),
    "an index": lambda client, key: client.zadd(key("i:s:queued"), {"0" * 24: 0}),
    "a line": lambda client, key: client.zremrangebyrank(key("w:0:q"), 0, 0),
    "a due time": lambda client, key: client.zadd(key("w:0:q"), {client.zrange(key("w:0:q"), 0, 0)[0]: 1}),
    "a claimed line": lambda client, key: client.delete(key("c:q")),
    "a running count": lambda client, key: client.hset(key("running"), "key", 7),
    "a slot": lambda client, key: client.zadd(key("slots"), {"0" * 24 + " key": 1}),
    "a parked entry": lambda client, key: client.hset(key("parked"), "0" * 24, "x"),
    "a parked count": lambda client, key: client.hset(key("parked-in"), "q", 7),
    "a subqueue": lambda client, key: client.delete(key("ready:t/")),
    "a period": lambda client, key: client.delete(key("u:x")),
    "a reservation": lambda client, key: client.hset(key("u:at"), "other", 1),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_the_recount_notices_what_is_wrong(place: Place, wrong: str) -> None:
    queue = place.open_queue()
    put_many(queue, 3, limit_keys=("key",))
    assert len(take(queue, limits={"key": Limit(concurrency=1)})) == 1
    put(queue)
    put(queue, "t/s", unique=Unique(key="k", until="period", period=60.0))
    check_entries(queue)
    with redis.Redis.from_url(place.url) as client:
        WRONGS[wrong](client, lambda name: "{" + place.prefix + "}:" + name)
    with pytest.raises((AssertionError, KeyError)):
        check_entries(queue)
    queue.close()
