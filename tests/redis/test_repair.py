"""Keys that a server has evicted, or that were deleted by hand: a repair restores entries and totals."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mrq_broker_redis.broker import RedisBroker
from mrq_core.contract.messages import ClaimRequest, Limit, NewJob, Outcome, Requeue, Settlement, Wanted
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from mrq_core.operations.actions import repair_all
from mrq_core.operations.explaining.explaining import explain_job
from mrq_core.operations.explaining.reasons import ReasonKind
from mrq_core.testing.clock import ManualClock
from tests.redis.recount import check_keys

LIMITS = {"few": Limit(concurrency=1)}
ENTRIES = {
    "w:0:q": 4,
    "w:-3:q": 1,
    "w:0:tree/one": 1,
    "ranks": 1,
    "c:q": 3,
    "parked": 0,
    "park:few": 2,
    "parked-keys": 0,
    "parked-in": 0,
    "queues": 0,
    "ready:tree/": 0,
    "later:tree/": 0,
}
"""The keys of entries, and the number of jobs that have lost their entry without them."""
TOTALS = ("n:q", "n:h", "n:g", "n:e")


def put(broker: RedisBroker, number: int = 1, *limit_keys: str, **more: Any) -> list[str]:
    now = broker.now()
    fields: dict[str, Any] = {
        "path": "some.Task",
        "params": {},
        "queue": "q",
        "queued_at": now,
        "updated_at": now,
        "due_at": now,
        "limit_keys": limit_keys,
    }
    records = [JobRecord(id=new_id(), **{**fields, **more}) for _ in range(number)]
    return [one.id for one in broker.enqueue([NewJob(record=record) for record in records])]


def claim(broker: RedisBroker, number: int = 50, *queues: str) -> list[JobRecord]:
    wanted = tuple(Wanted(name=name) for name in queues or ("q", "tree/"))
    request = ClaimRequest(worker="w", wanted=wanted, limit=number, lease=60.0, limits=LIMITS)
    return list(broker.claim(request).records)


def settle(broker: RedisBroker, claimed: list[JobRecord], status: Status = Status.SUCCESS) -> None:
    raised: dict[str, Any] = {"exception_type": "E", "error_group": "some.Task/E"}
    if status is Status.SUCCESS:
        raised = {}
    outcome = Outcome(status=status, ttl=100.0, **raised)
    broker.settle([Settlement(id=one.id, token=one.token or "", outcome=outcome) for one in claimed])


def fill(broker: RedisBroker) -> None:
    """Jobs of every kind: ended, started, waiting now and later, with a priority, in a subqueue, parked."""
    put(broker, 3)
    settle(broker, claim(broker, 2))
    settle(broker, claim(broker, 1), Status.FAILED)
    put(broker, 3, "few")
    put(broker, 2)
    assert len(claim(broker)) == 3, "one under the limit, and the two without"
    put(broker, 3)
    put(broker, due_at=broker.now() + timedelta(seconds=50))
    put(broker, priority=3)
    put(broker, queue="tree/one")
    put(broker, queue="tree/two", due_at=broker.now() + timedelta(seconds=50))
    check_keys(broker)


def lose(broker: RedisBroker, *names: str) -> None:
    for name in names:
        broker._connection.execute("DEL", broker._connection.key(name))


def repair(broker: RedisBroker) -> list[str]:
    return [job_id for step in repair_all(broker) for job_id in step.repaired]


def unfinished(broker: RedisBroker) -> list[str]:
    found = broker.find(JobFilter(statuses=(Status.QUEUED, Status.STARTED)), limit=1000).records
    return [record.id for record in found]


@pytest.mark.parametrize("name", ENTRIES)
def test_the_entries_of_a_lost_key_are_restored(broker: RedisBroker, clock: ManualClock, name: str) -> None:
    fill(broker)
    wanted = unfinished(broker)
    lose(broker, name)
    assert len(repair(broker)) == ENTRIES[name]
    assert repair(broker) == []
    check_keys(broker)
    clock.advance(61)  # leases end, and later jobs are due
    started: set[str] = set()
    while claimed := claim(broker):
        started.update(one.id for one in claimed)
        settle(broker, claimed)
    assert started == set(wanted)


def test_all_entries_are_restored_at_once(broker: RedisBroker) -> None:
    fill(broker)
    lose(broker, *(name for name in ENTRIES if name != "queues"), "w:0:tree/two", "ranks")
    assert sorted(repair(broker)) == sorted(unfinished(broker))
    check_keys(broker)


def test_a_repair_changes_nothing_where_nothing_is_lost(broker: RedisBroker) -> None:
    fill(broker)
    before = {one.id: one for one in broker.find(JobFilter(), limit=1000).records}
    assert repair(broker) == []
    assert broker.repair_totals() == 0
    assert {one.id: one for one in broker.find(JobFilter(), limit=1000).records} == before
    check_keys(broker)


def test_a_parked_job_keeps_its_place_if_only_the_hash_is_lost(broker: RedisBroker) -> None:
    fill(broker)
    lose(broker, "parked")
    assert repair(broker) == []
    check_keys(broker)


def test_a_job_that_has_lost_its_entry_has_no_position(broker: RedisBroker) -> None:
    [job_id] = put(broker)
    assert broker.queue_position(job_id) is not None
    lose(broker, "w:0:q")
    assert broker.queue_position(job_id) is None
    [*_, reason] = explain_job(broker, job_id)
    assert (reason.kind, reason.command) == (ReasonKind.NO_ENTRY, "mrq check --repair")


@pytest.mark.parametrize("name", TOTALS)
def test_lost_totals_are_counted_anew(broker: RedisBroker, name: str) -> None:
    fill(broker)
    before = broker.totals()
    lose(broker, name)
    [failed] = broker.find(JobFilter(statuses=(Status.FAILED,))).records
    broker.requeue([failed.id], Requeue())  # takes one from lost totals: a negative number
    assert broker.repair_totals() > 0
    assert broker.repair_totals() == 0
    check_keys(broker)
    assert sum(broker.totals().by_status().values()) == sum(before.by_status().values())


def test_totals_are_left_alone_if_the_index_of_a_status_is_lost(broker: RedisBroker) -> None:
    fill(broker)
    before = broker.totals()
    lose(broker, "i:s:queued")
    assert broker.repair_totals() == 0
    assert broker.totals() == before
