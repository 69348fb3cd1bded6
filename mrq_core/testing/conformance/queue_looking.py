"""What a queue half tells of itself, and how it is taken care of."""

from __future__ import annotations

import threading

import pytest

from mrq_core.clock import after
from mrq_core.contract.messages import Limit, RawItem, Unique, Wanted
from mrq_core.contract.pair import JobQueue, KeyRequest
from mrq_core.contract.queries import QueueCounts
from mrq_core.errors import BrokerError
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, named, run_in_threads
from mrq_core.testing.conformance.poll import PATIENCE, finishes
from mrq_core.testing.conformance.queue_kit import (
    QueueFactory,
    QueuePart,
    claim,
    claimed,
    end,
    ids_of,
    put,
    put_many,
    ref,
    suspect,
    take,
    take_one,
)


class QueueLookContract(QueuePart):
    """What counts, known and wait promise."""

    def test_counts_tell_what_queues_hold(self, queue: JobQueue, clock: ManualClock) -> None:
        put_many(queue, 2, due_at=after(clock.now(), -5.0))
        put(queue, priority=2)
        put(queue, due_at=after(clock.now(), 5.0))
        assert take_one(queue).priority == 2
        assert queue.counts(["unknown", "q"]) == [
            QueueCounts(queue="unknown"),
            QueueCounts(queue="q", waiting=3, due=2, claimed=1, oldest_due=after(clock.now(), -5.0)),
        ]

    def test_queues_are_known_by_name_from_behind_the_last(self, queue: JobQueue) -> None:
        for name in ("b", "t/y", "a", "t/x"):
            put(queue, name)
        queue.raw("t_raw").push([RawItem(param="a")])
        assert queue.queue_names() == ["a", "b", "t/x", "t/y", "t_raw"]
        assert queue.queue_names("t/") == ["t/x", "t/y"]
        assert queue.queue_names(after="a", limit=2) == ["b", "t/x"]

    def test_a_queue_that_has_become_empty_is_known(self, queue: JobQueue) -> None:
        put(queue)
        take(queue)
        assert queue.queue_names("q") == ["q"]

    def test_prune_forgets_the_names_of_queues_without_entries_and_parameters(
        self, queue: JobQueue, clock: ManualClock
    ) -> None:
        gone = [claimed(queue, name) for name in ("a", "t/b")]
        put(queue, "c", due_at=after(clock.now(), 1e6))
        queue.raw("t_raw").push([RawItem(param="a")])
        queue.raw("u_raw").push([RawItem(param="a")])
        queue.raw("u_raw").remove(["a"])
        put(queue, "d")
        take(queue, "d", lease=1e6)
        queue.prune(2)
        assert {"a", "c", "d", "t/b", "t_raw"} <= {*queue.queue_names()}
        for entry in gone:
            end(queue, entry)
        for _ in range(4):
            clock.advance(60.0)
            queue.prune(2)
        assert queue.queue_names() == ["c", "d", "t_raw"]

    def test_nothing_due_is_waited_for_until_the_timeout(self, queue: JobQueue, clock: ManualClock) -> None:
        put(queue, "other")
        put(queue, due_at=after(clock.now(), 1000.0))
        assert not queue.wait(named("q", "tree/"), 0.02)
        assert not queue.wait(named("q"), 0.0)

    @pytest.mark.parametrize("wanted", [["q/x"], ["q/"], ["other", "q/"], ["urls_raw"]])
    def test_what_is_due_already_is_not_waited_for(self, queue: JobQueue, wanted: list[str]) -> None:
        put(queue, "q/x")
        queue.raw("urls_raw").push([RawItem(param="a")])
        assert finishes(lambda: queue.wait(named(*wanted), PATIENCE * 2))

    def test_what_is_excluded_does_not_wake(self, queue: JobQueue) -> None:
        put(queue, "tree/paused")
        assert not queue.wait([Wanted(name="tree/", exclude=frozenset({"tree/paused"}))], 0.02)

    @pytest.mark.parametrize("how", ["push", "release", "another process"])
    def test_a_waiting_worker_is_woken_by_an_entry(
        self, queue: JobQueue, queue_factory: QueueFactory, clock: ManualClock, how: str
    ) -> None:
        put(queue)
        running = take_one(queue)

        def wake() -> None:
            if how == "push":
                put(queue)
            elif how == "release":
                queue.release([ref(running)])
            else:
                other = queue_factory(clock)
                put(other)
                other.close()

        waker = threading.Thread(target=wake)
        waker.start()
        assert finishes(lambda: queue.wait(named("q"), PATIENCE * 2))
        waker.join()

    def test_as_many_waiters_are_woken_as_there_are_entries(self, queue: JobQueue) -> None:
        woken: list[bool] = []
        waiters = [
            threading.Thread(target=lambda: woken.append(queue.wait(named("q"), PATIENCE * 2)))
            for _ in range(4)
        ]
        for waiter in waiters:
            waiter.start()
        put_many(queue, 4)
        for waiter in waiters:
            waiter.join()
        assert woken == [True] * 4


class QueueCareContract(QueuePart):
    """What prune, check, prepare and close promise."""

    def test_pruning_keeps_what_still_says_something(self, queue: JobQueue, clock: ManualClock) -> None:
        limits = {"rule": Limit(rate=1, per=1000.0)}
        first, second = put_many(queue, 2, limit_keys=("rule",))
        assert take(queue, limits=limits) == [first.id]
        held = put(queue, "other", unique=Unique(key="k", until="period", period=600.0))
        clock.advance(599)
        queue.prune(100)
        [holder] = queue.reserve([KeyRequest(id=new_id(), unique=Unique(key="k", until="period"))])
        assert holder.id == held.id
        late = put(queue, limit_keys=("rule",))
        assert take(queue, limits=limits, leave_suspects=True) == []
        for entry, ahead in ((second, 0), (late, 1)):
            position = queue.position(entry.id)
            assert position is not None
            assert (position.parked_under, position.ahead) == ("rule", ahead)
            assert [use.even_at for use in position.keys] == [after(clock.now(), 401.0)]

    def test_pruning_leaves_entries_alone(self, queue: JobQueue, clock: ManualClock) -> None:
        lost = suspect(queue, clock)
        waiting = put(queue)
        clock.advance(1e8)
        queue.prune(1000)
        assert ids_of(claim(queue).suspects) == [lost.id]
        assert take(queue, leave_suspects=True) == [waiting.id]

    def test_preparing_again_changes_nothing(
        self, queue: JobQueue, queue_factory: QueueFactory, clock: ManualClock
    ) -> None:
        entries = put_many(queue, 3)
        other = queue_factory(clock)
        run_in_threads(lambda each: each.prepare(), [(queue,), (other,), (queue,)])
        assert take(other) == ids_of(entries)
        other.close()

    def test_the_queue_tells_the_time_by_which_leases_go(self, queue: JobQueue, clock: ManualClock) -> None:
        assert queue.now() == clock.now()
        clock.advance(LEASE)
        assert queue.now() == clock.now()

    def test_a_check_says_what_it_found(self, queue: JobQueue) -> None:
        for finding in queue.check():
            assert finding.level in ("ok", "warning", "error")
            assert finding.subject
            assert finding.message

    def test_a_closed_queue_cannot_be_used(self, queue_factory: QueueFactory, clock: ManualClock) -> None:
        queue = queue_factory(clock)
        queue.prepare()
        queue.close()
        with pytest.raises(BrokerError):
            queue.entries(["0" * 24])
