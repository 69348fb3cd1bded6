"""What the contracts of a store share: the fixtures, and short words for what the tests do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from mrq_core.clock import Clock
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import NewJob, Outcome, Settlement
from mrq_core.contract.pair import Entry, JobStore, Replacement, StoredJob, WriteResult
from mrq_core.contract.queries import JobFilter, LogLine
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, new_job

StoreFactory = Callable[[Clock], JobStore]
"""Opens another store, with this clock, on the data of the test that asked for the factory."""

SUCCESS = Outcome(status=Status.SUCCESS, ttl=1000.0, result=7)
FAILURE = Outcome(status=Status.FAILED, ttl=1000.0, exception_type="E", traceback="T")
RETRY = Outcome(status=Status.RETRY, delay=5.0, is_retry=True, exception_type="E")
INTERRUPT = Outcome(status=Status.INTERRUPT, delay=0.0)
FULL: dict[str, Any] = {
    "path": "tests.tasks.Other",
    "params": {"a": [1, 2.5, None, {"b.c": "$d"}], "$ref": "x", "": True},
    "raw_queue": "urls_set",
    "priority": 3,
    "at_most_once": True,
    "limit_keys": ("rule:1", "other"),
    "schedule": "each minute",
    "parents": ("0" * 24,),
    "meta": {"trace": {"$ref": 1}},
}
"""Fields of a record that a new job may have."""


class StorePart:
    """A part of the contract of a store. A driver's tests subclass it and give the fixture `store_factory`.

    The data behind a factory are empty when the test starts. Two stores of one factory stand for two
    processes.
    """

    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        raise NotImplementedError("give your test class a fixture `store_factory`: see StoreFactory")

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def store(self, store_factory: StoreFactory, clock: ManualClock) -> Iterator[JobStore]:
        store = store_factory(clock)
        store.prepare()
        yield store
        store.close()

    @pytest.fixture
    def other(self, store_factory: StoreFactory, clock: ManualClock) -> Iterator[JobStore]:
        """The store of another process."""
        store = store_factory(clock)
        yield store
        store.close()


# --- jobs -----------------------------------------------------------------------------------


def insert(store: JobStore, jobs: Sequence[NewJob]) -> list[bool]:
    """Inserts jobs whose keys until `record` are free. Returns whether each job was created."""
    answers = store.insert(jobs)
    assert [answer.id for answer in answers] == [job.record.id for job in jobs]
    return [answer.created for answer in answers]


def put(store: JobStore, clock: ManualClock, queue: str = "q", **fields: Any) -> str:
    """Stores a new job; answers with its id."""
    job = new_job(clock, queue, **fields)
    assert insert(store, [job]) == [True]
    return job.record.id


def read_one(store: JobStore, job_id: str) -> StoredJob:
    """A job that has to be there."""
    [found] = store.read([job_id])
    assert found is not None
    return found


def write_one(
    store: JobStore, clock: ManualClock, before: StoredJob, wanted: JobRecord | None, **more: Any
) -> WriteResult:
    [answer] = store.write([Replacement(before, wanted, **more)], clock.now())
    return answer


def entry_of(stored: StoredJob, nonce: str = "n") -> Entry:
    """A claimed entry of the job as it was read."""
    record = stored.record
    return Entry(
        id=record.id,
        queue=record.queue,
        version=stored.version,
        due_at=record.due_at,
        claims=record.claims,
        token=lifecycle.make_token(record.claims + 1, nonce),
    )


def claimed(clock: ManualClock, record: JobRecord) -> JobRecord:
    return lifecycle.claimed(record, now=clock.now(), worker="w", nonce="c", lease=LEASE)


def start_one(store: JobStore, clock: ManualClock, job_id: str) -> JobRecord:
    """Starts a job that has to wait."""
    entry = entry_of(read_one(store, job_id))
    [record] = store.start([entry], worker="w", lease=LEASE, now=clock.now())
    assert record is not None
    return record


def settle_one(store: JobStore, clock: ManualClock, job_id: str, outcome: Outcome) -> None:
    """Ends the running attempt of a job in full."""
    before = read_one(store, job_id)
    settled = lifecycle.settled(before.record, outcome, clock.now())
    assert write_one(store, clock, before, settled) is WriteResult.DONE


def settlement_of(record: JobRecord, outcome: Outcome) -> Settlement:
    assert record.token is not None
    return Settlement(id=record.id, token=record.token, outcome=outcome)


def succeed_one(store: JobStore, clock: ManualClock, record: JobRecord) -> bool:
    [written] = store.succeed([settlement_of(record, SUCCESS)], clock.now())
    return written


def put_parent(store: JobStore, clock: ManualClock) -> str:
    """A job that has ended, with a follow-up that is not known to be enqueued."""
    job_id = put(store, clock)
    start_one(store, clock, job_id)
    before = read_one(store, job_id)
    settled = lifecycle.settled(before.record, SUCCESS, clock.now())
    followups = (new_job(clock),)
    assert write_one(store, clock, before, settled, followups=followups) is WriteResult.DONE
    return job_id


def line(clock: ManualClock, job_id: str) -> LogLine:
    return LogLine(job_id=job_id, attempt=1, seq=0, at=clock.now(), level="INFO", message="m")


def numbers(store: JobStore) -> dict[Status, int]:
    """How many jobs there are by status, counted."""
    return {Status(name): number for name, number in store.count(JobFilter(), "status").numbers.items()}


def check_totals(store: JobStore, expected: dict[Status, int] | None = None) -> None:
    """Totals are a count, of queues and of paths; and what is expected."""
    totals = store.totals()
    assert totals.by_status() == (numbers(store) if expected is None else expected)
    for group, table in (("queue", totals.by_queue), ("path", totals.by_path)):
        sums = {name: sum(row.values()) for name, row in table.items()}
        assert {name: n for name, n in sums.items() if n} == store.count(JobFilter(), group).numbers
