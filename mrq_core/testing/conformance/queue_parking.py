"""Parking of claimed entries in a queue half, as for the jobs of a paused task."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mrq_core.contract.messages import ClaimRef, Limit
from mrq_core.contract.pair import Entry, JobQueue, Parking
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.queue_kit import (
    QueuePart,
    claim,
    entry_of,
    new_entry,
    put,
    ref,
    take,
    take_one,
)

TASK = "a.Task"
KEY = f"task:{TASK}"
PAUSED = frozenset({TASK})
ONE = {"rule": Limit(concurrency=1)}


class ParkingContract(QueuePart):
    """What park promises, and claims after it."""

    @pytest.mark.parametrize("fields", [{}, {"limit_keys": ("rule",), "priority": 2}])
    @pytest.mark.parametrize("name", ["q", "t/x"])
    def test_a_parked_entry_waits_until_its_task_is_resumed(
        self, queue: JobQueue, clock: ManualClock, name: str, fields: dict[str, object]
    ) -> None:
        wanted = "q" if name == "q" else "t/"
        pushed = put(queue, name, **fields)
        entry = take_one(queue, wanted, paused_tasks=PAUSED)
        assert queue.park([_parking(entry, clock)]) == [True]
        assert entry_of(queue, entry.id).due_at is None
        assert entry_of(queue, entry.id).token is None
        for _ in range(2):
            answer = claim(queue, wanted, paused_tasks=PAUSED)
            assert (answer.entries, answer.next_due) == ((), None)
        [counts] = queue.counts([name])
        assert (counts.waiting, counts.due, counts.claimed) == (1, 0, 0)
        taken = [one for _ in range(3) for one in claim(queue, wanted).entries]
        assert [(one.id, one.claims) for one in taken] == [(pushed.id, pushed.claims)]
        [counts] = queue.counts([name])
        assert (counts.waiting, counts.due, counts.claimed) == (0, 0, 1)

    def test_entries_that_are_let_go_have_the_due_times_of_their_parking(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        first, second = _claimed(queue), _claimed(queue)
        late = _parking(first, clock)
        early = Parking(claim=ref(second), key=KEY, due_at=clock.now() - timedelta(seconds=5))
        assert queue.park([late, early]) == [True, True]
        put(queue)
        assert claim(queue, limit=1, paused_tasks=PAUSED).entries
        taken = [job_id for _ in range(4) for job_id in take(queue, limit=1)]
        assert taken == [second.id, first.id]

    def test_parking_again_answers_the_same(self, queue: JobQueue, clock: ManualClock) -> None:
        parking = _parking(_claimed(queue), clock)
        assert [queue.park([parking]) for _ in range(2)] == [[True], [True]]

    def test_only_the_claim_that_holds_an_entry_parks_it(self, queue: JobQueue, clock: ManualClock) -> None:
        entry = _claimed(queue)
        assert queue.release([ref(entry)]) == [True]
        again = take_one(queue, paused_tasks=PAUSED)
        unknown = ClaimRef(id="f" * 24, token="1.a")
        parkings = [_parking(entry, clock), Parking(claim=unknown, key=KEY, due_at=clock.now())]
        assert queue.park(parkings) == [False, False]
        assert entry_of(queue, entry.id).token == again.token

    def test_parking_frees_the_slots(self, queue: JobQueue, clock: ManualClock) -> None:
        put(queue, limit_keys=("rule",))
        entry = take_one(queue, limits=ONE, paused_tasks=PAUSED)
        other = put(queue, limit_keys=("rule",))
        assert take(queue, limits=ONE, paused_tasks=PAUSED) == []
        assert queue.park([_parking(entry, clock)]) == [True]
        taken = [job_id for _ in range(3) for job_id in take(queue, limits=ONE, paused_tasks=PAUSED)]
        assert taken == [other.id]

    def test_a_parked_entry_is_replaced_and_removed(self, queue: JobQueue, clock: ManualClock) -> None:
        entry = _claimed(queue)
        assert queue.park([_parking(entry, clock)]) == [True]
        moved = new_entry("other", id=entry.id, version=entry.version + 1, due_at=clock.now())
        assert queue.push([moved]) == [True]
        assert [counts.waiting for counts in queue.counts(["q", "other"])] == [0, 1]
        assert take(queue, "q", "other", paused_tasks=PAUSED) == [entry.id]

    def test_a_parked_entry_that_is_replaced_without_a_due_time_stays_parked(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        entry = _claimed(queue)
        assert queue.park([_parking(entry, clock)]) == [True]
        assert queue.push([new_entry("other", id=entry.id, version=entry.version + 1)]) == [True]
        assert [counts.waiting for counts in queue.counts(["q", "other"])] == [0, 1]
        assert take(queue, "q", "other", paused_tasks=PAUSED) == []
        assert take(queue, "q", "other") == [entry.id]


def _claimed(queue: JobQueue) -> Entry:
    """Pushes an entry, and claims it as a worker that knows of the pause."""
    pushed = put(queue)
    entry = take_one(queue, paused_tasks=PAUSED)
    assert entry.id == pushed.id
    return entry


def _parking(entry: Entry, clock: ManualClock) -> Parking:
    return Parking(claim=ref(entry), key=KEY, due_at=clock.now())
