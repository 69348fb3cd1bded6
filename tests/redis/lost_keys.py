"""Jobs of every kind on Redis, and the loss of keys."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.queue import RedisQueue
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import ClaimRequest, Limit, NewJob, Outcome, Settlement, Wanted
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from mrq_core.operations.actions import repair_all

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


def put(broker: Broker, number: int = 1, *limit_keys: str, **more: Any) -> list[str]:
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


def claim(broker: Broker, number: int = 50, *queues: str) -> list[JobRecord]:
    wanted = tuple(Wanted(name=name) for name in queues or ("q", "tree/"))
    request = ClaimRequest(worker="w", wanted=wanted, limit=number, lease=60.0, limits=LIMITS)
    return list(broker.claim(request).records)


def settle(broker: Broker, claimed: list[JobRecord], status: Status = Status.SUCCESS) -> None:
    raised: dict[str, Any] = {"exception_type": "E", "error_group": "some.Task/E"}
    if status is Status.SUCCESS:
        raised = {}
    outcome = Outcome(status=status, ttl=100.0, **raised)
    broker.settle([Settlement(id=one.id, token=one.token or "", outcome=outcome) for one in claimed])


def fill(broker: Broker) -> None:
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


def lose(holder: RedisBroker | RedisQueue, *names: str) -> None:
    """Deletes keys of the entries."""
    for name in names:
        holder._connection.execute("DEL", holder._connection.key(name))


def repair(broker: Broker) -> list[str]:
    return [job_id for step in repair_all(broker) for job_id in step.repaired]


def unfinished(broker: Broker) -> list[str]:
    found = broker.find(JobFilter(statuses=(Status.QUEUED, Status.STARTED)), limit=1000).records
    return [record.id for record in found]
