"""What the contracts share: the fixtures, and short words for what the tests do with a broker."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from mrq_core.clock import Clock
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import (
    Cancel,
    Claimed,
    ClaimRef,
    ClaimRequest,
    Enqueued,
    NewJob,
    Outcome,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock

BrokerFactory = Callable[[Clock], Broker]
"""Opens another broker, with this clock, on the data of the test that asked for the factory."""

LEASE = 60.0
SECOND_BEFORE_LEASE_ENDS = LEASE - 1


class Contract:
    """A part of the contract. A driver's tests subclass it and give the fixture `broker_factory`.

    The data behind a factory are empty when the test starts. Two brokers of one factory stand for
    two processes.
    """

    supports_unique: bool = True
    """Whether the driver has unique keys. Set to False while it does not."""

    supports_limits: bool = True
    supports_raw: bool = True
    supports_metrics: bool = True
    """The same for limits, raw queues and metrics."""

    @pytest.fixture
    def broker_factory(self) -> BrokerFactory:
        raise NotImplementedError("give your test class a fixture `broker_factory`: see BrokerFactory")

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def broker(self, broker_factory: BrokerFactory, clock: ManualClock) -> Iterator[Broker]:
        broker = broker_factory(clock)
        broker.prepare()
        yield broker
        broker.close()


# --- jobs -----------------------------------------------------------------------------------


def new_job(
    clock: ManualClock,
    queue: str = "q",
    *,
    params: JsonObject | None = None,
    delay: float | None = None,
    unique: Unique | None = None,
    **fields: Any,
) -> NewJob:
    """A job as a client makes it; `fields` are those of JobRecord."""
    values: dict[str, Any] = {
        "id": new_id(),
        "path": "tests.tasks.Example",
        "params": {} if params is None else params,
        "queue": queue,
        "queued_at": clock.now(),
        "updated_at": clock.now(),
        "unique_key": unique.key if unique else None,
        **fields,
    }
    return NewJob(record=JobRecord(**values), delay=delay, unique=unique)


def put(broker: Broker, clock: ManualClock, queue: str = "q", **fields: Any) -> str:
    """Enqueues one new job; answers with its id."""
    job = new_job(clock, queue, **fields)
    assert broker.enqueue([job]) == [Enqueued(id=job.record.id, created=True)]
    return job.record.id


def put_many(broker: Broker, clock: ManualClock, number: int, queue: str = "q", **fields: Any) -> list[str]:
    """Enqueues `number` new jobs in one call; returns their ids in order."""
    jobs = [new_job(clock, queue, **fields) for _ in range(number)]
    return [answer.id for answer in broker.enqueue(jobs)]


def record_of(broker: Broker, job_id: str) -> JobRecord:
    """The record of a job that has to be there."""
    [record] = broker.get([job_id])
    assert record is not None
    return record


def status_of(broker: Broker, job_id: str) -> Status:
    return record_of(broker, job_id).status


# --- claims ---------------------------------------------------------------------------------


def claim(
    broker: Broker,
    *wanted: str | Wanted,
    limit: int = 10,
    worker: str = "w1",
    lease: float = LEASE,
    **more: Any,
) -> Claimed:
    """Claims from the queues, or from ``q``."""
    return broker.claim(
        ClaimRequest(
            worker=worker,
            wanted=tuple(Wanted(name=name) if isinstance(name, str) else name for name in wanted or ("q",)),
            limit=limit,
            lease=lease,
            **more,
        )
    )


def take(broker: Broker, *wanted: str | Wanted, **more: Any) -> list[str]:
    """Claims; answers with the ids of the jobs taken."""
    return [record.id for record in claim(broker, *wanted, **more).records]


def take_one(broker: Broker, *wanted: str | Wanted, **more: Any) -> JobRecord:
    """Claims the one job that must be there."""
    [record] = claim(broker, *wanted, limit=1, **more).records
    return record


def started(broker: Broker, clock: ManualClock, queue: str = "q", **fields: Any) -> JobRecord:
    """Enqueues a job and claims it."""
    job_id = put(broker, clock, queue, **fields)
    record = take_one(broker, queue)
    assert record.id == job_id
    return record


def ref(record: JobRecord) -> ClaimRef:
    """The claim that the record was given under."""
    assert record.token is not None
    return ClaimRef(id=record.id, token=record.token)


def settlement(record: JobRecord, status: Status = Status.SUCCESS, **outcome: Any) -> Settlement:
    """The end of the attempt that the record was given under."""
    assert record.token is not None
    return Settlement(id=record.id, token=record.token, outcome=Outcome(status=status, **outcome))


def settle(broker: Broker, record: JobRecord, status: Status = Status.SUCCESS, **outcome: Any) -> bool:
    [accepted] = broker.settle([settlement(record, status, **outcome)])
    return accepted


def lose(clock: ManualClock, lease: float = LEASE) -> None:
    """Lets the leases that were just taken run out."""
    clock.advance(lease)


def bring_to(broker: Broker, clock: ManualClock, status: Status, queue: str = "q", **fields: Any) -> str:
    """A new job that has come to this status by the broker's operations."""
    if status is Status.QUEUED:
        return put(broker, clock, queue, **fields)
    if status is Status.CANCEL:
        job_id = put(broker, clock, queue, **fields)
        broker.cancel([job_id], Cancel())
        return job_id
    record = started(broker, clock, queue, **fields)
    if status in (Status.RETRY, Status.INTERRUPT):
        assert settle(broker, record, status, delay=0.0, is_retry=status is Status.RETRY)
    elif status is not Status.STARTED:
        assert settle(broker, record, status, ttl=1000.0)
    return record.id


# --- threads --------------------------------------------------------------------------------


def run_in_threads(target: Callable[..., object], arguments: Sequence[tuple[object, ...]]) -> None:
    """Runs the target once for each, all at the same time and switching often; raises what one raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(arguments))

    def run(values: tuple[object, ...]) -> None:
        try:
            barrier.wait()
            target(*values)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(values,)) for values in arguments]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    if errors:
        raise errors[0]


def named(*names: str) -> list[Wanted]:
    """The queues and trees of these names, as a worker wants them."""
    return [Wanted(name=name) for name in names]
