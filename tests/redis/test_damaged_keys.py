"""Keys that were changed by hand harm only the job, or the value, that they belong to."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from msgspec import msgpack

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.server import key_types
from mrq_core.contract.messages import (
    ChangeResult,
    ClaimRequest,
    NewJob,
    Outcome,
    Remove,
    Requeue,
    Settlement,
    Wanted,
)
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.shared_state import Versions
from mrq_core.ids import new_id
from mrq_core.operations.checking import state_values
from mrq_core.testing.clock import ManualClock

EXCEPTIONS: dict[str, tuple[Any, ...]] = {
    "garbage": ("SET", b"\xc1\xff"),
    "empty": ("SET", b""),
    "a number": ("SET", b"5"),
    "other parts": ("SET", msgpack.encode([5, 5])),
    "other terms": ("SET", msgpack.encode(["group", {"word": 5}])),
    "other words": ("SET", msgpack.encode([None, {"word": [["x"]]}])),
    "a list": ("RPUSH", b"x"),
    "a hash": ("HSET", b"a", b"b"),
    "gone": (),
}


def failed_jobs(broker: RedisBroker, number: int) -> list[str]:
    """Jobs that have failed, with an exception and its terms."""
    now = broker.now()
    fields: dict[str, Any] = {
        "path": "some.Task",
        "params": {},
        "queue": "q",
        "queued_at": now,
        "updated_at": now,
    }
    broker.enqueue([NewJob(record=JobRecord(id=new_id(), **fields)) for _ in range(number)])
    claimed = broker.claim(ClaimRequest(worker="w", wanted=(Wanted(name="q"),), limit=number, lease=60.0))
    outcome = Outcome(
        status=Status.FAILED, ttl=100.0, exception_type="ValueError", exception_message="bad words",
        error_group="some.Task/ValueError",
    )  # fmt: skip
    broker.settle([Settlement(id=one.id, token=one.token or "", outcome=outcome) for one in claimed.records])
    return [one.id for one in claimed.records]


def damage(broker: RedisBroker, key: str, values: tuple[Any, ...]) -> str:
    """Puts another value under a key, or none; returns the key."""
    full = broker._connection.key(key)
    broker._connection.execute("DEL", full)
    if values:
        broker._connection.execute(values[0], full, *values[1:])
    return full


@pytest.mark.parametrize("values", EXCEPTIONS.values(), ids=EXCEPTIONS)
@pytest.mark.parametrize(
    "change",
    [
        lambda broker, ids: broker.requeue(ids, Requeue()),
        lambda broker, ids: broker.remove(ids),
    ],
    ids=["requeue", "remove"],
)
def test_a_damaged_exception_stops_no_change_of_its_job(
    broker: RedisBroker,
    values: tuple[Any, ...],
    change: Callable[[RedisBroker, list[str]], list[ChangeResult]],
) -> None:
    ids = failed_jobs(broker, 3)
    key = damage(broker, f"e:{ids[1]}", values)
    assert [record.exception_type for record in broker.find(JobFilter()).records] == ["ValueError"] * 3
    assert broker.find(JobFilter(error_groups=("some.Task/ValueError",))).records
    assert broker.find(JobFilter(exception_types=("ValueError",), paths=("some.Task",))).records
    grouped = broker.count(JobFilter(workers=("w",)), "error_group")
    assert grouped.numbers["some.Task/ValueError"] in (2, 3)
    assert change(broker, ids) == [ChangeResult.DONE] * 3
    assert broker._connection.execute("EXISTS", key) == 0
    kept = {one.subject: one for one in broker.check()}.get("damaged keys")
    assert (kept is not None) == bool(values)
    assert kept is None or f"damaged:e:{ids[1]}" in kept.message


@pytest.mark.parametrize("values", EXCEPTIONS.values(), ids=EXCEPTIONS)
def test_a_damaged_exception_stops_no_pruning(
    broker: RedisBroker, clock: ManualClock, values: tuple[Any, ...]
) -> None:
    ids = failed_jobs(broker, 3)
    damage(broker, f"e:{ids[0]}", values)
    clock.advance(101)
    assert sum(broker.count(JobFilter(), "error_group").numbers.values()) in (0, 1)
    assert broker.prune() == 3
    assert broker.apply(JobFilter(), Remove()).matched == 0
    assert broker.totals().by_status() == {}


def test_the_namespaces_of_shared_state_are_examined(broker: RedisBroker) -> None:
    assert set(key_types.NAMESPACES) == {*state_values.OF_PEOPLE, *state_values.OF_MRQ}
    for name in ("state:pauses", "rates"):
        damage(broker, name, ("SET", b"x"))
    finding = {one.subject: one for one in broker.check()}["keys"]
    assert "state:pauses is a string, expected a hash" in finding.message
    assert "rates is a string, expected a zset" in finding.message


@pytest.mark.parametrize("values", [("SET", b"x"), ("RPUSH", b"x"), ("SET", b"5.5")])
@pytest.mark.parametrize("name", ["state:pauses", "states:n", "states:x", "rules:n", "sig:w"])
def test_keys_of_shared_state_of_another_type_stop_no_write_and_no_poll(
    broker: RedisBroker, name: str, values: tuple[Any, ...]
) -> None:
    broker.pause(["before"])
    known = broker.poll("w", Versions()).versions
    full = damage(broker, name, values)
    found = broker.poll("w", known).rules
    assert found is None or set(found.queues) <= {"before"}
    soon = broker.now() + timedelta(hours=1)
    broker.pause(["after"], until=soon)
    broker.pause(["then"])
    rules = broker.poll("w", known).rules
    assert rules is not None
    assert {"after", "then"} <= rules.paused_queues
    versions = [item.version for item in broker.state.list("pauses")]
    assert len(set(versions)) == len(versions)
    broker.resume(["after", "then"])
    assert broker.paused() <= {"before"}
    kept = {one.subject: one.message for one in broker.check()}.get("damaged keys", "")
    assert f"damaged:{name}" in kept or broker._connection.execute("TYPE", full) != b"none"
