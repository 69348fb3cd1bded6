"""What workers ask between claims: wait, pauses, interrupts."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from mrq_core.clock import monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, Requeue, Wanted
from mrq_core.contract.record import Status
from mrq_core.contract.shared_state import Versions
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    LEASE,
    BrokerFactory,
    Contract,
    bring_to,
    named,
    put,
    settle,
    started,
    take,
    take_one,
)

PATIENCE = 30.0
"""Far longer than a wait that is woken may take, in seconds."""


class PollContract(Contract):
    """What poll, pause and resume promise."""

    def test_pauses_are_told_once(self, broker: Broker) -> None:
        broker.pause(["q", "tree/"])
        first = broker.poll("w1", Versions())
        assert first.paused == frozenset({"q", "tree/"})
        assert broker.poll("w1", first.versions).paused is None

    def test_every_process_is_told(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        other = broker_factory(clock)
        mine, its = broker.poll("w1", Versions()).versions, other.poll("w2", Versions()).versions
        broker.pause(["q"])
        assert broker.poll("w1", mine).paused == frozenset({"q"})
        assert other.poll("w2", its).paused == frozenset({"q"})
        other.close()

    def test_a_resumed_queue_is_told_too(self, broker: Broker) -> None:
        broker.pause(["a", "b"])
        versions = broker.poll("w1", Versions()).versions
        broker.resume(["a", "never paused"])
        changes = broker.poll("w1", versions)
        assert changes.paused == frozenset({"b"})
        broker.resume(["b"])
        assert broker.poll("w1", changes.versions).paused == frozenset()

    def test_paused_tells_what_is_paused(self, broker: Broker) -> None:
        assert broker.paused() == frozenset()
        broker.pause(["a"])
        broker.pause(["a", "b/"])
        assert broker.paused() == {"a", "b/"}
        broker.resume(["a"])
        assert broker.paused() == {"b/"}

    def test_a_pause_is_a_mark_that_workers_heed(self, broker: Broker, clock: ManualClock) -> None:
        broker.pause(["q"])
        job_id = put(broker, clock)
        assert take_one(broker).id == job_id

    def test_a_worker_is_told_which_of_its_jobs_to_interrupt(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        mine, other = started(broker, clock), started(broker, clock)
        put(broker, clock)
        its = take_one(broker, worker="w2")
        versions = {name: broker.poll(name, Versions()).versions for name in ("w1", "w2", "w3")}
        broker.cancel([mine.id, its.id], Cancel(interrupt=True))
        changes = broker.poll("w1", versions["w1"])
        assert changes.interrupts == (mine.id,)
        assert other.id not in changes.interrupts
        assert broker.poll("w2", versions["w2"]).interrupts == (its.id,)
        assert broker.poll("w3", versions["w3"]).interrupts == ()
        assert broker.poll("w1", changes.versions).interrupts == ()

    def test_a_cancel_without_interrupt_interrupts_nothing(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        versions = broker.poll("w1", Versions()).versions
        broker.cancel([record.id], Cancel())
        assert broker.poll("w1", versions).interrupts == ()

    def test_an_interrupt_may_be_asked_for_after_a_plain_cancel(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        record = started(broker, clock)
        versions = broker.poll("w1", Versions()).versions
        broker.cancel([record.id], Cancel())
        broker.cancel([record.id], Cancel(interrupt=True))
        assert broker.poll("w1", versions).interrupts == (record.id,)

    def test_a_job_that_has_ended_is_not_interrupted(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        versions = broker.poll("w1", Versions()).versions
        broker.cancel([record.id], Cancel(interrupt=True))
        settle(broker, record, ttl=100.0)
        assert broker.poll("w1", versions).interrupts == ()

    def test_nothing_new_is_nothing_new(self, broker: Broker, clock: ManualClock) -> None:
        versions = broker.poll("w1", Versions()).versions
        settle(broker, started(broker, clock), ttl=100.0)
        changes = broker.poll("w1", versions)
        assert (changes.paused, changes.interrupts) == (None, ())


class WaitContract(Contract):
    """What wait promises. These tests wait in real time, but never for longer than it takes."""

    def test_nothing_due_is_waited_for_until_the_timeout(self, broker: Broker, clock: ManualClock) -> None:
        put(broker, clock, "other")
        before = monotonic()
        assert not broker.wait(named("q"), 0.05)
        assert monotonic() - before >= 0.04

    def test_no_timeout_means_no_waiting(self, broker: Broker) -> None:
        assert not broker.wait(named("q", "tree/"), 0.0)

    def test_what_is_excluded_does_not_wake(self, broker: Broker, clock: ManualClock) -> None:
        put(broker, clock, "tree/paused")
        excluded = Wanted(name="tree/", exclude=frozenset({"tree/paused"}))
        assert not broker.wait([excluded], 0.02)
        assert broker.wait(named("tree/"), PATIENCE)

    @pytest.mark.parametrize("wanted", [["q/x"], ["q/"], ["other", "q/x"], ["other/", "q/"]])
    def test_what_is_due_already_is_not_waited_for(
        self, broker: Broker, clock: ManualClock, wanted: list[str]
    ) -> None:
        put(broker, clock, "q/x")
        assert finishes(lambda: broker.wait(named(*wanted), PATIENCE * 2))

    @pytest.mark.parametrize("how", ["enqueue", "requeue", "settle", "another process"])
    def test_a_waiting_worker_is_woken_by_a_job(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock, how: str
    ) -> None:
        ended = bring_to(broker, clock, Status.FAILED)
        running = started(broker, clock)

        def wake() -> None:
            if how == "enqueue":
                put(broker, clock)
            elif how == "requeue":
                broker.requeue([ended], Requeue())
            elif how == "settle":
                settle(broker, running, Status.RETRY, delay=0.0, is_retry=True)
            else:
                other = broker_factory(clock)
                put(other, clock)
                other.close()

        waker = threading.Thread(target=wake)
        waker.start()
        assert finishes(lambda: broker.wait(named("q"), PATIENCE * 2))
        waker.join()

    def test_all_waiting_workers_find_their_job(self, broker: Broker, clock: ManualClock) -> None:
        claimed: list[str] = []

        def work(name: str) -> None:
            deadline = monotonic() + PATIENCE
            while len(claimed) < 4 and monotonic() < deadline:
                if broker.wait(named("q"), 0.2):
                    record = take_one_or_none(broker, name)
                    if record is not None:
                        claimed.append(record)

        workers = [threading.Thread(target=work, args=(f"w{number}",)) for number in range(4)]
        for worker in workers:
            worker.start()
        ids = [put(broker, clock) for _ in range(4)]
        for worker in workers:
            worker.join()
        assert sorted(claimed) == sorted(ids)


def take_one_or_none(broker: Broker, worker: str) -> str | None:
    ids = take(broker, limit=1, worker=worker, lease=LEASE)
    return ids[0] if ids else None


def finishes(wait: Callable[[], bool]) -> bool:
    """Whether the wait says True well before its timeout."""
    before = monotonic()
    answer = wait()
    return answer and monotonic() - before < PATIENCE
