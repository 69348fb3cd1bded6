"""What happens between two calls of one claim: another worker is quicker, or the server is away."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from mrq_broker_mongo.broker import MongoBroker
from mrq_core import failpoints
from mrq_core.contract.messages import Claimed, ClaimRequest, Limit, Wanted
from mrq_core.contract.record import JobRecord
from mrq_core.testing import ManualClock
from tests.interleaving import at
from tests.mongo.kit import Place, new_job

LEASE = 60.0
LIMITS = {"slow": Limit(concurrency=1)}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(place: Place, clock: ManualClock) -> Iterator[MongoBroker]:
    broker = place.open(clock)
    broker.prepare()
    yield broker
    broker.close()


@pytest.fixture
def other(place: Place, clock: ManualClock) -> Iterator[MongoBroker]:
    broker = place.open(clock)
    yield broker
    broker.close()


def claim(broker: MongoBroker, worker: str, *, limit: int = 5, lease: float = LEASE, **more: Any) -> Claimed:
    request = ClaimRequest(
        worker=worker, wanted=(Wanted(name="q"),), limit=limit, lease=lease, limits=LIMITS, **more
    )
    return broker.claim(request)


def test_the_slots_of_a_suspect_that_another_worker_has_claimed_are_not_given_back(
    broker: MongoBroker, other: MongoBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    [suspect] = [answer.id for answer in broker.enqueue([new_job(limit_keys=("slow",))])]
    assert len(claim(broker, "first").records) == 1
    clock.advance(LEASE + 1)
    broker.enqueue([new_job(limit_keys=("slow",))])
    quicker: list[JobRecord] = []

    def be_quicker() -> None:
        quicker.extend(claim(other, "third", limit=1, lease=LEASE + 5).records)

    at(monkeypatch, "limits.after", be_quicker)
    assert claim(broker, "second").records == ()
    assert [record.id for record in quicker] == [suspect]
    assert claim(other, "fourth").records == ()


def test_jobs_that_are_claimed_are_not_lost_with_the_last_part_of_the_claim(
    broker: MongoBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.enqueue([new_job() for _ in range(2)])
    lost = claim(broker, "first").records
    assert len(lost) == 2
    clock.advance(LEASE + 1)
    [waiting] = [answer.id for answer in broker.enqueue([new_job()])]
    seen: list[str] = []

    def fail_after_the_waiting_job(point: str) -> None:
        """Behind the totals of the waiting job, and the search for parked jobs."""
        seen.append(point)
        if "totals.after" in seen and seen[seen.index("totals.after") :].count("jobs.before") > 1:
            raise AutoReconnect("the server is away")

    monkeypatch.setattr(failpoints, "hook", fail_after_the_waiting_job)
    answer = claim(broker, "second")
    monkeypatch.setattr(failpoints, "hook", None)
    assert [record.id for record in answer.records] == [lost[0].id, waiting]
    assert answer.next_due == answer.now
    assert [record.id for record in claim(broker, "second").records] == [lost[1].id]
