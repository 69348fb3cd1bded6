"""Unique keys of a queue half: who holds them, since when, and when they are let go."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrq_core.contract.messages import Unique
from mrq_core.contract.pair import JobQueue, KeyHolder, KeyRequest, Removal
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, run_in_threads
from mrq_core.testing.conformance.queue_kit import (
    QueuePart,
    claimed,
    new_entry,
    put,
    ref,
    take,
    take_one,
)

QUEUED = Unique(key="k", until="queued")
DONE = Unique(key="k", until="done")
PERIOD = Unique(key="k", until="period", period=600.0)
ASKS = Unique(key="k", until="period")
WAYS = [QUEUED, DONE, PERIOD]
THREADS = 8

each_way = pytest.mark.parametrize("unique", WAYS, ids=lambda unique: unique.until)


def reserve(queue: JobQueue, unique: Unique = DONE, job_id: str | None = None) -> KeyHolder:
    """Reserves the key for that job, or for a new one; answers with the holder."""
    [holder] = queue.reserve([KeyRequest(id=job_id or new_id(), unique=unique)])
    return holder


def holder_of(queue: JobQueue, key: str = "k") -> str | None:
    """Who holds the key; takes nothing."""
    return reserve(queue, Unique(key=key, until="period")).id


class KeyContract(QueuePart):
    """What is promised about unique keys."""

    # --- reserving ---------------------------------------------------------------------------

    @each_way
    def test_a_free_key_is_given_to_the_job_and_others_learn_who_holds_it(
        self, queue: JobQueue, clock: ManualClock, unique: Unique
    ) -> None:
        first, second = new_id(), new_id()
        assert reserve(queue, unique, first) == KeyHolder(id=first, since=clock.now())
        assert reserve(queue, unique, second).id == first
        assert reserve(queue, unique, first).id == first

    def test_keys_are_given_in_the_order_of_the_call(self, queue: JobQueue) -> None:
        first, second = new_id(), new_id()
        wanted = [
            KeyRequest(id=first, unique=DONE),
            KeyRequest(id=second, unique=DONE),
            KeyRequest(id=second, unique=Unique(key="other")),
        ]
        assert [holder.id for holder in queue.reserve(wanted)] == [first, first, second]
        assert queue.reserve([]) == []

    @pytest.mark.parametrize("key", ["", "k2", "K", "k ", "*", "$k", "k.k", "ключ", "k'", "k" * 500])
    def test_other_keys_are_other_keys(self, queue: JobQueue, key: str) -> None:
        first, second = new_id(), new_id()
        assert reserve(queue, DONE, first).id == first
        assert reserve(queue, Unique(key=key), second).id == second

    @each_way
    def test_a_key_that_may_be_held_in_vain_is_named_with_the_time_of_its_reservation(
        self, queue: JobQueue, clock: ManualClock, unique: Unique
    ) -> None:
        job_id, since = new_id(), clock.now()
        reserve(queue, unique, job_id)
        clock.advance(100)
        assert reserve(queue, unique) == KeyHolder(id=job_id, since=since)

    @each_way
    def test_a_key_that_its_holder_wants_again_is_not_an_old_one(
        self, queue: JobQueue, clock: ManualClock, unique: Unique
    ) -> None:
        job_id = new_id()
        reserve(queue, unique, job_id)
        clock.advance(100)
        reserve(queue, unique, job_id)
        assert reserve(queue, unique) == KeyHolder(id=job_id, since=clock.now())

    def test_a_period_is_sure_once_the_entry_was_pushed(self, queue: JobQueue, clock: ManualClock) -> None:
        job_id = new_id()
        reserve(queue, PERIOD, job_id)
        assert queue.push([new_entry(id=job_id, unique=PERIOD)]) == [True]
        clock.advance(100)
        assert reserve(queue, PERIOD) == KeyHolder(id=job_id, since=None)
        assert queue.remove([Removal(id=job_id, version=1)]) == [True]
        assert reserve(queue, PERIOD) == KeyHolder(id=job_id, since=None)

    def test_a_period_is_not_sure_once_its_job_asks_again(self, queue: JobQueue, clock: ManualClock) -> None:
        job_id, asking = new_id(), Unique(key=PERIOD.key, until="period")
        reserve(queue, PERIOD, job_id)
        assert queue.push([new_entry(id=job_id, unique=PERIOD)]) == [True]
        clock.advance(100)
        assert reserve(queue, asking, job_id).id == job_id
        assert reserve(queue, PERIOD) == KeyHolder(id=job_id, since=clock.now())
        assert queue.push([new_entry(id=job_id, version=2, unique=asking)]) == [True]
        assert reserve(queue, PERIOD) == KeyHolder(id=job_id, since=None)

    def test_a_period_ends(self, queue: JobQueue, clock: ManualClock) -> None:
        first, second = new_id(), new_id()
        reserve(queue, PERIOD, first)
        clock.advance(599.999)
        assert reserve(queue, PERIOD, second).id == first
        clock.advance(0.001)
        assert holder_of(queue) is None
        assert reserve(queue, PERIOD, second) == KeyHolder(id=second, since=clock.now())

    def test_reserving_again_does_not_prolong_a_period(self, queue: JobQueue, clock: ManualClock) -> None:
        job_id = new_id()
        reserve(queue, PERIOD, job_id)
        clock.advance(500)
        reserve(queue, PERIOD, job_id)
        assert queue.push([new_entry(id=job_id, unique=PERIOD)]) == [True]
        clock.advance(100)
        assert holder_of(queue) is None

    def test_a_period_without_its_length_only_asks(self, queue: JobQueue) -> None:
        first = new_id()
        assert reserve(queue, ASKS) == KeyHolder(id=None)
        assert reserve(queue, DONE, first).id == first
        assert reserve(queue, ASKS).id == first

    def test_a_key_is_given_to_one_of_eight_who_want_it(self, queue: JobQueue) -> None:
        ids = [new_id() for _ in range(THREADS)]
        found: list[str | None] = []
        run_in_threads(
            lambda job_id: found.append(reserve(queue, DONE, job_id).id), [(job_id,) for job_id in ids]
        )
        assert len(set(found)) == 1
        assert found[0] in ids

    # --- letting go --------------------------------------------------------------------------

    @each_way
    def test_a_key_is_let_go_by_the_job_that_holds_it_and_by_no_other(
        self, queue: JobQueue, unique: Unique
    ) -> None:
        holder, other = new_id(), new_id()
        reserve(queue, unique, holder)
        queue.free([("k", KeyHolder(id=other)), ("unknown", KeyHolder(id=holder))])
        assert holder_of(queue) == holder
        queue.free([("k", KeyHolder(id=holder)), ("k", KeyHolder(id=holder))])
        assert holder_of(queue) is None
        queue.free([])
        assert reserve(queue, unique, other).id == other

    def test_a_key_that_its_job_has_reserved_again_is_not_let_go_by_who_saw_it_before(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        job_id = new_id()
        reserve(queue, DONE, job_id)
        seen = reserve(queue, DONE, new_id())
        clock.advance(1)
        reserve(queue, DONE, job_id)
        queue.free([("k", seen)])
        assert holder_of(queue) == job_id
        queue.free([("k", reserve(queue, DONE, new_id()))])
        assert holder_of(queue) is None

    def test_a_key_that_was_let_go_is_not_ended_by_the_period_it_once_had(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        first, second = new_id(), new_id()
        reserve(queue, PERIOD, first)
        queue.free([("k", KeyHolder(id=first))])
        reserve(queue, DONE, second)
        clock.advance(1000)
        queue.prune(100)
        assert holder_of(queue) == second

    # --- keys of entries ---------------------------------------------------------------------

    @each_way
    def test_an_entry_reclaims_its_key_where_nobody_holds_it(self, queue: JobQueue, unique: Unique) -> None:
        entry = put(queue, unique=unique)
        assert holder_of(queue) == entry.id

    def test_an_entry_does_not_begin_a_period_without_its_length(self, queue: JobQueue) -> None:
        put(queue, unique=ASKS)
        assert holder_of(queue) is None

    def test_an_entry_gets_its_place_though_another_job_holds_its_key(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        holder = new_id()
        reserve(queue, DONE, holder)
        entry = put(queue, unique=DONE)
        assert reserve(queue, DONE) == KeyHolder(id=holder, since=clock.now())
        assert take(queue) == [entry.id]

    def test_an_entry_that_came_too_late_takes_no_key(self, queue: JobQueue) -> None:
        entry = put(queue, version=2)
        assert queue.push([replace(entry, version=1, unique=DONE)]) == [False]
        assert holder_of(queue) is None

    @each_way
    def test_a_claim_and_its_end_leave_the_key_as_it_is(
        self, queue: JobQueue, clock: ManualClock, unique: Unique
    ) -> None:
        entry = claimed(queue, unique=unique)
        assert (entry.unique, holder_of(queue)) == (unique, entry.id)
        assert queue.release([ref(entry)]) == [True]
        assert holder_of(queue) == entry.id
        take_one(queue)
        clock.advance(LEASE)
        assert holder_of(queue) == entry.id

    @each_way
    def test_a_removal_lets_the_named_key_go(self, queue: JobQueue, unique: Unique) -> None:
        entry = put(queue, unique=unique)
        assert queue.remove([Removal(id=entry.id, version=1, key="k")]) == [True]
        assert holder_of(queue) is None

    def test_a_removal_lets_the_named_key_go_where_there_is_no_entry(self, queue: JobQueue) -> None:
        job_id = new_id()
        reserve(queue, DONE, job_id)
        assert queue.remove([Removal(id=new_id(), version=1, key="k")]) == [False]
        assert holder_of(queue) == job_id
        assert queue.remove([Removal(id=job_id, version=1, key="k")]) == [False]
        assert holder_of(queue) is None

    @pytest.mark.parametrize("unique", [QUEUED, DONE], ids=lambda unique: unique.until)
    def test_a_removed_entry_reclaims_its_key_along(self, queue: JobQueue, unique: Unique) -> None:
        entry = claimed(queue, unique=unique)
        assert queue.remove([Removal(id=entry.id, token=entry.token)]) == [True]
        assert holder_of(queue) is None

    def test_a_removed_entry_does_not_end_a_period(self, queue: JobQueue) -> None:
        entry = claimed(queue, unique=PERIOD)
        assert queue.remove([Removal(id=entry.id, token=entry.token)]) == [True]
        assert holder_of(queue) == entry.id

    def test_a_removal_that_came_too_late_leaves_the_key_to_the_later_entry(self, queue: JobQueue) -> None:
        entry = put(queue, version=3, unique=DONE)
        assert queue.remove([Removal(id=entry.id, version=2, key="k")]) == [False]
        assert holder_of(queue) == entry.id
