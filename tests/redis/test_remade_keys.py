"""Structures that follow from the jobs: one whose key was changed by hand is made anew, and stops nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from mrq_broker_redis.broker import RedisBroker
from mrq_core.clock import to_ms
from mrq_core.contract.messages import ClaimRequest, Limit, NewJob, Outcome, Settlement, Wanted
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from tests.redis.recount import check_keys

DAMAGE: dict[str, tuple[Any, ...]] = {"a string": ("SET", b"x"), "a list": ("RPUSH", b"x")}
NO_NUMBER: dict[str, tuple[Any, ...]] = {
    "no number": (b"x",),
    "a fraction": (b"1.5",),
    "a number too large": (b"9" * 21,),
}
FIELDS = {"n:q": b"started q", "n:h": b"started some.Task", "n:e": b"failed some.Task/E", "n:g": b"failed E"}
TOTALS = ("n:q", "n:h", "n:e", "n:g")
OTHERS = ("x", "parked-keys", "parked-in", "running")
CASES = [
    *[pytest.param(name, values, id=f"{name} {kind}") for name in (*TOTALS, *OTHERS)
      for kind, values in DAMAGE.items()],
    *[pytest.param(name, ("HSET", FIELDS[name], *values), id=f"{name} {kind}") for name in TOTALS
      for kind, values in NO_NUMBER.items()],
    *[pytest.param(name, ("HSET", field, b"x"), id=f"{name} no number")
      for name, field in (("running", b"few"), ("parked-in", b"q"))],
]  # fmt: skip


def queue(broker: RedisBroker, number: int, *limit_keys: str) -> None:
    now = broker.now()
    fields: dict[str, Any] = {
        "path": "some.Task",
        "params": {},
        "queue": "q",
        "queued_at": now,
        "updated_at": now,
        "limit_keys": limit_keys,
    }
    broker.enqueue([NewJob(record=JobRecord(id=new_id(), **fields)) for _ in range(number)])


def claim(broker: RedisBroker, number: int) -> list[JobRecord]:
    limits = {"few": Limit(concurrency=2)}
    wanted = (Wanted(name="q"),)
    request = ClaimRequest(worker="w", wanted=wanted, limit=number, lease=60.0, limits=limits)
    return list(broker.claim(request).records)


def settle(broker: RedisBroker, claimed: list[JobRecord], outcome: Outcome) -> None:
    broker.settle([Settlement(id=one.id, token=one.token or "", outcome=outcome) for one in claimed])


SUCCESS = Outcome(status=Status.SUCCESS, ttl=100.0)
FAILURE = Outcome(
    status=Status.FAILED, ttl=100.0, exception_type="E", exception_message="bad", error_group="some.Task/E"
)


def work(broker: RedisBroker) -> None:
    """Queues, claims and settles, with and without limits."""
    queue(broker, 4)
    queue(broker, 6, "few")
    claimed = claim(broker, 8)
    assert claimed
    settle(broker, claimed[:2], SUCCESS)
    settle(broker, claimed[2:4], FAILURE)


def damage(broker: RedisBroker, name: str, values: tuple[Any, ...]) -> None:
    key = broker._connection.key(name)
    if values[0] != "HSET":
        broker._connection.execute("DEL", key)
    broker._connection.execute(values[0], key, *values[1:])


@pytest.mark.parametrize(("name", "values"), CASES)
def test_a_damaged_structure_stops_no_claim_and_no_settle_and_is_made_anew(
    broker: RedisBroker, name: str, values: tuple[Any, ...]
) -> None:
    work(broker)
    damage(broker, name, values)
    work(broker)
    work(broker)
    broker.totals()
    check_keys(broker)
    kept = {one.subject: one for one in broker.check()}["damaged keys"]
    assert f"damaged:{name}" in kept.message
    assert "redis-cli" in kept.advice


@pytest.mark.parametrize(("name", "values"), CASES)
@pytest.mark.parametrize(
    "read",
    [
        lambda broker: sum(broker.totals().by_status().values()) == 20,
        lambda broker: broker.count(JobFilter(queues=("q",))).numbers[""] == 20,
        lambda broker: broker.count(JobFilter(), "error_group").numbers["some.Task/E"] == 4,
        lambda broker: broker.count(JobFilter(exception_types=("E",))).numbers[""] == 4,
        lambda broker: broker.counts(["q"])[0].waiting >= 0,
        lambda broker: broker.prune() == 0,
        lambda broker: broker.find(JobFilter(), limit=1).records,
    ],
    ids=["totals", "count", "groups", "types", "counts", "prune", "find"],
)
def test_a_damaged_structure_stops_no_reading(
    broker: RedisBroker, name: str, values: tuple[Any, ...], read: Callable[[RedisBroker], object]
) -> None:
    work(broker)
    work(broker)
    damage(broker, name, values)
    assert read(broker)


@pytest.mark.parametrize("values", DAMAGE.values(), ids=DAMAGE)
def test_expired_jobs_are_deleted_after_their_times_were_damaged(
    broker: RedisBroker, clock: ManualClock, values: tuple[Any, ...]
) -> None:
    work(broker)
    damage(broker, "x", values)
    clock.advance(101)
    assert broker.prune() == 4
    check_keys(broker)


@pytest.mark.parametrize(("name", "values"), CASES[:4])
def test_a_check_names_a_damaged_structure(broker: RedisBroker, name: str, values: tuple[Any, ...]) -> None:
    work(broker)
    damage(broker, name, values)
    finding = {one.subject: one for one in broker.check()}["derived keys"]
    assert name in finding.message
    assert "mrq check --repair" in finding.advice


@pytest.mark.parametrize("values", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("name", ["metrics:m", "metrics:h", "m:m:{}:jobs"])
def test_damaged_metrics_stop_no_metric(
    broker: RedisBroker, clock: ManualClock, name: str, values: tuple[Any, ...]
) -> None:
    def recorded() -> int:
        broker.record_metrics([Metric(name="jobs", at=broker.now())])
        until = broker.now() + timedelta(minutes=2)
        found = broker.read_metrics(["jobs"], until - timedelta(hours=2), until, Resolution.MINUTE)
        return sum(one.count for one in found)

    assert recorded() == 1
    slot = to_ms(broker.now()) // 60_000
    damage(broker, name.format(slot), values)
    assert recorded() <= 2  # without the damaged ones
    clock.advance(7200)
    assert recorded() == 1
    assert broker.prune() == 0
