"""Claims of a queue half: the order, the limits, and entries whose lease has run out."""

from __future__ import annotations

import threading
from collections import Counter

import pytest
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.messages import ClaimRef, Limit, Wanted
from mrq_core.contract.pair import Entry, JobQueue
from mrq_core.contract.rules import OVERLAP_RULE
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, run_in_threads
from mrq_core.testing.conformance.queue_kit import (
    OTHER_TOKEN,
    TOKEN,
    QueueFactory,
    QueuePart,
    as_worker,
    claim,
    claimed,
    end,
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
TWO_A_TEN = {"rule": Limit(rate=2, per=10.0)}
KEYS = ("rule",)
THREADS = 8
SUBQUEUES_A_CALL = 32


class QueueClaimContract(QueuePart):
    """What claim promises about entries that wait."""

    def test_due_entries_are_taken_by_priority_due_time_and_id(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        low = put(queue, priority=-4)
        late = put(queue, due_at=after(clock.now(), 5.0))
        second, third = put_many(queue, 2, due_at=after(clock.now(), 1.0))
        put(queue, due_at=after(clock.now(), 5.001))
        high = put(queue, priority=4, due_at=after(clock.now(), 2.0))
        clock.advance(5)
        assert take(queue, limit=2) == ids_of([high, second])
        assert take(queue) == ids_of([third, late, low])

    def test_a_claim_holds_the_entry_to_the_end_of_the_lease(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        pushed = put(queue, version=4, claims=2, priority=1, limit_keys=("a",))
        answer = claim(queue, lease=30.0)
        [entry] = answer.entries
        assert answer.now == clock.now() == queue.now()
        assert entry == replace(pushed, due_at=after(clock.now(), 30.0), token=entry.token)
        assert queue.entries([entry.id]) == [entry]
        assert answer.next_due == entry.due_at
        assert take(queue) == []
        assert (queue.counts(["q"])[0].waiting, queue.counts(["q"])[0].claimed) == (0, 1)

    def test_the_token_counts_one_claim_more_than_the_entry(self, queue: JobQueue) -> None:
        put(queue)
        put(queue, claims=2)
        first, second = claim(queue).entries
        assert [token_of(entry).partition(".")[0] for entry in (first, second)] == ["1", "3"]
        assert queue.release([ref(first)]) == [True]
        assert take_one(queue).token != first.token

    def test_next_due_is_when_there_may_be_more(self, queue: JobQueue, clock: ManualClock) -> None:
        assert claim(queue).next_due is None
        later = put(queue, "t/x", due_at=after(clock.now(), 5.0))
        assert claim(queue, "q", "t/").next_due == later.due_at
        put_many(queue, 2)
        due = claim(queue, limit=1).next_due
        assert due is not None
        assert due <= clock.now()

    def test_queues_come_in_the_order_that_is_wanted_each_up_to_its_quota(self, queue: JobQueue) -> None:
        first, *_ = put_many(queue, 3, "a")
        b = put_many(queue, 3, "b", priority=4)
        assert take(queue, Wanted(name="a", quota=1), "b", limit=3) == ids_of([first, *b[:2]])

    def test_a_queue_can_be_taken_newest_first(self, queue: JobQueue, clock: ManualClock) -> None:
        entries = [put(queue, due_at=after(clock.now(), delay)) for delay in (1.0, 2.0, 3.0)]
        clock.advance(3)
        assert take(queue, Wanted(name="q", reverse=True), limit=2) == ids_of(entries[:0:-1])

    def test_excluded_queues_are_left_out(self, queue: JobQueue, clock: ManualClock) -> None:
        lost = suspect(queue, clock, "t/b/c")
        put(queue, "t/b/c")
        put(queue, "t/a")
        free = put(queue, "t/d")
        excluding = Wanted(name="t/", exclude=frozenset({"t/a", "t/b/"}))
        answer = claim(queue, excluding)
        assert (ids_of(answer.entries), answer.suspects) == ([free.id], ())
        assert ids_of(claim(queue, "t/").suspects) == [lost.id]

    def test_the_subqueues_of_a_tree_take_turns(self, queue: JobQueue) -> None:
        names = [f"t/{number:03}" for number in range(SUBQUEUES_A_CALL * 2)]
        queue.push([new_entry(name) for name in names for _ in range(2)])
        seen: set[str] = set()
        for _ in range(4):
            answer = claim(queue, "t/", limit=SUBQUEUES_A_CALL)
            seen |= {entry.queue for entry in answer.entries}
        assert seen == set(names)

    @pytest.mark.parametrize("shared", [True, False], ids=["one queue", "a queue each"])
    def test_eight_claimers_never_share_an_entry(
        self, queue: JobQueue, queue_factory: QueueFactory, clock: ManualClock, shared: bool
    ) -> None:
        entries = put_many(queue, 100) + put_many(queue, 100, "t/x")
        taken: list[str] = []

        def work(name: str) -> None:
            mine = queue if shared else queue_factory(clock)
            while found := claim(mine, "q", "t/", limit=3, worker=name).entries:
                taken.extend(ids_of(found))
                end(mine, found[0])
            if not shared:
                mine.close()

        run_in_threads(work, [(f"w{number}",) for number in range(THREADS)])
        assert Counter(taken) == Counter(ids_of(entries))


class SuspectContract(QueuePart):
    """What claim promises about entries whose lease has run out."""

    def test_suspects_are_given_first_and_then_nothing_is_claimed(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        entry = suspect(queue, clock, version=2, claims=1)
        waiting = put(queue, priority=4)
        answer = claim(queue)
        assert (answer.suspects, answer.entries) == ((entry,), ())
        assert answer.now == clock.now()
        assert queue.entries([entry.id, waiting.id]) == [entry, replace(waiting, due_at=clock.now())]

    def test_suspects_come_in_the_order_in_which_their_leases_ended(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        put_many(queue, 3)
        third = take_one(queue, lease=3.0)
        first = take_one(queue, lease=1.0)
        second = take_one(queue, lease=2.0)
        clock.advance(10)
        assert ids_of(claim(queue).suspects) == ids_of([first, second, third])

    def test_suspects_of_queues_that_are_not_wanted_are_not_given(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        in_tree = suspect(queue, clock, "t/x")
        assert claim(queue).suspects == ()
        assert ids_of(claim(queue, "t/").suspects) == [in_tree.id]

    def test_suspects_that_are_left_stay_and_the_others_are_claimed(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        entry = suspect(queue, clock)
        first, second = put_many(queue, 2)
        answer = claim(queue, leave_suspects=True, limit=1)
        assert (ids_of(answer.entries), answer.suspects) == ([first.id], ())
        assert take(queue, leave_suspects=True) == [second.id]
        assert ids_of(claim(queue).suspects) == [entry.id]

    def test_suspects_that_are_left_are_due(self, queue: JobQueue, clock: ManualClock) -> None:
        assert claim(queue, leave_suspects=True).next_due is None
        suspect(queue, clock)
        answer = claim(queue, leave_suspects=True)
        assert answer.next_due is not None
        assert answer.next_due <= answer.now

    def test_suspects_come_in_the_order_of_the_queues(self, queue: JobQueue, clock: ManualClock) -> None:
        first = claimed(queue, "a")
        clock.advance(1)
        second = claimed(queue, "b")
        clock.advance(LEASE)
        assert ids_of(claim(queue, "b", "a").suspects) == [second.id, first.id]
        assert ids_of(claim(queue, "a", "b").suspects) == [first.id, second.id]

    def test_a_suspect_whose_limits_leave_no_room_is_not_due(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        lost = suspect(queue, clock, limit_keys=KEYS)
        put(queue, limit_keys=KEYS)
        running = take_one(queue, limits=ONE, leave_suspects=True)
        assert claim(queue, limits=ONE).suspects == ()
        end(queue, running)
        clock.advance(5)
        assert ids_of(claim(queue, limits=ONE).suspects) == [lost.id]

    @pytest.mark.parametrize("name", ["q", "t/x"])
    def test_a_suspect_that_is_put_off_stays_lost_and_is_due_later(
        self, queue: JobQueue, clock: ManualClock, name: str
    ) -> None:
        wanted = "q" if name == "q" else "t/"
        lost = suspect(queue, clock, name)
        queue.put_off([ref(lost)], 1.0)
        answer = claim(queue, wanted)
        assert (answer.suspects, answer.next_due) == ((), after(clock.now(), 1.0))
        assert entry_of(queue, lost.id) == lost
        clock.advance(1)
        assert claim(queue, wanted).suspects == (lost,)
        assert queue.reclaim([(lost, OTHER_TOKEN)], as_worker("w2")) == [True]

    def test_a_suspect_that_is_put_off_holds_no_slot(self, queue: JobQueue, clock: ManualClock) -> None:
        lost = suspect(queue, clock, limit_keys=KEYS)
        queue.put_off([ref(lost)], 1.0)
        other = put(queue, limit_keys=KEYS)
        assert take(queue, limits=ONE) == [other.id]

    def test_only_the_claim_that_was_lost_is_put_off(self, queue: JobQueue, clock: ManualClock) -> None:
        running, lost = claimed(queue), suspect(queue, clock)
        assert queue.renew([ref(running)], LEASE) == [True]
        running = entry_of(queue, running.id)
        waiting = put(queue)
        unknown = ClaimRef(id="f" * 24, token="1.a")
        refs = [ref(running), ClaimRef(id=lost.id, token=OTHER_TOKEN), unknown]
        queue.put_off([*refs, ClaimRef(id=waiting.id, token=TOKEN)], 100.0)
        assert claim(queue).suspects == (lost,)
        assert take(queue, leave_suspects=True) == [waiting.id]
        assert queue.entries([running.id]) == [running]
        clock.advance(LEASE)
        assert running in claim(queue).suspects

    def test_the_end_of_a_lease_makes_room(self, queue: JobQueue, clock: ManualClock) -> None:
        put_many(queue, 2, limit_keys=KEYS)
        take_one(queue, limits=ONE)
        assert take(queue, limits=ONE) == []
        clock.advance(LEASE)
        assert len(take(queue, limits=ONE, leave_suspects=True)) == 1

    def test_an_entry_is_taken_from_a_dead_worker_by_one_of_eight(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        suspect(queue, clock)
        answers: list[bool] = []

        def work(number: int) -> None:
            found = claim(queue, worker=f"w{number}").suspects
            answers.extend(queue.reclaim([(one, f"{number + 2}.{number}") for one in found], as_worker("w")))

        run_in_threads(work, [(number,) for number in range(THREADS)])
        assert answers.count(True) == 1


class QueueLimitContract(QueuePart):
    """What claim promises where concurrency or rates are limited."""

    def test_an_entry_over_its_concurrency_is_parked(self, queue: JobQueue) -> None:
        first, second = put_many(queue, 2, limit_keys=KEYS)
        answer = claim(queue, limits=ONE)
        assert ids_of(answer.entries) == [first.id]
        assert answer.next_due == answer.entries[0].due_at
        parked = entry_of(queue, second.id)
        assert (parked.due_at, parked.token, parked.version) == (None, None, 1)
        [counts] = queue.counts(["q"])
        assert (counts.waiting, counts.due, counts.claimed) == (1, 0, 1)

    def test_the_longest_parked_goes_first_where_room_is_made(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        put(queue, limit_keys=KEYS)
        running = take_one(queue, limits=ONE)
        parked = []
        for priority in (0, 0, 1):
            clock.advance(1)
            parked.append(put(queue, limit_keys=KEYS, priority=priority))
            assert take(queue, limits=ONE) == []
        for expected in (parked[2], parked[0], parked[1]):
            end(queue, running)
            running = take_one(queue, limits=ONE)
            assert running.id == expected.id

    def test_a_parked_entry_does_not_stand_in_the_way(self, queue: JobQueue) -> None:
        put_many(queue, 200, limit_keys=KEYS, priority=4)
        free = put(queue, priority=-4)
        taken = [job_id for _ in range(50) for job_id in take(queue, limits=ONE, limit=1)]
        assert len(taken) == 2
        assert free.id in taken

    def test_nothing_stays_parked_when_its_limit_goes(self, queue: JobQueue) -> None:
        entries = put_many(queue, 4, limit_keys=KEYS)
        assert take(queue, limits=ONE) == ids_of(entries[:1])
        taken = [job_id for _ in range(3) for job_id in take(queue, limits={})]
        assert taken == ids_of(entries[1:])

    def test_an_entry_over_its_rate_is_pushed_back_once_to_its_turn(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        entries = put_many(queue, 4, limit_keys=KEYS)
        answer = claim(queue, limits=TWO_A_TEN)
        assert ids_of(answer.entries) == ids_of(entries[:2])
        assert answer.next_due == after(clock.now(), 5.0)
        turns = [entry_of(queue, entry.id).due_at for entry in entries[2:]]
        assert turns == [after(clock.now(), 5.0), after(clock.now(), 10.0)]
        clock.advance(10)
        late = put(queue, limit_keys=KEYS)
        assert take(queue, limits=TWO_A_TEN) == ids_of(entries[2:])
        assert entry_of(queue, late.id).due_at == after(clock.now(), 5.0)

    def test_an_entry_that_is_moved_to_another_queue_keeps_its_turn(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        entries = put_many(queue, 3, limit_keys=KEYS)
        assert take(queue, limits=TWO_A_TEN) == ids_of(entries[:2])
        moved = replace(entry_of(queue, entries[2].id), queue="other", version=2)
        assert queue.push([moved]) == [True]
        clock.advance(5)
        assert take(queue, "other", limits=TWO_A_TEN) == [moved.id]

    def test_a_later_version_is_charged_anew(self, queue: JobQueue, clock: ManualClock) -> None:
        limits = {"rule": Limit(rate=1, per=10.0)}
        put(queue, limit_keys=KEYS)
        entry = take_one(queue, limits=limits)
        retried = Entry(id=entry.id, queue="q", version=2, due_at=None, claims=1, limit_keys=KEYS)
        assert queue.push([retried]) == [True]
        assert take(queue, limits=limits) == []
        assert entry_of(queue, entry.id).due_at == after(clock.now(), 10.0)

    def test_one_entry_at_a_time_is_claimed_under_a_key_of_schedules_without_a_rule(
        self, queue: JobQueue
    ) -> None:
        first, second = put_many(queue, 2, limit_keys=(f"{OVERLAP_RULE}:daily",))
        running = take_one(queue, limits={})
        assert (running.id, take(queue, limits={})) == (first.id, [])
        end(queue, running)
        assert [job_id for _ in range(3) for job_id in take(queue, limits={})] == [second.id]

    def test_the_limit_is_exact_under_eight_claimers(self, queue: JobQueue) -> None:
        limits = {"rule": Limit(concurrency=3)}
        entries = put_many(queue, 60, limit_keys=KEYS)
        lock = threading.Lock()
        running: set[str] = set()
        done: list[str] = []
        peaks: list[int] = []

        def work(name: str) -> None:
            while len(done) < len(entries):
                for entry in claim(queue, limit=2, worker=name, limits=limits).entries:
                    with lock:
                        running.add(entry.id)
                        peaks.append(len(running))
                    finish(entry)

        def finish(entry: Entry) -> None:
            with lock:
                running.discard(entry.id)
            end(queue, entry)
            done.append(entry.id)

        run_in_threads(work, [(f"w{number}",) for number in range(THREADS)])
        assert max(peaks) <= 3
        assert sorted(done) == sorted(ids_of(entries))

    def test_eight_claimers_at_once_take_as_many_as_the_limit(self, queue: JobQueue) -> None:
        put_many(queue, 40, limit_keys=KEYS)
        limits = {"rule": Limit(concurrency=5)}
        taken: list[str] = []
        run_in_threads(
            lambda name: taken.extend(take(queue, limit=3, worker=name, limits=limits)),
            [(f"w{number}",) for number in range(THREADS)],
        )
        assert len(taken) == len(set(taken)) == 5
