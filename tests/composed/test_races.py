"""What happens between two calls of one process: another one is quicker, or the queue loses what it held."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from mrq_core import failpoints
from mrq_core.composed import ComposedBroker
from mrq_core.contract.messages import (
    Cancel,
    ChangeResult,
    ClaimRef,
    ClaimRequest,
    Limit,
    Move,
    NewJob,
    Outcome,
    Settlement,
    Unique,
    Wanted,
)
from mrq_core.contract.record import JobRecord, Status
from mrq_core.operations.actions import repair_all
from mrq_core.testing.clock import ManualClock
from tests.composed.kit import Place
from tests.interleaving import at
from tests.mongo.kit import new_job

LEASE = 60.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(place: Place, clock: ManualClock) -> Iterator[ComposedBroker]:
    broker = place.open(clock)
    broker.prepare()
    yield broker
    broker.close()


@pytest.fixture
def other(place: Place, clock: ManualClock) -> Iterator[ComposedBroker]:
    broker = place.open(clock)
    yield broker
    broker.close()


def claim(broker: ComposedBroker, worker: str, name: str = "q", **more: Any) -> tuple[JobRecord, ...]:
    request = ClaimRequest(worker=worker, wanted=(Wanted(name=name),), limit=5, lease=LEASE, **more)
    return broker.claim(request).records


def succeed(record: JobRecord) -> Settlement:
    outcome = Outcome(status=Status.SUCCESS, ttl=1000.0)
    return Settlement(id=record.id, token=record.token or "", outcome=outcome)


def token_of(broker: ComposedBroker, record: JobRecord) -> str | None:
    """The claim that holds the job's entry."""
    [entry] = broker._queue.entries([record.id])
    assert entry is not None
    return entry.token


@pytest.mark.parametrize("is_claimed", [False, True], ids=["waiting", "claimed"])
def test_a_job_that_got_a_place_again_while_it_was_started_is_not_started_twice(
    place: Place,
    broker: ComposedBroker,
    other: ComposedBroker,
    monkeypatch: pytest.MonkeyPatch,
    is_claimed: bool,
) -> None:
    job: NewJob = new_job()
    broker.enqueue([job])

    def lose_and_mend() -> None:
        place.redis.clear()
        assert [one for step in repair_all(other) for one in step.repaired] == [job.record.id]

    at(monkeypatch, "composed.claimed", lose_and_mend)
    [record] = claim(broker, "first")
    if is_claimed:  # the other one meets an entry that starts nothing, and puts it right
        assert claim(other, "second") == ()
        assert token_of(broker, record) == record.token
    assert broker.renew([ClaimRef(id=record.id, token=record.token or "")], LEASE) == [True]
    assert token_of(broker, record) == record.token
    assert claim(other, "second") == ()
    [found] = broker.get([record.id])
    assert found is not None
    assert (found.status, found.token, found.claims) == (Status.STARTED, record.token, 1)


def test_a_worker_does_not_get_back_what_another_is_taking(
    broker: ComposedBroker, other: ComposedBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its lease has ended, the queue has given the job to another worker, and the store is told next."""
    broker.enqueue([new_job()])
    [record] = claim(broker, "first")
    clock.advance(LEASE + 1)
    renewed: list[bool] = []
    ref = ClaimRef(id=record.id, token=record.token or "")
    at(monkeypatch, "composed.taken", lambda: renewed.extend(broker.renew([ref], LEASE)))
    [again] = claim(other, "second")
    assert renewed == [False]
    assert token_of(broker, record) == again.token != record.token
    assert broker.renew([ref], LEASE) == [False]


def test_a_suspect_that_is_renewed_in_the_last_moment_is_not_ended(
    broker: ComposedBroker, other: ComposedBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.enqueue([new_job(at_most_once=True)])
    [record] = claim(broker, "first")
    clock.advance(LEASE + 1)
    ref = ClaimRef(id=record.id, token=record.token or "")
    renewed: list[bool] = []
    at(monkeypatch, "entry_claim.after", lambda: renewed.extend(broker.renew([ref], LEASE)))
    assert claim(other, "second") == ()
    assert renewed == [True]
    [found] = broker.get([record.id])
    assert found is not None
    assert (found.status, found.token) == (Status.STARTED, record.token)
    clock.advance(LEASE + 1)
    assert claim(other, "second") == ()
    [found] = broker.get([record.id])
    assert found is not None
    assert found.status is Status.FAILED


def test_a_queue_that_went_back_in_time_gives_no_running_job_away(
    place: Place, broker: ComposedBroker, clock: ManualClock
) -> None:
    broker.enqueue([new_job()])
    [first] = claim(broker, "first")
    clock.advance(LEASE + 1)
    with redis.Redis.from_url(place.redis.url) as client:
        keys = {key: client.dump(key) for key in client.scan_iter("{" + place.redis.prefix + "}:*")}
        [second] = claim(broker, "second")
        for key in client.scan_iter("{" + place.redis.prefix + "}:*"):
            client.delete(key)
        for key, value in keys.items():
            client.restore(key, 0, value)
    assert token_of(broker, first) == first.token
    assert claim(broker, "third") == ()
    assert token_of(broker, second) == second.token
    assert broker.renew([ClaimRef(id=second.id, token=second.token or "")], LEASE) == [True]


def test_an_entry_of_an_earlier_life_of_an_id_goes(
    broker: ComposedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job()
    broker.enqueue([job])
    for queue in ("x", "q"):
        broker.move([job.record.id], Move(queue=queue))

    def die() -> None:
        raise KeyboardInterrupt

    at(monkeypatch, "composed.written", die)
    with pytest.raises(KeyboardInterrupt):
        broker.remove([job.record.id])
    broker.enqueue([job])
    broker.cancel([job.record.id], Cancel())
    assert claim(broker, "worker") == ()
    assert broker._queue.entries([job.record.id]) == [None]


def test_a_place_that_was_given_to_a_removed_job_is_taken_back(
    place: Place, broker: ComposedBroker, other: ComposedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = new_job()
    broker.enqueue([job])
    place.redis.clear()

    at(monkeypatch, "composed.repaired", lambda: other.remove([job.record.id]))
    assert [one for step in repair_all(broker) for one in step.repaired] == []
    assert broker._queue.entries([job.record.id]) == [None]


@pytest.mark.parametrize("unique", [None, Unique(key="k"), Unique(key="k", until="period", period=900.0)])
def test_an_id_that_is_used_again_while_its_job_is_removed_has_its_place_and_its_key(
    broker: ComposedBroker, other: ComposedBroker, monkeypatch: pytest.MonkeyPatch, unique: Unique | None
) -> None:
    job = new_job(unique=unique)
    broker.enqueue([job])
    again: list[bool] = []
    at(monkeypatch, "composed.written", lambda: again.extend(one.created for one in other.enqueue([job])))
    assert broker.remove([job.record.id]) == [ChangeResult.DONE]
    assert again == [True]
    if unique is not None:
        [refused] = other.enqueue([new_job(unique=unique)])
        assert refused.id == job.record.id
    assert [record.id for record in claim(other, "first")] == [job.record.id]


def test_two_suspects_under_one_limit_are_not_claimed_at_once(
    broker: ComposedBroker, other: ComposedBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = {"slow": Limit(concurrency=1)}
    broker.enqueue([new_job(queue=name, limit_keys=("slow",)) for name in ("q", "r")])
    for name in ("q", "r"):  # as the limit did not hold yet
        assert len(claim(broker, "first", name)) == 1
    clock.advance(LEASE + 1)
    quicker: list[JobRecord] = []
    at(monkeypatch, "entry_claim.after", lambda: quicker.extend(claim(other, "third", "r", limits=limits)))
    assert claim(broker, "second", "q", limits=limits) == ()
    assert [record.queue for record in quicker] == ["r"]


def test_of_several_suspects_one_that_its_late_worker_settles_is_not_claimed(
    broker: ComposedBroker, other: ComposedBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.enqueue([new_job() for _ in range(3)])
    lost = claim(broker, "first")
    assert len(lost) == 3
    clock.advance(LEASE + 1)
    accepted: list[bool] = []
    at(monkeypatch, "composed.taken", lambda: accepted.extend(broker.settle([succeed(lost[1])])))
    again = claim(other, "second", lost_limit=5)
    assert accepted == [True]
    assert [record.id for record in again] == [lost[0].id, lost[2].id]
    assert [token_of(broker, record) for record in again] == [record.token for record in again]
    assert broker._queue.entries([lost[1].id]) == [None]


@pytest.mark.parametrize("at_most_once", [False, True], ids=["claimed", "ended"])
def test_many_suspects_cost_as_many_calls_as_one(
    broker: ComposedBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, at_most_once: bool
) -> None:
    calls: list[list[str]] = []
    for number in (1, 5):
        broker.enqueue([new_job(at_most_once=at_most_once) for _ in range(number)])
        assert len(claim(broker, "first")) == number
        clock.advance(LEASE + 1)
        calls.append([])
        monkeypatch.setattr(failpoints, "hook", calls[-1].append)
        again = claim(broker, "second", lost_limit=5)
        monkeypatch.setattr(failpoints, "hook", None)
        assert len(again) == (0 if at_most_once else number)
        assert all(broker.settle([succeed(record) for record in again]))
    assert calls[0] == calls[1]
    assert len(calls[0]) > 4
