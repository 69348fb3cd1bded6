"""What a claim does with the jobs of paused tasks."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, ChangeResult, Limit, Move, Requeue
from mrq_core.contract.queries import JobFilter, QueuePosition
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    LEASE,
    BrokerFactory,
    Contract,
    bring_to,
    claim,
    lose,
    put,
    put_many,
    record_of,
    ref,
    settle,
    started,
    take,
    take_one,
)
from mrq_core.testing.conformance.edits import edit

PATH = "tests.tasks.Example"
PAUSED = frozenset({PATH})


def claimed_one_by_one(broker: Broker, limits: Mapping[str, Limit], *, calls: int) -> list[JobRecord]:
    """The jobs of this number of claims, of one job each, while the task is paused."""
    answers = [claim(broker, limits=limits, limit=1, paused_tasks=PAUSED) for _ in range(calls)]
    return [record for answer in answers for record in answer.records]


class PausedTaskContract(Contract):
    """What a claim does with the jobs of paused tasks."""

    lets_go_in_steps: bool = True
    """Whether one call lets a bounded number of parked jobs go. The model lets all go at once."""

    @pytest.fixture(autouse=True)
    def _needs_limits(self) -> None:
        if not self.supports_limits:
            pytest.skip("this driver has no limits")

    def test_a_claim_parks_the_jobs_of_a_paused_task(self, broker: Broker, clock: ManualClock) -> None:
        first, second = put_many(broker, clock, 2)
        answer = claim(broker, paused_tasks=PAUSED)
        assert (answer.records, answer.next_due) == ((), None)
        for job_id in (first, second):
            record = record_of(broker, job_id)
            assert (record.status, record.claims, record.history) == (Status.QUEUED, 0, ())
        [counts] = broker.counts(["q"])
        assert (counts.waiting, counts.due, counts.claimed) == (2, 0, 0)
        assert take(broker, paused_tasks=PAUSED) == []

    @pytest.mark.parametrize("queue", ["q", "t/x"])
    def test_a_resumed_task_goes_on_in_its_order(
        self, broker: Broker, clock: ManualClock, queue: str
    ) -> None:
        ids = []
        for _ in range(3):
            ids.append(put(broker, clock, queue))
            clock.advance(1)
        wanted = queue if queue == "q" else "t/"
        assert take(broker, wanted, paused_tasks=PAUSED) == []
        # A call may let go what only the next one takes.
        taken = [record for _ in range(6) for record in claim(broker, wanted, limit=1).records]
        assert [record.id for record in taken] == ids
        assert [record.claims for record in taken] == [1, 1, 1]
        assert all(settle(broker, record, ttl=100.0) for record in taken)
        [counts] = broker.counts([queue])
        assert (counts.waiting, counts.due, counts.claimed) == (0, 0, 0)

    def test_jobs_of_other_tasks_pass(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 5, priority=2)
        free = put_many(broker, clock, 2, path="other.Task")
        taken = [job_id for _ in range(3) for job_id in take(broker, limit=3, paused_tasks=PAUSED)]
        assert taken == free

    def test_many_jobs_of_a_paused_task_are_parked_in_bounded_steps(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_many(broker, clock, 600)
        clock.advance(1)
        free = put(broker, clock, path="other.Task")
        answer = claim(broker, limit=2, paused_tasks=PAUSED)
        [counts] = broker.counts(["q"])
        assert 0 < 601 - counts.due <= 100
        assert answer.next_due is not None
        assert answer.next_due <= clock.now()
        taken: list[str] = []
        for _ in range(300):
            taken += take(broker, limit=2, paused_tasks=PAUSED)
            if taken:
                break
        assert taken == [free]
        assert broker.counts(["q"])[0].due == 0

    def test_a_resumed_task_lets_its_jobs_go_in_bounded_steps(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = put_many(broker, clock, 250)
        while broker.counts(["q"])[0].due:
            assert take(broker, limit=25, paused_tasks=PAUSED) == []
        assert len(take(broker, limit=1)) == 1
        if self.lets_go_in_steps:
            assert broker.counts(["q"])[0].due <= 100
        taken = [job_id for _ in range(300) for job_id in take(broker, limit=1)]
        assert len(taken) == 249
        assert set(taken) < set(ids)

    def test_running_jobs_of_a_paused_task_go_on(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        clock.advance(LEASE / 2)
        assert take(broker, paused_tasks=PAUSED) == []
        assert broker.renew([ref(record)], LEASE) == [True]
        assert settle(broker, record, Status.RETRY, delay=0.0, is_retry=True)
        assert take(broker, paused_tasks=PAUSED) == []
        again = take_one(broker)
        assert (again.id, again.claims, again.retry_count) == (record.id, 2, 1)

    def test_a_lost_job_of_a_paused_task_waits(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        free = put(broker, clock, path="other.Task")
        lose(clock)
        answer = claim(broker, paused_tasks=PAUSED)
        assert [one.id for one in answer.records] == [free]
        assert answer.next_due is None or answer.next_due > clock.now()
        lost = record_of(broker, record.id)
        assert (lost.claims, lost.lease_until) == (1, record.lease_until)
        clock.advance(1)
        again = take_one(broker)
        assert (again.id, again.claims) == (record.id, 2)

    def test_a_lost_job_of_a_paused_task_takes_no_room_under_limits(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        limits = {"rule": Limit(concurrency=1)}
        put(broker, clock, limit_keys=("rule",))
        [lost] = claim(broker, limits=limits).records
        free = put(broker, clock, limit_keys=("rule",), path="other.Task")
        lose(clock)
        taken = claimed_one_by_one(broker, limits, calls=2)
        assert [record.id for record in taken] == [free]
        assert settle(broker, taken[0], ttl=100.0)
        clock.advance(1)
        assert take(broker, limits=limits) == [lost.id]

    @pytest.mark.parametrize("how", ["cancel", "move", "remove", "requeue"])
    def test_a_job_that_a_pause_has_parked_can_be_changed(
        self, broker: Broker, clock: ManualClock, how: str
    ) -> None:
        job_id = put(broker, clock)
        assert take(broker, paused_tasks=PAUSED) == []
        if how == "cancel":
            assert broker.cancel([job_id], Cancel()) == [ChangeResult.DONE]
            assert broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]
            assert take(broker) == [job_id]
        elif how == "move":
            assert broker.move([job_id], Move(queue="other")) == [ChangeResult.DONE]
            assert take(broker) == []
            assert take(broker, "other") == [job_id]
        elif how == "requeue":
            assert broker.requeue([job_id], Requeue()) == [ChangeResult.REFUSED]
            assert take(broker) == [job_id]
        else:
            assert broker.remove([job_id]) == [ChangeResult.DONE]
            assert take(broker) == []
        [counts] = broker.counts(["q"])
        assert (counts.waiting, counts.due) == (0, 0)
        assert take(broker) == []

    def test_an_edited_job_that_a_pause_has_parked_stays_parked_with_its_new_priority(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        first, second, third = put_many(broker, clock, 3)
        assert take(broker, paused_tasks=PAUSED) == []
        assert edit(broker, third, priority=3, params={"a": 1}) is ChangeResult.DONE
        assert take(broker, paused_tasks=PAUSED) == []
        assert (broker.counts(["q"])[0].waiting, broker.counts(["q"])[0].due) == (3, 0)
        found = broker.queue_position(second)
        assert found is not None
        assert (found.parked_under, found.ahead) == (f"task:{PATH}", 2)
        assert [use.waiters for use in found.keys] == [(third, first, second)]
        # A call may let go what only the next one takes.
        taken = [job_id for _ in range(6) for job_id in take(broker, limit=1)]
        assert taken == [third, first, second]

    def test_an_edited_job_that_a_pause_has_parked_is_due_at_its_new_time(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = put(broker, clock)
        assert take(broker, paused_tasks=PAUSED) == []
        assert edit(broker, job_id, delay=5.0) is ChangeResult.DONE
        assert take(broker) == []
        assert broker.queue_position(job_id) == QueuePosition(ahead=0, due_at=after(clock.now(), 5.0))
        clock.advance(5)
        assert take(broker, paused_tasks=PAUSED) == []
        assert take(broker) == [job_id]

    @pytest.mark.parametrize("status", [Status.RETRY, Status.INTERRUPT])
    def test_a_job_that_a_pause_has_parked_keeps_its_status(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = bring_to(broker, clock, status)
        assert take(broker, paused_tasks=PAUSED) == []
        assert record_of(broker, job_id).status is status
        assert take(broker) == [job_id]

    def test_a_paused_task_takes_no_room_under_limits(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"rule": Limit(concurrency=1)}
        paused = put(broker, clock, limit_keys=("rule",))
        free = put(broker, clock, limit_keys=("rule",), path="other.Task")
        taken = claimed_one_by_one(broker, limits, calls=3)
        assert [record.id for record in taken] == [free]
        assert settle(broker, taken[0], ttl=100.0)
        assert take(broker, limits=limits) == [paused]

    def test_jobs_under_a_removed_rule_are_let_go(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 300, limit_keys=("rule",))
        limits = {"rule": Limit(concurrency=0)}
        while broker.counts(["q"])[0].due:
            assert take(broker, limit=50, limits=limits) == []
        taken = [job_id for _ in range(20) for job_id in take(broker, limit=50)]
        assert sorted(taken) == sorted(ids)

    def test_a_crash_in_the_middle_of_a_resume_leaves_no_job_behind(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        ids = put_many(broker, clock, 250)
        while broker.counts(["q"])[0].due:
            assert take(broker, limit=25, paused_tasks=PAUSED) == []
        assert len(take(broker, limit=1, lease=1.0)) == 1  # the first step
        clock.advance(1.0)
        other = broker_factory(clock)  # another process goes on
        taken = [job_id for _ in range(40) for job_id in take(other, limit=25)]
        assert sorted(taken) == sorted(ids)
        assert other.count(JobFilter(statuses=(Status.STARTED,))).numbers == {"": 250}
        other.close()
