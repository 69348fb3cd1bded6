"""Entries: pushing and removing them, and pushes that come too late."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.messages import ClaimRef, Limit, Unique
from mrq_core.contract.pair import Entry, JobQueue, Removal
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE
from mrq_core.testing.conformance.queue_kit import (
    OTHER_TOKEN,
    TOKEN,
    QueuePart,
    as_worker,
    claim,
    claimed,
    entry_of,
    ids_of,
    new_entry,
    put,
    put_many,
    ref,
    suspect,
    take,
    take_one,
    token_of,
)

ONE = {"rule": Limit(concurrency=1)}
KEYS = ("rule",)
WAYS = [
    Unique(key="k", until="queued"),
    Unique(key="k", until="done"),
    Unique(key="k", until="period", period=600.0),
    Unique(key="k", until="period"),
]


class EntryContract(QueuePart):
    """What push, entries and remove promise."""

    # --- push --------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "fields",
        [{}, {"version": 5, "claims": 2}, {"priority": -4}, {"priority": 3, "limit_keys": ("a", "b:c")}]
        + [{"unique": unique} for unique in WAYS],
        ids=str,
    )
    def test_an_entry_is_there_as_it_was_pushed(
        self, queue: JobQueue, clock: ManualClock, fields: dict[str, object]
    ) -> None:
        entry = put(queue, "t/x", due_at=after(clock.now(), 5.001), **fields)
        assert queue.entries([entry.id]) == [entry]

    def test_an_entry_without_a_due_time_is_due_now(self, queue: JobQueue, clock: ManualClock) -> None:
        assert entry_of(queue, put(queue).id).due_at == clock.now()

    def test_entries_line_up_with_the_ids(self, queue: JobQueue) -> None:
        first, second = put_many(queue, 2)
        found = queue.entries([second.id, new_id(), first.id])
        assert [None if entry is None else entry.id for entry in found] == [second.id, None, first.id]

    def test_an_entry_of_the_same_version_stays_as_it_is(self, queue: JobQueue, clock: ManualClock) -> None:
        entry = put(queue, version=3, due_at=after(clock.now(), 5.0))
        again = replace(entry, queue="other", due_at=None, priority=2)
        assert queue.push([again, again]) == [True, True]
        assert queue.entries([entry.id]) == [entry]
        assert take(queue, "other") == []

    def test_a_claimed_entry_of_the_same_version_stays_claimed(self, queue: JobQueue) -> None:
        pushed = put(queue)
        entry = take_one(queue)
        assert queue.push([pushed]) == [True]
        assert queue.entries([entry.id]) == [entry]
        assert take(queue) == []

    def test_an_entry_of_a_later_version_stays_as_it_is(self, queue: JobQueue, clock: ManualClock) -> None:
        entry = put(queue, version=3, due_at=after(clock.now(), 5.0))
        late = replace(entry, version=2, queue="other", due_at=None)
        assert queue.push([late, new_entry()]) == [False, True]
        assert queue.entries([entry.id]) == [entry]
        assert take(queue, "other") == []

    def test_a_later_version_replaces_one_that_waits(self, queue: JobQueue, clock: ManualClock) -> None:
        entry = put(queue, "t/a", priority=2, claims=1, limit_keys=KEYS)
        later = Entry(id=entry.id, queue="t/b", version=2, due_at=after(clock.now(), 5.0))
        assert queue.push([later]) == [True]
        assert queue.entries([entry.id]) == [later]
        assert [counts.waiting for counts in queue.counts(["t/a", "t/b"])] == [0, 1]
        assert take(queue, "t/") == []
        clock.advance(5)
        assert take(queue, "t/") == [entry.id]

    def test_a_later_version_in_the_same_line_is_one_entry(self, queue: JobQueue, clock: ManualClock) -> None:
        entry = put(queue)
        assert queue.push([replace(entry, version=2, due_at=after(clock.now(), 5.0))]) == [True]
        assert queue.counts(["q"])[0].waiting == 1
        assert take(queue) == []
        clock.advance(5)
        assert take(queue) == [entry.id]

    def test_a_later_version_ends_the_claim(self, queue: JobQueue) -> None:
        entry = claimed(queue)
        assert queue.push([Entry(id=entry.id, queue="q", version=2, due_at=None, claims=1)]) == [True]
        assert queue.renew([ref(entry)], LEASE) == [False]
        assert queue.release([ref(entry)]) == [False]
        assert queue.remove([Removal(id=entry.id, token=entry.token)]) == [False]
        assert (queue.counts(["q"])[0].waiting, queue.counts(["q"])[0].claimed) == (1, 0)
        assert take_one(queue).version == 2

    def test_an_earlier_claim_does_not_replace_a_later_one(self, queue: JobQueue) -> None:
        entry = claimed(queue, claims=2)
        earlier = replace(entry, version=2, claims=1, token="2.before")
        assert queue.push([earlier], LEASE) == [False]
        assert queue.entries([entry.id]) == [entry]
        assert queue.push([replace(earlier, token="4.again")], LEASE) == [True]
        assert entry_of(queue, entry.id).token == "4.again"

    def test_a_later_version_ends_what_its_claim_held_under_its_limits(self, queue: JobQueue) -> None:
        put_many(queue, 2, limit_keys=KEYS)
        entry = take_one(queue, limits=ONE)
        assert take(queue, limits=ONE) == []
        assert queue.push([Entry(id=entry.id, queue="other", version=2, due_at=None, limit_keys=KEYS)]) == [
            True
        ]
        assert len(take(queue, limits=ONE)) == 1

    def test_a_later_version_of_a_parked_one_is_not_parked(self, queue: JobQueue, clock: ManualClock) -> None:
        first, second = put_many(queue, 2, limit_keys=KEYS)
        running = take_one(queue, limits=ONE)
        assert (running.id, take(queue, limits=ONE)) == (first.id, [])
        later = replace(second, version=2, queue="other", due_at=clock.now(), limit_keys=())
        assert queue.push([later]) == [True]
        assert queue.entries([second.id]) == [later]
        assert [counts.waiting for counts in queue.counts(["q", "other"])] == [0, 1]
        assert take(queue, "other", limits=ONE) == [second.id]

    def test_a_later_version_without_a_due_time_stays_parked(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        due_at, entries = clock.now(), put_many(queue, 3, limit_keys=KEYS)
        running = take_one(queue, limits=ONE)
        assert take(queue, limits=ONE) == []
        clock.advance(1)
        later = replace(entries[2], version=2, queue="other", priority=3, due_at=None)
        assert queue.push([later]) == [True]
        assert queue.entries([later.id]) == [later]
        assert [(counts.waiting, counts.due) for counts in queue.counts(["q", "other"])] == [(1, 0), (1, 0)]
        assert take(queue, "other", limits=ONE) == []
        assert queue.remove([Removal(id=running.id, token=token_of(running))]) == [True]
        assert entry_of(queue, later.id).due_at == due_at
        assert take(queue, "q", "other", limits=ONE) == [later.id]

    def test_a_later_version_without_a_due_time_keeps_that_of_the_entry(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        entry = put(queue, due_at=after(clock.now(), 5.0))
        assert queue.push([replace(entry, version=2, queue="other", due_at=None)]) == [True]
        assert entry_of(queue, entry.id) == replace(entry, version=2, queue="other")

    @pytest.mark.parametrize("turned", [False, True], ids=["later last", "later first"])
    def test_of_two_versions_in_one_call_the_later_one_stays(self, queue: JobQueue, turned: bool) -> None:
        first = new_entry()
        second = replace(first, version=2, queue="other")
        expected = [True, False] if turned else [True, True]
        assert queue.push([second, first] if turned else [first, second]) == expected
        assert entry_of(queue, first.id).version == 2
        assert [counts.waiting for counts in queue.counts(["q", "other"])] == [0, 1]
        assert (take(queue), take(queue, "other")) == ([], [first.id])

    def test_an_entry_with_a_token_comes_as_claimed(self, queue: JobQueue, clock: ManualClock) -> None:
        entry = new_entry(token=TOKEN, version=4, claims=7)
        waiting = new_entry()
        assert queue.push([entry, waiting], LEASE) == [True, True]
        found = entry_of(queue, entry.id)
        assert (found.token, found.version) == (TOKEN, 4)
        assert found.due_at == after(clock.now(), LEASE)
        assert (queue.counts(["q"])[0].waiting, queue.counts(["q"])[0].claimed) == (1, 1)
        assert take(queue) == [waiting.id]
        assert queue.renew([ref(entry)], LEASE * 2) == [True]
        clock.advance(LEASE * 2)
        assert entry.id in ids_of(claim(queue).suspects)

    def test_an_entry_that_comes_as_claimed_counts_under_its_limits(self, queue: JobQueue) -> None:
        entry = new_entry(token=TOKEN, limit_keys=KEYS)
        assert queue.push([entry], LEASE) == [True]
        put(queue, limit_keys=KEYS)
        assert take(queue, limits=ONE) == []
        assert queue.remove([Removal(id=entry.id, token=TOKEN)]) == [True]
        assert len(take(queue, limits=ONE)) == 1

    def test_many_entries_get_their_places_in_one_call(self, queue: JobQueue) -> None:
        entries = put_many(queue, 1000)
        assert queue.counts(["q"])[0].waiting == 1000
        assert take(queue, limit=1000) == ids_of(entries)
        assert queue.push([]) == []

    # --- remove ------------------------------------------------------------------------------

    @pytest.mark.parametrize("version", [3, 4])
    def test_an_entry_of_that_version_or_an_earlier_one_is_removed(
        self, queue: JobQueue, version: int
    ) -> None:
        entry = put(queue, version=3)
        assert queue.remove([Removal(id=entry.id, version=version)]) == [True]
        assert queue.entries([entry.id]) == [None]
        assert queue.counts(["q"])[0].waiting == 0
        assert take(queue) == []

    def test_an_entry_of_a_later_version_is_not_removed(self, queue: JobQueue) -> None:
        entry = put(queue, version=3)
        assert queue.remove([Removal(id=entry.id, version=2)]) == [False]
        assert take(queue) == [entry.id]

    def test_a_claimed_entry_is_removed_by_its_version_too(self, queue: JobQueue) -> None:
        entry = claimed(queue)
        assert queue.remove([Removal(id=entry.id, version=1)]) == [True]
        assert queue.renew([ref(entry)], LEASE) == [None]
        assert queue.counts(["q"])[0].claimed == 0

    def test_an_entry_is_removed_by_the_claim_that_holds_it(self, queue: JobQueue) -> None:
        entry = claimed(queue, version=3)
        wrong, right = (Removal(id=entry.id, token=token) for token in (TOKEN, entry.token))
        assert queue.remove([wrong]) == [False]
        assert queue.entries([entry.id]) == [entry]
        assert queue.remove([right]) == [True]
        assert queue.entries([entry.id]) == [None]

    def test_an_entry_that_waits_is_held_by_no_claim(self, queue: JobQueue) -> None:
        entry = claimed(queue)
        assert queue.release([ref(entry)]) == [True]
        assert queue.remove([Removal(id=entry.id, token=entry.token)]) == [False]
        assert take(queue) == [entry.id]

    def test_removing_again_does_no_harm(self, queue: JobQueue) -> None:
        first, second = put_many(queue, 2)
        removals = [Removal(id=first.id, version=1), Removal(id=new_id(), version=1)]
        assert queue.remove(removals) == [True, False]
        assert queue.remove(removals) == [False, False]
        assert queue.counts(["q"])[0].waiting == 1
        assert take(queue) == [second.id]

    @pytest.mark.parametrize("by_token", [True, False], ids=["by token", "by version"])
    def test_a_removed_entry_makes_room_under_its_limits(self, queue: JobQueue, by_token: bool) -> None:
        first, second, third = put_many(queue, 3, limit_keys=KEYS)
        running = take_one(queue, limits=ONE)
        assert (running.id, take(queue, limits=ONE)) == (first.id, [])
        removal = Removal(id=first.id, token=running.token) if by_token else Removal(id=first.id, version=1)
        assert queue.remove([removal]) == [True]
        assert queue.remove([removal]) == [False]
        assert take(queue, limits=ONE) == [second.id]
        assert entry_of(queue, third.id).due_at is None

    def test_a_parked_entry_can_be_removed(self, queue: JobQueue) -> None:
        first, second, third = put_many(queue, 3, limit_keys=KEYS)
        running = take_one(queue, limits=ONE)
        assert (running.id, take(queue, limits=ONE)) == (first.id, [])
        assert queue.remove([Removal(id=second.id, version=1)]) == [True]
        assert queue.counts(["q"])[0].waiting == 1
        assert queue.remove([Removal(id=first.id, version=1)]) == [True]
        assert take(queue, limits=ONE) == [third.id]


class EntryClaimContract(QueuePart):
    """What renew, release and take promise, all of them under a token."""

    # --- renew -------------------------------------------------------------------------------

    def test_renewing_moves_the_end_of_the_lease(self, queue: JobQueue, clock: ManualClock) -> None:
        entry = claimed(queue)
        clock.advance(30)
        assert queue.renew([ref(entry)], 100.0) == [True]
        assert queue.entries([entry.id]) == [replace(entry, due_at=after(clock.now(), 100.0))]
        clock.advance(99.999)
        assert claim(queue).suspects == ()
        clock.advance(0.001)
        assert ids_of(claim(queue).suspects) == [entry.id]

    def test_a_lease_that_ran_out_is_renewed_while_nobody_else_took_the_entry(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        entry = suspect(queue, clock)
        assert queue.renew([ref(entry)], LEASE) == [True]
        assert claim(queue).suspects == ()

    def test_renewals_line_up_and_tell_what_is_gone_from_what_is_lost(self, queue: JobQueue) -> None:
        entry = claimed(queue)
        waiting = put(queue)
        asked = [ref(entry), ClaimRef(id=entry.id, token=TOKEN), ClaimRef(id=waiting.id, token=TOKEN)]
        assert queue.renew([*asked, ClaimRef(id=new_id(), token=TOKEN)], LEASE) == [True, False, False, None]
        assert take(queue) == [waiting.id]

    def test_a_renewed_entry_keeps_its_place_under_its_limits(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        put_many(queue, 2, limit_keys=KEYS)
        entry = take_one(queue, limits=ONE)
        for _ in range(3):
            clock.advance(LEASE / 2)
            assert queue.renew([ref(entry)], LEASE) == [True]
            assert take(queue, limits=ONE) == []

    # --- release -----------------------------------------------------------------------------

    def test_a_released_entry_waits_again_due_now_as_if_it_had_not_been_claimed(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        pushed = put(queue, "t/x", version=3, claims=2, priority=1)
        entry = take_one(queue, "t/")
        clock.advance(5)
        assert queue.release([ref(entry)]) == [True]
        assert queue.entries([entry.id]) == [replace(pushed, due_at=clock.now())]
        again = take_one(queue, "t/")
        assert (again.id, again.claims) == (entry.id, 2)
        assert token_of(again).partition(".")[0] == "3"
        assert again.token != entry.token

    def test_a_release_under_another_claim_is_refused(self, queue: JobQueue) -> None:
        entry = claimed(queue)
        assert queue.release([ref(entry)]) == [True]
        again = take_one(queue)
        assert queue.release([ref(entry), ClaimRef(id=new_id(), token=TOKEN)]) == [False, False]
        assert queue.entries([entry.id]) == [again]

    def test_releasing_again_does_no_harm(self, queue: JobQueue) -> None:
        entry = claimed(queue)
        queue.release([ref(entry), ref(entry)])
        queue.release([ref(entry)])
        assert queue.counts(["q"])[0].waiting == 1
        assert (take(queue), take(queue)) == ([entry.id], [])

    def test_a_released_entry_makes_room_under_its_limits(self, queue: JobQueue) -> None:
        put_many(queue, 2, limit_keys=KEYS)
        entry = take_one(queue, limits=ONE)
        assert take(queue, limits=ONE) == []
        assert queue.release([ref(entry)]) == [True]
        assert len(take(queue, limits=ONE)) == 1

    # --- take --------------------------------------------------------------------------------

    def test_a_suspect_is_taken_under_the_new_token(self, queue: JobQueue, clock: ManualClock) -> None:
        suspect(queue, clock, version=3, claims=1, limit_keys=KEYS)
        [seen] = claim(queue).suspects
        assert queue.reclaim([(seen, TOKEN)], as_worker("w2")) == [True]
        taken = replace(seen, token=TOKEN, due_at=after(clock.now(), LEASE))
        assert queue.entries([seen.id]) == [taken]
        assert queue.renew([ref(seen), ref(taken)], LEASE) == [False, True]
        assert claim(queue).suspects == ()

    def test_a_suspect_that_was_taken_counts_under_its_limits(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        suspect(queue, clock, limit_keys=KEYS)
        [seen] = claim(queue, limits=ONE).suspects
        assert take(queue, limits=ONE, leave_suspects=True) == []  # its slot has ended by now
        assert queue.reclaim([(seen, TOKEN)], as_worker("w2")) == [True]
        put(queue, limit_keys=KEYS)
        assert take(queue, limits=ONE) == []

    def test_suspects_are_taken_as_far_as_their_limits_leave_room(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        put_many(queue, 3, limit_keys=KEYS)
        claim(queue)
        clock.advance(LEASE)
        seen = claim(queue).suspects
        assert len(seen) == 3
        assert take(queue, limits=ONE, leave_suspects=True) == []  # their slots have ended by now
        wanted = [(one, TOKEN) for one in seen]
        assert queue.reclaim(wanted[:2], as_worker("w2", limits=ONE)) == [True, False]
        assert queue.reclaim(wanted[2:], as_worker("w3", limits=ONE)) == [False]
        assert queue.reclaim(wanted[2:], as_worker("w3")) == [True]

    def test_a_suspect_that_was_renewed_cannot_be_taken(self, queue: JobQueue, clock: ManualClock) -> None:
        entry = suspect(queue, clock)
        [seen] = claim(queue).suspects
        assert queue.renew([ref(entry)], LEASE) == [True]
        assert queue.reclaim([(seen, TOKEN)], as_worker("w2")) == [False]
        assert queue.renew([ref(entry)], LEASE) == [True]

    def test_a_suspect_that_was_taken_cannot_be_taken_again(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        suspect(queue, clock)
        [seen] = claim(queue).suspects
        assert queue.reclaim([(seen, TOKEN), (seen, OTHER_TOKEN)], as_worker("w2", 1.0)) == [True, False]
        clock.advance(1)
        assert queue.reclaim([(seen, OTHER_TOKEN)], as_worker("w3")) == [False]
        assert entry_of(queue, seen.id).token == TOKEN

    @pytest.mark.parametrize("how", ["replaced", "removed", "released"])
    def test_a_suspect_that_is_not_what_was_seen_cannot_be_taken(
        self, queue: JobQueue, clock: ManualClock, how: str
    ) -> None:
        suspect(queue, clock)
        [seen] = claim(queue).suspects
        if how == "replaced":
            assert queue.push([replace(seen, version=2, token=None)]) == [True]
        elif how == "removed":
            assert queue.remove([Removal(id=seen.id, version=1)]) == [True]
        else:
            assert queue.release([ref(seen)]) == [True]
        before = queue.entries([seen.id])
        assert queue.reclaim([(seen, TOKEN)], as_worker("w2")) == [False]
        assert queue.entries([seen.id]) == before
