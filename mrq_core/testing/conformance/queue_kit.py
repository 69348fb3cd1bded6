"""What the contracts of a queue half share: the fixtures, and short words for what the tests do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mrq_core.clock import Clock
from mrq_core.contract.messages import ClaimRef, ClaimRequest, Wanted
from mrq_core.contract.pair import ClaimedEntries, Entry, JobQueue, Removal
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE

QueueFactory = Callable[[Clock], JobQueue]
"""Opens another queue, with this clock, on the data of the test that asked for the factory."""

TOKEN = "7.0123456789abcdef"
OTHER_TOKEN = "8.fedcba9876543210"


class QueuePart:
    """A part of the contract of a queue half. A driver's tests subclass it and give the fixture
    `queue_factory`.

    The data behind a factory are empty when the test starts. Two queues of one factory stand for two
    processes.
    """

    @pytest.fixture
    def queue_factory(self) -> QueueFactory:
        raise NotImplementedError("give your test class a fixture `queue_factory`: see QueueFactory")

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def queue(self, queue_factory: QueueFactory, clock: ManualClock) -> Iterator[JobQueue]:
        queue = queue_factory(clock)
        queue.prepare()
        yield queue
        queue.close()


# --- entries --------------------------------------------------------------------------------


def new_entry(name: str = "q", **fields: Any) -> Entry:
    """The first entry of a new job, due now; `fields` are those of Entry."""
    return Entry(**{"id": new_id(), "queue": name, "version": 1, "due_at": None, **fields})


def put(queue: JobQueue, name: str = "q", **fields: Any) -> Entry:
    """Pushes a new entry."""
    [entry] = put_many(queue, 1, name, **fields)
    return entry


def put_many(queue: JobQueue, number: int, name: str = "q", **fields: Any) -> list[Entry]:
    """Pushes `number` new entries in one call, which differ only by their ids."""
    entries = [new_entry(name, **fields) for _ in range(number)]
    assert queue.push(entries) == [True] * number
    return entries


def entry_of(queue: JobQueue, job_id: str) -> Entry:
    """The entry of a job that has to be there."""
    [entry] = queue.entries([job_id])
    assert entry is not None
    return entry


def ids_of(entries: list[Entry] | tuple[Entry, ...]) -> list[str]:
    return [entry.id for entry in entries]


# --- claims ---------------------------------------------------------------------------------


def claim(
    queue: JobQueue,
    *wanted: str | Wanted,
    limit: int = 10,
    worker: str = "w1",
    lease: float = LEASE,
    leave_suspects: bool = False,
    **more: Any,
) -> ClaimedEntries:
    """Claims from the queues, or from ``q``."""
    request = ClaimRequest(
        worker=worker,
        wanted=tuple(Wanted(name=name) if isinstance(name, str) else name for name in wanted or ("q",)),
        limit=limit,
        lease=lease,
        **more,
    )
    return queue.claim(request, leave_suspects=leave_suspects)


def take(queue: JobQueue, *wanted: str | Wanted, **more: Any) -> list[str]:
    """Claims; answers with the ids of the entries taken."""
    return ids_of(claim(queue, *wanted, **more).entries)


def take_one(queue: JobQueue, *wanted: str | Wanted, **more: Any) -> Entry:
    """Claims the one entry that must be there."""
    [entry] = claim(queue, *wanted, limit=1, **more).entries
    return entry


def claimed(queue: JobQueue, name: str = "q", **fields: Any) -> Entry:
    """Pushes an entry and claims it."""
    pushed = put(queue, name, **fields)
    entry = take_one(queue, name)
    assert entry.id == pushed.id
    return entry


def as_worker(worker: str, lease: float = LEASE, **more: Any) -> ClaimRequest:
    """Who takes suspects, and for how long."""
    return ClaimRequest(worker=worker, wanted=(), limit=1, lease=lease, **more)


def suspect(queue: JobQueue, clock: ManualClock, name: str = "q", **fields: Any) -> Entry:
    """Pushes an entry, claims it, and lets its lease run out."""
    entry = claimed(queue, name, **fields)
    clock.advance(LEASE)
    return entry


def token_of(entry: Entry) -> str:
    assert entry.token is not None
    return entry.token


def ref(entry: Entry) -> ClaimRef:
    """The claim that holds the entry."""
    return ClaimRef(id=entry.id, token=token_of(entry))


def end(queue: JobQueue, entry: Entry) -> None:
    """Removes a claimed entry, as the end of its job does."""
    assert queue.remove([Removal(id=entry.id, token=token_of(entry))]) == [True]
