"""Keys of the queue half that a server has evicted, while it has kept the hashes of the entries."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from mrq_broker_redis.queue import RedisQueue
from mrq_core.composed import ComposedBroker
from mrq_core.contract.queries import JobFilter
from mrq_core.operations.explaining.explaining import explain_job
from mrq_core.operations.explaining.reasons import ReasonKind
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.memory import MemoryStore, StoreData
from tests.redis.kit import Place
from tests.redis.lost_keys import ENTRIES, LIMITS, claim, fill, lose, put, repair, settle, unfinished
from tests.redis.recount_entries import check_entries


@pytest.fixture
def queue(place: Place, clock: ManualClock) -> RedisQueue:
    return place.open_queue(clock)


@pytest.fixture
def pair(queue: RedisQueue, clock: ManualClock) -> Iterator[ComposedBroker]:
    """The queue with records in memory, which nothing loses."""
    made = ComposedBroker(queue, MemoryStore(clock=clock, data=StoreData()))
    made.prepare()
    yield made
    made.close()


@pytest.mark.parametrize("name", ENTRIES)
def test_the_entries_of_a_lost_key_get_their_places_back(
    pair: ComposedBroker, queue: RedisQueue, clock: ManualClock, name: str
) -> None:
    fill(pair)
    wanted = unfinished(pair)
    lose(queue, name)
    assert len(repair(pair)) == ENTRIES[name]
    assert repair(pair) == []
    check_entries(queue)
    clock.advance(61)  # leases end, and later jobs are due
    started: set[str] = set()
    while claimed := claim(pair):
        started.update(one.id for one in claimed)
        settle(pair, claimed)
    assert started == set(wanted)


def test_all_entries_get_their_places_back_at_once(pair: ComposedBroker, queue: RedisQueue) -> None:
    fill(pair)
    lose(queue, *(name for name in ENTRIES if name != "queues"), "w:0:tree/two")
    assert sorted(repair(pair)) == sorted(unfinished(pair))
    check_entries(queue)


def test_a_repair_changes_nothing_where_nothing_is_lost(pair: ComposedBroker, queue: RedisQueue) -> None:
    fill(pair)
    ids = unfinished(pair)
    before = queue.entries(ids)
    assert repair(pair) == []
    assert queue.entries(ids) == before
    check_entries(queue)


def test_a_started_job_keeps_its_claim_and_its_lease(pair: ComposedBroker, queue: RedisQueue) -> None:
    [job_id] = put(pair)
    [claimed] = claim(pair)
    before = queue.entries([job_id])
    lose(queue, "c:q")
    assert repair(pair) == [job_id]
    assert queue.entries([job_id]) == before
    settle(pair, [claimed])
    assert not pair.find(JobFilter(), limit=1).records[0].status.is_waiting
    check_entries(queue)


def test_a_parked_job_keeps_its_place_if_only_the_hash_is_lost(
    pair: ComposedBroker, queue: RedisQueue
) -> None:
    fill(pair)
    lose(queue, "parked")
    assert repair(pair) == []
    check_entries(queue)


@pytest.mark.parametrize("key", ["w:-3:q", "ranks"])
def test_a_job_that_has_lost_its_place_has_no_position(
    pair: ComposedBroker, queue: RedisQueue, key: str
) -> None:
    [job_id] = put(pair, priority=3)
    assert pair.queue_position(job_id) is not None
    lose(queue, key)
    assert pair.queue_position(job_id) is None
    [*_, reason] = explain_job(pair, job_id)
    assert (reason.kind, reason.command) == (ReasonKind.NO_ENTRY, "mrq check --repair")


def test_a_parked_job_that_has_lost_its_place_has_no_position(
    pair: ComposedBroker, queue: RedisQueue
) -> None:
    [_, parked] = put(pair, 2, *LIMITS)
    assert len(claim(pair)) == 1
    assert pair.queue_position(parked) is not None
    lose(queue, "park:few")
    assert pair.queue_position(parked) is None
    [*_, reason] = explain_job(pair, parked)
    assert reason.kind is ReasonKind.NO_ENTRY


def test_a_parked_job_is_claimed_later_though_its_rank_was_lost(
    pair: ComposedBroker, queue: RedisQueue
) -> None:
    put(pair, 2, *LIMITS, priority=3)
    [first] = claim(pair)
    lose(queue, "ranks")
    repair(pair)
    settle(pair, [first])
    assert len(claim(pair)) == 1
    check_entries(queue)


@pytest.mark.parametrize("name", ["park:few", "parked"])
def test_a_key_of_another_type_stops_no_repair(pair: ComposedBroker, queue: RedisQueue, name: str) -> None:
    fill(pair)
    lose(queue, name, "w:-3:q")
    queue._connection.execute("SET", queue._connection.key(name), "x")
    assert repair(pair)
    assert len(claim(pair)) > 1
