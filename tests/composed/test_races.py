"""What happens between two calls of one process, when the queue is emptied in just that moment."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from mrq_core import failpoints
from mrq_core.composed import ComposedBroker
from mrq_core.job import JobRecord, Status
from mrq_core.messages import ClaimRef, ClaimRequest, NewJob, Wanted
from mrq_core.operations.mending import mend_all
from tests.composed.kit import Place
from tests.mongo.kit import new_job

LEASE = 60.0


@pytest.fixture
def broker(place: Place) -> Iterator[ComposedBroker]:
    broker = place.open()
    broker.prepare()
    yield broker
    broker.close()


@pytest.fixture
def other(place: Place) -> Iterator[ComposedBroker]:
    broker = place.open()
    yield broker
    broker.close()


def claim(broker: ComposedBroker, worker: str) -> tuple[JobRecord, ...]:
    request = ClaimRequest(worker=worker, wanted=(Wanted(name="q"),), limit=5, lease=LEASE)
    return broker.claim(request).records


def token_of(broker: ComposedBroker, record: JobRecord) -> str | None:
    """The claim that holds the job's entry."""
    [entry] = broker._queue.entries([record.id])
    assert entry is not None
    return entry.token


def at(monkeypatch: pytest.MonkeyPatch, name: str, act: Callable[[], None]) -> None:
    """Acts once, at the place of that name."""
    left = [act]

    def hook(reached: str) -> None:
        if reached == name and left:
            left.pop()()

    monkeypatch.setattr(failpoints, "hook", hook)


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
        assert [one for step in mend_all(other) for one in step.mended] == [job.record.id]

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
