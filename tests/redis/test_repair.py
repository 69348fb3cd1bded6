"""Keys that a server has evicted, or that were deleted by hand: a repair restores entries and totals."""

from __future__ import annotations

import pytest

from mrq_broker_redis.broker import RedisBroker
from mrq_core.contract.messages import Requeue
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.operations.explaining.explaining import explain_job
from mrq_core.operations.explaining.reasons import ReasonKind
from mrq_core.testing.clock import ManualClock
from tests.redis.lost_keys import ENTRIES, LIMITS, claim, fill, lose, put, repair, settle, unfinished
from tests.redis.recount import check_keys

TOTALS = ("n:q", "n:h", "n:g", "n:e")


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


@pytest.mark.parametrize("key", ["w:-3:q", "ranks"])
def test_a_job_that_has_lost_its_entry_has_no_position(broker: RedisBroker, key: str) -> None:
    [job_id] = put(broker, priority=3)
    assert broker.queue_position(job_id) is not None
    lose(broker, key)
    assert broker.queue_position(job_id) is None
    [*_, reason] = explain_job(broker, job_id)
    assert (reason.kind, reason.command) == (ReasonKind.NO_ENTRY, "mrq check --repair")


def test_a_parked_job_that_has_lost_its_entry_has_no_position(broker: RedisBroker) -> None:
    [_, parked] = put(broker, 2, *LIMITS)
    assert len(claim(broker)) == 1
    assert broker.queue_position(parked) is not None
    lose(broker, "park:few")
    assert broker.queue_position(parked) is None
    [*_, reason] = explain_job(broker, parked)
    assert reason.kind is ReasonKind.NO_ENTRY


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


def test_ended_jobs_are_deleted_though_the_index_of_their_expiry_was_lost(
    broker: RedisBroker, clock: ManualClock
) -> None:
    fill(broker)
    before = len(broker.find(JobFilter(), limit=1000).records)
    lose(broker, "x")
    put(broker)
    settle(broker, claim(broker, 1))  # begins the index anew
    assert broker.repair_totals() == 1
    assert broker.repair_totals() == 0
    check_keys(broker)
    clock.advance(101)
    while broker.prune(limit=2):
        pass
    left = broker.find(JobFilter(), limit=1000).records
    assert not any(one.is_ended for one in left)
    assert len(left) < before


def test_a_parked_job_is_claimed_later_though_its_rank_was_lost(broker: RedisBroker) -> None:
    put(broker, 2, *LIMITS, priority=3)
    [first] = claim(broker)
    lose(broker, "ranks")
    repair(broker)
    settle(broker, [first])
    assert len(claim(broker)) == 1
    check_keys(broker)


@pytest.mark.parametrize("name", ["park:few", "parked"])
def test_a_key_of_another_type_stops_no_repair(broker: RedisBroker, name: str) -> None:
    fill(broker)
    lose(broker, name, "w:-3:q")
    broker._connection.execute("SET", broker._connection.key(name), "x")
    assert repair(broker)
    assert len(claim(broker)) > 1
