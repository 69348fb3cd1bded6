"""Threads and processes on the same data."""

from __future__ import annotations

from collections import Counter

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.errors import BrokerError
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    BrokerFactory,
    Contract,
    claim,
    new_job,
    put_many,
    run_in_threads,
    settle,
)

THREADS = 8


class ThreadContract(Contract):
    """What holds when many work at the same time."""

    @pytest.mark.parametrize("shared", [True, False], ids=["one broker", "a broker each"])
    def test_concurrent_threads_never_share_a_live_claim(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock, shared: bool
    ) -> None:
        ids = put_many(broker, clock, 200)
        taken: list[str] = []

        def work(name: str) -> None:
            mine = broker if shared else broker_factory(clock)
            while records := claim(mine, limit=3, worker=name).records:
                for record in records:
                    taken.append(record.id)
                    assert settle(mine, record, ttl=1000.0)
            if not shared:
                mine.close()

        run_in_threads(work, [(f"w{number}",) for number in range(THREADS)])
        assert Counter(taken) == Counter(ids)
        assert broker.totals().by_status() == {Status.SUCCESS: 200}

    def test_a_lost_job_is_claimed_again_by_one_thread_only(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 1)
        claim(broker)
        clock.advance(60)
        taken: list[str] = []
        run_in_threads(
            lambda name: taken.extend(record.id for record in claim(broker, worker=name).records),
            [(f"w{number}",) for number in range(THREADS)],
        )
        assert len(taken) == 1

    def test_the_same_job_enqueued_by_many_threads_is_created_once(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        jobs = [new_job(clock) for _ in range(20)]
        created: list[bool] = []
        run_in_threads(
            lambda: created.extend(answer.created for answer in broker.enqueue(jobs)), [()] * THREADS
        )
        assert created.count(True) == 20
        assert broker.count(JobFilter()).numbers == {"": 20}
        assert broker.totals().by_status() == {Status.QUEUED: 20}

    def test_the_same_settle_by_many_threads_is_written_once(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_many(broker, clock, 1)
        [record] = claim(broker).records
        answers: list[bool] = []
        run_in_threads(
            lambda: answers.append(settle(broker, record, Status.RETRY, delay=5.0, is_retry=True)),
            [()] * THREADS,
        )
        assert answers == [True] * THREADS
        [stored] = broker.get([record.id])
        assert stored is not None
        assert stored.retry_count == 1

    def test_preparing_again_changes_nothing(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        ids = put_many(broker, clock, 3)
        other = broker_factory(clock)
        run_in_threads(lambda each: each.prepare(), [(broker,), (other,), (broker,)])
        assert [record.id for record in claim(other).records] == ids
        other.close()

    def test_a_closed_broker_cannot_be_used(self, broker_factory: BrokerFactory, clock: ManualClock) -> None:
        broker = broker_factory(clock)
        broker.prepare()
        broker.close()
        with pytest.raises(BrokerError):
            broker.get(["0" * 24])

    def test_a_check_says_what_it_found(self, broker: Broker) -> None:
        for finding in broker.check():
            assert finding.level in ("ok", "warning", "error")
            assert finding.subject
            assert finding.message
