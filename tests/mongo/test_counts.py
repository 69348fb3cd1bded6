"""Counts of queues, from totals and from the first entries of indexes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pymongo
import pytest

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.jobs import counts
from mrq_core.contract.messages import ClaimRequest, Limit, NewJob, Wanted
from mrq_core.contract.queries import QueueCounts
from mrq_core.testing.clock import ManualClock
from tests.mongo.explaining import Doc, Explained, check, figures, stages
from tests.mongo.kit import Place, new_job
from tests.mongo.test_cost import new_job as timed_job


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(place: Place, clock: ManualClock) -> Iterator[MongoBroker]:
    broker = place.open(clock)
    yield broker
    broker.close()


def put(broker: MongoBroker, number: int, queue: str = "q", delay: float = 0.0, priority: int = 0) -> None:
    records = [new_job(queue, priority=priority).record for _ in range(number)]
    broker.enqueue([NewJob(record=record, delay=delay) for record in records])


def take(broker: MongoBroker, limit: int, queue: str = "q", lease: float = 1000.0) -> int:
    limits = {"k": Limit(concurrency=2)}
    wanted = (Wanted(name=queue),)
    request = ClaimRequest(worker="w", wanted=wanted, limit=limit, lease=lease, limits=limits)
    return len(broker.claim(request).records)


def numbers(found: list[QueueCounts]) -> list[tuple[int, int, int]]:
    return [(one.waiting, one.due, one.claimed) for one in found]


def test_due_later_and_claimed_jobs_of_several_priorities_are_told_apart(
    broker: MongoBroker, clock: ManualClock
) -> None:
    start = clock.now()
    for priority in (-4, 0, 4):
        put(broker, 2, priority=priority)
        put(broker, 3, delay=100.0, priority=priority)
    put(broker, 2, "later", delay=50.0)
    put(broker, 4, "lost")
    assert take(broker, 1) == 1
    assert take(broker, 3, "lost", lease=10.0) == 3
    clock.advance(10.0)
    found = broker.counts(["q", "later", "lost", "none"])
    assert numbers(found) == [(14, 5, 1), (2, 0, 0), (4, 4, 0), (0, 0, 0)]
    assert [one.oldest_due for one in found] == [start, None, start, None]
    clock.advance(40.0)
    assert numbers(broker.counts(["later", "q"])) == [(2, 2, 0), (14, 5, 1)]


@pytest.mark.parametrize("most", [1, 5, 1000])
def test_parked_jobs_wait_and_are_not_due(
    broker: MongoBroker, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """With few parked jobs, and with more than are read."""
    monkeypatch.setattr(counts, "MOST_PARKED", most)
    broker.enqueue([new_job(limit_keys=("k",)) for _ in range(6)])
    assert take(broker, 6) == 2
    put(broker, 3)
    put(broker, 2, delay=100.0)
    put(broker, 2, "other")
    assert numbers(broker.counts(["q", "other"])) == [(9, 3, 2), (2, 2, 0)]


@pytest.mark.parametrize(("later", "due"), [(2, 5), (5, 2), (5, 5)])
def test_due_jobs_are_counted_one_by_one_where_many_are_later(
    broker: MongoBroker, monkeypatch: pytest.MonkeyPatch, later: int, due: int
) -> None:
    monkeypatch.setattr(counts, "MOST_LATER", 3)
    put(broker, due)
    put(broker, later, delay=100.0)
    put(broker, 1, priority=2)
    put(broker, 1, delay=100.0, priority=3)
    assert numbers(broker.counts(["q"])) == [(later + due + 2, due + 1, 0)]


def test_more_queues_than_one_command_counts(broker: MongoBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts, "_TOGETHER", 3)
    queues = [f"q{number}" for number in range(8)]
    for number, queue in enumerate(queues):
        put(broker, number + 1, queue)
        put(broker, 2, queue, delay=100.0)
    expected = [(number + 3, number + 1, 0) for number in range(8)]
    assert numbers(broker.counts(queues)) == expected


def test_a_queue_of_any_length_costs_a_few_index_entries(place: Place) -> None:
    """The server skips from queue to queue, and counts only the few later jobs. It reads no job."""
    with pymongo.MongoClient[Doc](place.url) as client, closing(place.open()) as broker:
        explained = Explained(client)
        connection = broker._connection
        connect = lambda: pymongo.MongoClient[Doc](place.url, event_listeners=[explained])  # noqa: E731
        connection.location = connection.location._replace(connect=connect)
        queues = [f"q{number}" for number in range(20)]
        for queue in queues:
            broker.enqueue([timed_job(queue) for _ in range(200)])
            broker.enqueue([timed_job(queue, delay=1000.0) for _ in range(5)])
        check(explained, lambda: broker.counts(queues))
        heads, later = [told for command, told in explained.found if "aggregate" in command]
        assert "DISTINCT_SCAN" in {one["stage"] for one in stages(heads)}
        assert figures(heads)["totalKeysExamined"] <= 3 * len(queues)
        assert figures(later)["totalKeysExamined"] <= 5 + 1
        for told in (heads, later):
            assert "FETCH" not in {one["stage"] for one in stages(told)}
