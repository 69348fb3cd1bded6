"""What the Redis broker keeps counted and indexed is right after any history, and the recount would tell."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
import redis
from msgspec.structs import replace as changed

from mrq_broker_redis.broker import RedisBroker
from mrq_core.contract.messages import NewJob, Outcome, Settlement, Unique
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing.conformance import BrokerFactory
from mrq_core.testing.conformance.against_model import MachineContract
from mrq_core.testing.conformance.machine import JobMachine
from mrq_core.testing.conformance.machine_raw import RawMachine
from tests.redis.kit import Place, open_broker
from tests.redis.recount import check_keys
from tests.redis.test_connection import claim, new_job, success


class CountedMachine(RawMachine):
    """Counts everything anew at the end of a history, and in its middle."""

    def compare(self) -> None:
        super().compare()
        assert isinstance(self.driver, RedisBroker)
        check_keys(self.driver)


class TestRedisKeysAfterAnyHistory(MachineContract):
    examples = 30

    @property
    def machine(self) -> type[JobMachine]:
        return CountedMachine

    @pytest.fixture
    def empty_broker_factory(self, place: Place) -> Iterator[BrokerFactory]:
        numbers = count()
        yield lambda clock: open_broker(replace(place, prefix=f"{place.prefix}-{next(numbers)}"), clock)
        for number in range(next(numbers)):
            replace(place, prefix=f"{place.prefix}-{number}").clear()


WRONGS = {
    "a total": lambda client, key: client.hincrby(key("n:q"), "queued q", 1),
    "a total by path": lambda client, key: client.hdel(key("n:h"), "success t.Task"),
    "an index": lambda client, key: client.zadd(key("i:s:failed"), {"0" * 24: 0}),
    "a term": lambda client, key: client.zadd(key("i:t:word"), {b"lamps\0" + b"0" * 24: 0}),
    "a missing term": lambda client, key: client.zremrangebyrank(key("i:t:type"), 0, 0),
    "a search key": lambda client, key: client.delete(key("i:t:key k")),
    "an exception": lambda client, key: client.set(key("e:" + "0" * 24), b"\x92\xa1g\x80"),
    "a total by group": lambda client, key: client.hincrby(key("n:e"), "failed g", 1),
    "a line": lambda client, key: client.zremrangebyrank(key("w:0:q"), 0, 0),
    "a claimed line": lambda client, key: client.delete(key("c:q")),
    "a running count": lambda client, key: client.hset(key("running"), "key", 1),
    "a slot": lambda client, key: client.zadd(key("slots"), {"0" * 24 + " key": 1}),
    "a parked job": lambda client, key: client.hset(key("parked"), "0" * 24, "x"),
    "a parked count": lambda client, key: client.hset(key("parked-in"), "q", 1),
    "a subqueue": lambda client, key: client.delete(key("later:t/")),
    "a unique key": lambda client, key: client.hdel(key("u"), "unique"),
    "a foreign unique key": lambda client, key: client.hset(key("u"), "other", "0" * 24),
    "an expiry": lambda client, key: client.delete(key("x")),
    "an orphan": lambda client, key: client.set(key("r:" + "0" * 24), "x"),
}


def failure(record: JobRecord) -> Settlement:
    outcome = Outcome(
        status=Status.FAILED,
        exception_type="shop.NoStock",
        exception_message="No stock of 12 lamps",
        error_group="g",
        ttl=60.0,
    )
    return Settlement(id=record.id, token=record.token or "", outcome=outcome)


@pytest.mark.parametrize("wrong", WRONGS)
def test_the_recount_notices_what_is_wrong(place: Place, wrong: str) -> None:
    broker = place.open()
    broker.enqueue([new_job() for _ in range(4)])
    ended, failing, _ = claim(broker, limit=3).records
    broker.settle([success(ended), failure(failing)])
    broker.enqueue([NewJob(record=changed(new_job().record, search_keys={"k": 1}))])
    broker.enqueue([NewJob(record=new_job("t/s").record, delay=60.0), new_job(unique=Unique(key="unique"))])
    check_keys(broker)
    with redis.Redis.from_url(place.url) as client:
        WRONGS[wrong](client, lambda name: "{" + place.prefix + "}:" + name)
    with pytest.raises((AssertionError, KeyError)):
        check_keys(broker)
    broker.close()
