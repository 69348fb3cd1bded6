"""Jobs near the 16 MB of a document: a stored job can be claimed, and stops no queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import bson
import pytest
from msgspec.structs import replace

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.jobs import enqueueing, sizes
from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import AddedKeys, ChangeResult, Edit, NewJob, Outcome, Requeue
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Attempt, JobRecord, Status
from mrq_core.errors import BrokerError, ValueTooLarge
from mrq_core.operations.actions import summary
from mrq_core.testing.clock import ManualClock
from tests.brokers import address_of
from tests.mongo.kit import Place, claim, ended, new_job, success
from tests.mongo.recount import check_collections
from tests.support import open_project

LONG = "x" * 50_000


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(place: Place, clock: ManualClock) -> Iterator[MongoBroker]:
    opened = place.open(clock)
    yield opened
    check_collections(opened)
    opened.close()


def with_bytes(broker: MongoBroker, job: NewJob, size: int) -> NewJob:
    """The job with params of a list and a text, with which its document has this size."""
    numbers = [0] * 1_000_000
    bare = replace(job.record, params={"text": "", "numbers": numbers})
    document = enqueueing.document_of(broker._connection, NewJob(record=bare), broker.now())
    text = "x" * (size - len(bson.encode(document)))
    return NewJob(record=replace(bare, params={"text": text, "numbers": numbers}))


def largest(broker: MongoBroker, job: NewJob | None = None) -> NewJob:
    """A job of which one byte more would be refused."""
    return with_bytes(broker, job or new_job(), sizes.MOST - sizes.ROOM)


def stored(broker: MongoBroker, job: NewJob) -> JobRecord:
    [record] = broker.get([job.record.id])
    assert record is not None
    return record


def test_a_job_that_leaves_no_room_for_a_claim_is_refused_and_stops_no_queue(broker: MongoBroker) -> None:
    small = new_job()
    for size in (sizes.MOST - sizes.ROOM + 1, sizes.MOST - 100):
        large = with_bytes(broker, new_job(), size)
        with pytest.raises(ValueTooLarge, match="16 MB") as refused:
            broker.enqueue([large, small])
        assert (refused.value.path, refused.value.size) == ("params", size)
        assert refused.value.limit == sizes.MOST - sizes.ROOM
        assert broker.get([large.record.id, small.record.id]) == [None, None]
    broker.enqueue([largest(broker), small])
    assert len(claim(broker).records) == 2


def test_the_largest_job_is_lost_ten_times_and_fails(broker: MongoBroker, clock: ManualClock) -> None:
    job = largest(broker)
    broker.enqueue([job])
    for _ in range(10):
        assert [record.id for record in claim(broker).records] == [job.record.id]
        clock.advance(61.0)
    assert [record.id for record in claim(broker).ended] == [job.record.id]
    assert stored(broker, job).status is Status.FAILED


def test_the_largest_job_fails_and_is_requeued(broker: MongoBroker) -> None:
    job = largest(broker)
    broker.enqueue([job])
    [record] = claim(broker).records
    failed = Outcome(status=Status.FAILED, ttl=60.0, exception_type="E", traceback="t" * 5000)
    assert broker.settle([ended(record, failed)]) == [True]
    assert broker.requeue([job.record.id], Requeue()) == [ChangeResult.DONE]
    [record] = claim(broker).records
    assert broker.settle([success(record)]) == [True]


def test_a_retry_that_leaves_no_room_for_a_claim_is_refused_and_the_job_can_be_failed(
    broker: MongoBroker,
) -> None:
    job = largest(broker)
    broker.enqueue([job])
    again = Outcome(status=Status.RETRY, delay=0.0, is_retry=True, exception_type="E", traceback=LONG)
    [record] = claim(broker).records
    with pytest.raises(BrokerError, match=r"runs again.*16 MB"):
        broker.settle([ended(record, again)])
    failed = Outcome(status=Status.FAILED, ttl=60.0, exception_type="E", traceback=LONG)
    assert broker.settle([ended(record, failed)]) == [True]
    with pytest.raises(BrokerError, match=r"runs again.*16 MB"):
        broker.requeue([job.record.id], Requeue())
    assert stored(broker, job).status is Status.FAILED


def test_a_bulk_requeue_refuses_full_jobs_and_goes_on(broker: MongoBroker) -> None:
    jobs = [largest(broker), new_job(), largest(broker), new_job()]
    broker.enqueue(jobs)
    outcome = Outcome(status=Status.FAILED, ttl=60.0, exception_type="E", traceback=LONG)
    assert broker.settle([ended(record, outcome) for record in claim(broker).records]) == [True] * 4
    done = broker.apply(JobFilter(statuses=(Status.FAILED,)), Requeue())
    assert done.changes == {ChangeResult.TOO_LARGE: 2, ChangeResult.DONE: 2}
    assert done.cursor is None
    text = "2 jobs requeued; 2 refused: too large to run again"
    assert summary(Counter(done.changes), Requeue()) == text
    failed, queued = Status.FAILED, Status.QUEUED
    assert [stored(broker, job).status for job in jobs] == [failed, queued, failed, queued]


def test_a_followup_that_leaves_no_room_for_a_claim_is_refused_and_the_job_can_be_failed(
    broker: MongoBroker,
) -> None:
    job, large = new_job(), with_bytes(broker, new_job(), sizes.MOST - 1000)
    broker.enqueue([job])
    [record] = claim(broker).records
    with pytest.raises(BrokerError, match=r"a follow-up of job .*16 MB"):
        broker.settle([ended(record, Outcome(status=Status.SUCCESS, ttl=60.0, followups=(large,)))])
    assert broker.settle([ended(record, Outcome(status=Status.FAILED, ttl=60.0))]) == [True]
    assert broker.get([large.record.id]) == [None]


@pytest.mark.parametrize(
    ("params", "is_small"),
    [
        ({}, True),
        ({"a": 1, "b": [1.5, None, True, {"c": "text"}]}, True),
        ({"text": "x" * 1_900_000}, True),
        ({"text": "x" * 2_100_000}, False),
        ({"nested": [["x" * 1_100_000], {"y": "x" * 1_100_000}]}, False),
        ({"x" * 2_100_000: 0}, False),
        ({"numbers": [0] * 900_000}, True),
        ({"numbers": [0] * 1_100_000}, False),
        ({"numbers": [[0] * 30] * 40_000}, False),
        ({"numbers": {str(number): 0 for number in range(300_000)}}, False),
    ],
)
def test_only_jobs_that_may_be_large_are_encoded_once_more(
    params: JsonObject, is_small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[object] = []

    def size_of(doc: object) -> int:
        encoded.append(doc)
        return 0

    monkeypatch.setattr(sizes, "_size_of", size_of)
    record = new_job(params=params).record
    sizes.check_new(record, {})
    assert bool(encoded) is not is_small
    assert not is_small or len(bson.encode({"params": params})) < sizes.MOST - 1_000_000


def test_the_earlier_attempts_of_a_small_job_count(broker: MongoBroker) -> None:
    record = new_job().record
    assert sizes.is_small(record)
    now = broker.now()
    attempt = Attempt(
        claim=1, token="1", started_at=now, ended_at=now, worker="w", status=Status.RETRY, traceback=LONG
    )
    assert sizes.is_small(replace(record, history=(attempt,) * 10))
    assert not sizes.is_small(replace(record, history=(attempt,) * 100))
    assert not sizes.is_small(replace(record, traceback=LONG * 100))


def test_edits_and_search_keys_that_leave_no_room_are_refused(broker: MongoBroker) -> None:
    job = new_job(priority=1)
    broker.enqueue([job, new_job()])
    params = with_bytes(broker, job, sizes.MOST - 1000).record.params
    with pytest.raises(ValueTooLarge, match="16 MB"):
        broker.edit([Edit(id=job.record.id, claims=0, edits=0, params=params)])
    fits = largest(broker, job).record.params
    assert broker.edit([Edit(id=job.record.id, claims=0, edits=0, params=fits)]) == [ChangeResult.DONE]
    keys: JsonObject = {f"key{number}": LONG[:10_000] for number in range(5)}
    small = new_job()
    broker.enqueue([small])
    added = [AddedKeys(id=one.record.id, search_keys=keys) for one in (job, small)]
    assert broker.add_search_keys(added) == [ChangeResult.REFUSED, ChangeResult.DONE]
    assert len(claim(broker).records) == 3
    assert broker.add_search_keys(added[:1]) == [ChangeResult.REFUSED]  # its claim may be lost


def test_a_job_whose_queue_is_elsewhere_leaves_room_too(broker: MongoBroker, store_place: Place) -> None:
    store = store_place.open_store()
    large = with_bytes(broker, new_job(), sizes.MOST - 1000)
    with pytest.raises(ValueTooLarge, match="16 MB"):
        store.insert([new_job(), large])
    assert store.read([large.record.id]) == [None]
    store.close()


def test_a_bulk_requeue_of_a_pair_refuses_full_jobs_and_goes_on(broker: MongoBroker, tmp_path: Path) -> None:
    with open_project(tmp_path, *address_of("redis+mongo", tmp_path)) as project:
        pair = project.client.broker
        jobs = [largest(broker), new_job()]
        pair.enqueue(jobs)
        outcome = Outcome(status=Status.FAILED, ttl=60.0, exception_type="E", traceback=LONG)
        records = claim(pair).records
        assert pair.settle([ended(record, outcome) for record in records]) == [True, True]
        done = pair.apply(JobFilter(statuses=(Status.FAILED,)), Requeue())
        assert done.changes == {ChangeResult.TOO_LARGE: 1, ChangeResult.DONE: 1}
        assert [record.id for record in claim(pair).records] == [jobs[1].record.id]


def test_a_worker_fails_the_large_job_that_retries_with_a_long_traceback(
    place: Place, tmp_path: Path
) -> None:
    with open_project(tmp_path, f"{place.url}?prefix={place.prefix}") as project:
        project.write(
            "tasks.py",
            "from mrq_core import task\n"
            "@task(max_retries=20, retry_delay=0, retry_on=[ValueError])\n"
            "def grow(text: str = ''):\n    if text:\n        raise ValueError('y' * 60_000)\n",
        )
        given = {"broker": project.address.broker, "max_params_size": sizes.MOST}
        with closing(Client(load_config(given, environ={}))) as client:
            for size in (sizes.MOST, sizes.MOST - sizes.ROOM):
                with pytest.raises(ValueTooLarge):
                    client.queue_job("tasks.grow", {"text": "x" * size})
            large = client.queue_job("tasks.grow", {"text": "x" * (sizes.MOST - sizes.ROOM - 1000)})
        small = project.queue("tasks.grow")
        project.work_off("--greenlets", "2")
        assert project.client.fetch(small).status is Status.SUCCESS
        assert project.client.fetch(large).status is Status.FAILED
