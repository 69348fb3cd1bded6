"""Keys until `record`: idempotency keys, held as long as the record exists."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, ChangeResult, Enqueued, NewJob, Remove, Requeue, Unique
from mrq_core.contract.queries import JobFilter as Jobs
from mrq_core.contract.record import Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    BrokerFactory,
    Contract,
    lose,
    new_job,
    record_of,
    run_in_threads,
    settle,
    take,
    take_one,
)

ENDS = [Status.SUCCESS, Status.FAILED, Status.ABORT, Status.TIMEOUT, Status.MAXRETRIES, Status.CANCEL]
TEXTS = [
    *(
        "",
        "k ",
        "K",
        "key%",
        "*",
        "$k",
        "k.k",
        "ключ",
        "k'",
        'k"',
        "{k}",
        "k,l",
        "a\0b",
        "a\nb",
        "\U0001f511",
    ),
    *("k" * 255, "\U0001f511" * 255),
]


def keyed(clock: ManualClock, key: str = "key", **fields: object) -> NewJob:
    """A new job with this key until `record`."""
    return new_job(clock, unique=Unique(key=key, until="record"), **fields)  # type: ignore[arg-type]


def hold(broker: Broker, clock: ManualClock, key: str = "key", **fields: object) -> str:
    """Enqueues a job that then holds the key."""
    job = keyed(clock, key, **fields)
    assert broker.enqueue([job]) == [Enqueued(id=job.record.id, created=True)]
    return job.record.id


def holder_of(broker: Broker, clock: ManualClock, key: str = "key") -> str | None:
    """The job that holds the key. None: the key was free, and a new job holds the key now."""
    [answer] = broker.enqueue([keyed(clock, key)])
    return None if answer.created else answer.id


class RecordKeyContract(Contract):
    """What enqueue, settle, requeue, remove and prune promise about keys until `record`."""

    @pytest.fixture(autouse=True)
    def _needs_record_keys(self) -> None:
        if not self.supports_unique:
            pytest.skip("this driver has no unique keys")

    @pytest.mark.parametrize("status", ENDS)
    def test_a_key_until_record_is_held_after_the_job_has_ended(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = hold(broker, clock)
        settle(broker, take_one(broker), status, ttl=100.0)
        assert holder_of(broker, clock) == job_id
        assert broker.count(Jobs()).numbers == {"": 1}

    def test_the_holder_stays_unchanged_whatever_the_params_of_the_later_job(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = hold(broker, clock, params={"n": 1})
        before = record_of(broker, job_id)
        later = keyed(clock, params={"n": 2}, priority=3)
        later = replace(later, record=replace(later.record, queue="other"))
        assert broker.enqueue([later]) == [Enqueued(id=job_id, created=False)]
        assert record_of(broker, job_id) == before
        assert broker.get([later.record.id]) == [None]
        assert take(broker, "other") == []

    def test_of_two_jobs_with_a_key_until_record_in_one_call_the_first_is_created(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        jobs = [keyed(clock), new_job(clock), keyed(clock), keyed(clock, "other")]
        first, free, second, other = (job.record.id for job in jobs)
        assert broker.enqueue(jobs) == [
            Enqueued(id=first, created=True),
            Enqueued(id=free, created=True),
            Enqueued(id=first, created=False),
            Enqueued(id=other, created=True),
        ]
        assert broker.get([second]) == [None]
        assert take(broker) == [first, free, other]

    def test_the_holder_enqueued_again_is_answered_with_its_id(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job = keyed(clock)
        broker.enqueue([job])
        assert broker.enqueue([job, keyed(clock), job]) == [Enqueued(id=job.record.id, created=False)] * 3

    @pytest.mark.parametrize("key", TEXTS)
    def test_any_text_is_a_key_until_record(self, broker: Broker, clock: ManualClock, key: str) -> None:
        hold(broker, clock)
        job_id = hold(broker, clock, key)
        assert record_of(broker, job_id).unique_key == key
        settle(broker, take_one(broker), ttl=100.0)
        settle(broker, take_one(broker), ttl=100.0)
        assert holder_of(broker, clock, key) == job_id
        assert broker.remove([job_id]) == [ChangeResult.DONE]
        assert holder_of(broker, clock, key) is None

    @pytest.mark.parametrize("until", ["queued", "done", "period"])
    def test_keys_until_record_are_separate_from_all_others(
        self, broker: Broker, clock: ManualClock, until: str
    ) -> None:
        record_holder = hold(broker, clock)
        unique = Unique(key="key", until=until, period=100.0 if until == "period" else None)
        other = new_job(clock, "other", unique=unique)
        assert broker.enqueue([other]) == [Enqueued(id=other.record.id, created=True)]
        assert holder_of(broker, clock) == record_holder
        assert broker.remove([record_holder]) == [ChangeResult.DONE]
        again = new_job(clock, "other", unique=unique)
        assert broker.enqueue([again]) == [Enqueued(id=other.record.id, created=False)]
        job_id = hold(broker, clock)
        assert broker.remove([other.record.id]) == [ChangeResult.DONE]
        assert holder_of(broker, clock) == job_id

    def test_an_expired_record_lets_its_key_go_at_once(self, broker: Broker, clock: ManualClock) -> None:
        hold(broker, clock)
        settle(broker, take_one(broker), ttl=100.0)
        clock.advance(99.999)
        assert holder_of(broker, clock) is not None
        clock.advance(0.001)
        new = keyed(clock)
        assert broker.enqueue([new, keyed(clock)]) == [
            Enqueued(id=new.record.id, created=True),
            Enqueued(id=new.record.id, created=False),
        ]
        assert take(broker) == [new.record.id]

    def test_a_record_that_expires_without_a_retention_time_lets_its_key_go(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        hold(broker, clock)
        settle(broker, take_one(broker), ttl=0.0)
        assert holder_of(broker, clock) is None

    def test_the_pruning_of_an_earlier_record_keeps_the_key_of_a_later_job(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        hold(broker, clock)
        settle(broker, take_one(broker), ttl=100.0)
        clock.advance(100.0)
        job_id = hold(broker, clock)
        broker.prune()
        assert holder_of(broker, clock) == job_id
        assert take(broker) == [job_id]

    def test_a_pruned_record_leaves_no_key_until_record(self, broker: Broker, clock: ManualClock) -> None:
        hold(broker, clock)
        settle(broker, take_one(broker), ttl=1.0)
        clock.advance(1.0)
        assert broker.prune() == 1
        assert holder_of(broker, clock) is None

    def test_a_removed_record_leaves_no_key_until_record(self, broker: Broker, clock: ManualClock) -> None:
        job_id = hold(broker, clock)
        assert broker.remove([job_id]) == [ChangeResult.DONE]
        job_id = hold(broker, clock)
        assert broker.apply(Jobs(), Remove()).matched == 1
        assert holder_of(broker, clock) is None

    def test_a_started_job_keeps_its_key_when_its_removal_is_refused(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = hold(broker, clock)
        record = take_one(broker)
        assert broker.remove([job_id]) == [ChangeResult.REFUSED]
        assert holder_of(broker, clock) == job_id
        settle(broker, record, ttl=100.0)
        assert broker.remove([job_id]) == [ChangeResult.DONE]
        assert holder_of(broker, clock) is None

    @pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILED, Status.RETRY])
    def test_a_requeue_keeps_a_key_until_record(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = hold(broker, clock)
        more = {"delay": 5.0, "is_retry": True} if status is Status.RETRY else {"ttl": 100.0}
        settle(broker, take_one(broker), status, **more)
        assert broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]
        clock.advance(200.0)
        assert holder_of(broker, clock) == job_id
        settle(broker, take_one(broker), ttl=100.0)
        assert holder_of(broker, clock) == job_id

    def test_the_key_of_an_expired_job_goes_to_the_next_and_the_expired_job_is_not_requeued(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        expired = hold(broker, clock)
        settle(broker, take_one(broker), Status.FAILED, ttl=1.0)
        clock.advance(1.0)
        job_id = hold(broker, clock)
        assert broker.requeue([expired], Requeue()) == [ChangeResult.UNKNOWN]
        assert take(broker) == [job_id]

    def test_cancel_and_lost_claims_keep_a_key_until_record(self, broker: Broker, clock: ManualClock) -> None:
        cancelled = hold(broker, clock, "cancelled")
        broker.cancel([cancelled], Cancel(ttl=1000.0))
        lost = hold(broker, clock, "lost", at_most_once=True)
        take_one(broker)
        lose(clock)
        assert take(broker) == []
        assert record_of(broker, lost).status is Status.FAILED
        assert holder_of(broker, clock, "cancelled") == cancelled
        assert holder_of(broker, clock, "lost") == lost

    def test_the_id_comes_before_a_key_until_record(self, broker: Broker, clock: ManualClock) -> None:
        holder = hold(broker, clock)
        other = new_job(clock)
        broker.enqueue([other])
        again = NewJob(record=other.record, unique=Unique(key="key", until="record"))
        assert broker.enqueue([again]) == [Enqueued(id=other.record.id, created=False)]
        fresh = NewJob(record=other.record, unique=Unique(key="fresh", until="record"))
        assert broker.enqueue([fresh]) == [Enqueued(id=other.record.id, created=False)]
        assert holder_of(broker, clock, "fresh") is None
        assert holder_of(broker, clock) == holder

    def test_an_expired_id_and_an_expired_key_make_room_for_one_job(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        first, second = hold(broker, clock, "first"), hold(broker, clock, "second")
        for _ in range(2):
            settle(broker, take_one(broker), ttl=1.0)
        clock.advance(1.0)
        job = keyed(clock, "second", id=first)
        assert broker.enqueue([job]) == [Enqueued(id=first, created=True)]
        assert holder_of(broker, clock, "second") == first
        assert holder_of(broker, clock, "first") is None
        assert broker.get([second]) == [None]

    def test_a_follow_up_whose_key_until_record_is_held_is_dropped(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        holder = hold(broker, clock, "held")
        parent = hold(broker, clock, "parent")
        settle(broker, take_one(broker), ttl=100.0)
        dropped, created = keyed(clock, "held"), keyed(clock, "new")
        settle(broker, take_one(broker), ttl=100.0, followups=(dropped, created))
        assert take(broker) == [created.record.id]
        assert broker.get([dropped.record.id]) == [None]
        assert holder_of(broker, clock, "held") == holder
        assert holder_of(broker, clock, "parent") == parent
        assert holder_of(broker, clock, "new") == created.record.id

    @pytest.mark.parametrize("has_expired", [False, True], ids=["free", "expired"])
    def test_of_many_threads_with_one_key_one_creates_its_job(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock, has_expired: bool
    ) -> None:
        keys = [f"key {number}" for number in range(10)]
        if has_expired:
            broker.enqueue([keyed(clock, key) for key in keys])
            for _ in keys:
                settle(broker, take_one(broker), ttl=1.0)
            clock.advance(1.0)
        brokers = [broker_factory(clock) for _ in range(4)]
        answers: list[list[Enqueued]] = []
        try:
            run_in_threads(
                lambda mine: answers.append(mine.enqueue([keyed(clock, key) for key in keys])),
                [(one,) for one in brokers],
            )
        finally:
            for one in brokers:
                one.close()
        for of_key in zip(*answers, strict=True):
            assert sum(answer.created for answer in of_key) == 1
            assert len({answer.id for answer in of_key}) == 1
        assert len(take(broker, limit=100)) == len(keys)
