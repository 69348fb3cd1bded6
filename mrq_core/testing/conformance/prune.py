"""Expired records: invisible at once, deleted by prune."""

from __future__ import annotations

import pytest

from mrq_core.clock import after, from_ms
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, ChangeResult, Enqueued, Move, Requeue
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.contract.queries import JobFilter, LogLine
from mrq_core.contract.record import Status
from mrq_core.errors import JobNotFound
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import Contract, bring_to, new_job, put, record_of, settle, started

TTL = 1000.0
"""The ttl of what `bring_to` settles."""


class PruneContract(Contract):
    """What prune promises, and what holds before it came."""

    def test_an_expired_record_is_invisible_at_once(self, broker: Broker, clock: ManualClock) -> None:
        job_id = bring_to(broker, clock, Status.SUCCESS)
        line = LogLine(job_id=job_id, attempt=1, seq=0, at=clock.now(), level="INFO", message="m")
        broker.append_logs([line], 1000)
        clock.advance(TTL - 0.001)
        assert record_of(broker, job_id).status is Status.SUCCESS
        clock.advance(0.001)
        assert broker.get([job_id]) == [None]
        assert broker.find(JobFilter()).records == ()
        assert broker.find(JobFilter(ids=(job_id,))).records == ()
        assert broker.count(JobFilter()).numbers == {"": 0}
        assert broker.count(JobFilter(), "status").numbers == {}
        with pytest.raises(JobNotFound):
            broker.read_logs(job_id)

    def test_an_expired_job_cannot_be_changed(self, broker: Broker, clock: ManualClock) -> None:
        job_id = bring_to(broker, clock, Status.FAILED)
        clock.advance(TTL)
        assert broker.requeue([job_id], Requeue()) == [ChangeResult.UNKNOWN]
        assert broker.cancel([job_id], Cancel()) == [ChangeResult.UNKNOWN]
        assert broker.move([job_id], Move(queue="r")) == [ChangeResult.UNKNOWN]
        assert broker.apply(JobFilter(), Requeue()).matched == 0

    def test_an_expired_id_can_be_enqueued_anew(self, broker: Broker, clock: ManualClock) -> None:
        job = new_job(clock)
        broker.enqueue([job])
        broker.cancel([job.record.id], Cancel(ttl=10.0))
        clock.advance(10)
        assert broker.enqueue([job]) == [Enqueued(id=job.record.id, created=True)]
        assert record_of(broker, job.record.id).status is Status.QUEUED
        assert broker.prune() == 0
        assert broker.totals().by_status() == {Status.QUEUED: 1}

    @pytest.mark.parametrize("resolution", Resolution)
    def test_metrics_are_deleted_when_their_time_is_over(
        self, broker: Broker, clock: ManualClock, resolution: Resolution
    ) -> None:
        if not self.supports_metrics:
            pytest.skip("this driver keeps no metrics")
        begin = from_ms(clock.now_ms() // 86_400_000 * 86_400_000)
        end = after(begin, 2 * 86_400)
        old, young = (Metric(name="jobs", at=at, tags=(("a", "b"),)) for at in (begin, after(begin, 86_400)))
        broker.record_metrics([old, young])
        kept = resolution.kept + resolution.seconds - 1
        clock.advance((after(begin, kept) - clock.now()).total_seconds())
        broker.prune()
        assert broker.read_metrics(["jobs"], begin, end, resolution) == [old, young]
        clock.advance(86_399)
        broker.prune()
        assert broker.read_metrics(["jobs"], begin, end, resolution) == [young]
        assert broker.prune(0) == 0
        clock.advance(86_401)
        broker.prune()
        assert broker.read_metrics(["jobs"], begin, end, resolution) == []

    def test_prune_deletes_at_most_its_limit_of_metrics(self, broker: Broker, clock: ManualClock) -> None:
        if not self.supports_metrics:
            pytest.skip("this driver keeps no metrics")
        begin = from_ms(clock.now_ms() // 86_400_000 * 86_400_000)
        broker.record_metrics([Metric(name="jobs", at=after(begin, day * 86_400)) for day in range(6)])
        clock.advance(100 * 86_400)

        def left() -> int:
            return len(broker.read_metrics(["jobs"], begin, clock.now(), Resolution.HOUR))

        broker.prune(2)
        assert left() >= 4
        for _ in range(6):
            broker.prune(2)
        assert left() == 0

    def test_prune_deletes_what_has_expired_and_nothing_else(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        expired = [bring_to(broker, clock, status) for status in (Status.SUCCESS, Status.FAILED)]
        clock.advance(1)
        later = bring_to(broker, clock, Status.FAILED)
        clock.advance(TTL - 1)
        assert broker.prune() == 2
        assert broker.get([*expired, later]) == [None, None, record_of(broker, later)]
        assert broker.totals().by_status() == {Status.FAILED: 1}
        assert broker.prune() == 0

    def test_prune_deletes_up_to_its_limit(self, broker: Broker, clock: ManualClock) -> None:
        for _ in range(5):
            bring_to(broker, clock, Status.SUCCESS)
        clock.advance(TTL)
        assert [broker.prune(limit=2) for _ in range(4)] == [2, 2, 1, 0]

    def test_prune_never_touches_a_job_that_is_to_run_or_running(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = [
            bring_to(broker, clock, status, queue=status)
            for status in (Status.QUEUED, Status.STARTED, Status.RETRY, Status.INTERRUPT)
        ]
        clock.advance(1e9)
        assert broker.prune() == 0
        assert None not in broker.get(ids)

    def test_a_job_that_runs_again_does_not_expire(self, broker: Broker, clock: ManualClock) -> None:
        job_id = bring_to(broker, clock, Status.FAILED)
        broker.requeue([job_id], Requeue())
        clock.advance(TTL * 2)
        assert broker.prune() == 0
        assert record_of(broker, job_id).expires_at is None

    def test_the_logs_go_with_the_job(self, broker: Broker, clock: ManualClock) -> None:
        job = new_job(clock)
        broker.enqueue([job])
        job_id = job.record.id
        line = LogLine(job_id=job_id, attempt=1, seq=0, at=clock.now(), level="INFO", message="m")
        broker.append_logs([line], 1000)
        broker.cancel([job_id], Cancel(ttl=10.0))
        clock.advance(10)
        assert broker.prune() == 1
        broker.enqueue([job])
        assert broker.read_logs(job_id).lines == ()

    def test_prune_removes_expired_state_and_counts_only_jobs(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        broker.state.put("n", "a", 1, ttl=10.0)
        broker.state.put("n", "b", 1)
        clock.advance(10)
        assert broker.prune() == 0
        assert [item.name for item in broker.state.list("n")] == ["b"]

    def test_an_ended_record_can_live_for_zero_seconds(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        assert settle(broker, record, ttl=0.0)
        assert broker.get([record.id]) == [None]
        put(broker, clock)
        assert broker.prune() == 1
