"""Large numbers: ten thousand subqueues, ten thousand jobs, whole chunks in one call."""

from __future__ import annotations

import random
from collections import Counter

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, Cancel, ChangeResult, Enqueued
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import Contract, claim, new_job, put_many, ref, settlement, take

MANY = 10_000
SUBQUEUES_A_CALL = 32


class BulkContract(Contract):
    """What holds for many queues and many jobs."""

    def test_all_jobs_of_ten_thousand_subqueues_are_found_in_bounded_calls(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        jobs = [new_job(clock, f"main/{number:05}") for number in range(MANY)]
        for start in range(0, MANY, CHUNK):
            broker.enqueue(jobs[start : start + CHUNK])
        taken: Counter[str] = Counter()
        calls = 0
        while records := claim(broker, "main/", limit=100).records:
            calls += 1
            assert len({record.queue for record in records}) == len(records) <= SUBQUEUES_A_CALL
            taken.update(record.id for record in records)
            assert all(broker.settle([settlement(record, ttl=1000.0) for record in records]))
        assert taken == Counter(job.record.id for job in jobs)
        assert calls <= 2 * MANY // SUBQUEUES_A_CALL

    def test_ten_thousand_jobs_are_enqueued_claimed_and_settled_in_order(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        jobs = [new_job(clock) for _ in range(MANY)]
        for start in range(0, MANY, CHUNK):
            part = jobs[start : start + CHUNK]
            assert broker.enqueue(part) == [Enqueued(id=job.record.id, created=True) for job in part]
        assert broker.totals().by_status() == {Status.QUEUED: MANY}
        assert broker.counts(["q"])[0].waiting == MANY
        taken: list[str] = []
        while records := claim(broker, limit=CHUNK).records:
            taken += [record.id for record in records]
            assert broker.settle([settlement(record, ttl=1000.0) for record in records]) == [True] * len(
                records
            )
        assert taken == [job.record.id for job in jobs]
        assert broker.totals().by_status() == {Status.SUCCESS: MANY}

    def test_a_chunk_with_repetitions_is_answered_in_line(self, broker: Broker, clock: ManualClock) -> None:
        known = [new_job(clock) for _ in range(CHUNK // 2)]
        broker.enqueue(known)
        fresh = [new_job(clock) for _ in range(CHUNK // 2)]
        mixed = [job for pair in zip(known, fresh, strict=True) for job in pair]
        assert broker.enqueue(mixed) == [
            Enqueued(id=job.record.id, created=number % 2 == 1) for number, job in enumerate(mixed)
        ]

    def test_results_of_a_batch_line_up_with_its_input(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 300)
        records = list(claim(broker, limit=300).records)
        random.Random(1).shuffle(records)
        outcomes = [settlement(record, result=number, ttl=100.0) for number, record in enumerate(records)]
        outcomes[100:100] = [settlement(records[0], Status.FAILED)]  # a repetition changes nothing
        assert broker.settle(outcomes) == [True] * 301
        stored = broker.get([record.id for record in records])
        assert [record and record.result for record in stored] == list(range(300))
        assert broker.renew([ref(record) for record in records], 60.0) == [False] * 300

    def test_a_chunk_of_changes_is_answered_in_line(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, CHUNK)
        assert len(take(broker, limit=CHUNK // 2)) == CHUNK // 2
        assert broker.cancel(ids[::-1], Cancel()) == [ChangeResult.DONE] * (CHUNK // 2) + [
            ChangeResult.REQUESTED
        ] * (CHUNK // 2)
        assert broker.count(JobFilter(), "status").numbers == {"cancel": CHUNK // 2, "started": CHUNK // 2}
