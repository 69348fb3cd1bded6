"""What happens between two calls of one claim: another worker is quicker, or the server is away."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from typing import Any

import pytest
from pymongo.errors import AutoReconnect

from mrq_broker_mongo.broker import MongoBroker
from mrq_core import failpoints
from mrq_core.contract.messages import Claimed, ClaimRequest, Limit, Wanted
from mrq_core.contract.record import JobRecord
from mrq_core.testing import ManualClock
from tests.interleaving import at
from tests.mongo.kit import Place, new_job, success

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


def claim(
    broker: MongoBroker, worker: str, *, limit: int = 5, lease: float = LEASE, queue: str = "q", **more: Any
) -> Claimed:
    request = ClaimRequest(
        worker=worker, wanted=(Wanted(name=queue),), limit=limit, lease=lease, limits=LIMITS, **more
    )
    return broker.claim(request)


@pytest.mark.parametrize("lease", [LEASE, LEASE + 5])
def test_the_slots_of_a_suspect_that_another_worker_has_claimed_are_not_given_back(
    broker: MongoBroker, other: MongoBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, lease: float
) -> None:
    [suspect] = [answer.id for answer in broker.enqueue([new_job(limit_keys=("slow",))])]
    assert len(claim(broker, "first").records) == 1
    clock.advance(LEASE + 1)
    broker.enqueue([new_job(limit_keys=("slow",))])
    quicker: list[JobRecord] = []

    def be_quicker() -> None:
        quicker.extend(claim(other, "third", limit=1, lease=lease).records)

    at(monkeypatch, "limits.after", be_quicker)
    assert claim(broker, "second").records == ()
    assert [record.id for record in quicker] == [suspect]
    assert claim(other, "fourth").records == ()


@pytest.mark.parametrize("place_of_second", range(1, 11))
def test_the_slot_of_a_lost_job_is_taken_once(
    place: Place, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, place_of_second: int
) -> None:
    """At one place of a claim that takes a lost job a second worker claims, and a third at one place of that
    claim."""
    with ExitStack() as stack:
        brokers = [stack.enter_context(closing(place.open(clock))) for _ in range(3)]
        brokers[0].prepare()
        for place_of_third in range(1, 11):
            queue, key = f"q{place_of_third}", f"slow:{place_of_third}"
            brokers[0].enqueue([new_job(queue=queue, limit_keys=(key,))])
            assert len(claim(brokers[0], "lost", queue=queue).records) == 1
            clock.advance(LEASE + 1)
            brokers[0].enqueue([new_job(queue=queue, limit_keys=(key,)) for _ in range(3)])
            taken = claim_inside(monkeypatch, brokers, [place_of_second, place_of_third], queue)
            for _ in range(3):
                assert len(taken) <= 1, place_of_third
                clock.advance(2)
                taken += claim(brokers[0], "last", queue=queue).records
            assert len(taken) == 1, place_of_third


def claim_inside(
    monkeypatch: pytest.MonkeyPatch, brokers: Sequence[MongoBroker], places: Sequence[int], queue: str
) -> list[JobRecord]:
    """What claims of these brokers take, each inside the claim before: at the failpoint of this number."""
    taken: list[JobRecord] = []
    depth = 0
    left = list(places)

    def interleave(_point: str) -> None:
        nonlocal depth
        if depth <= len(left):
            left[depth - 1] -= 1
            if left[depth - 1] == 0:
                take()

    def take() -> None:
        nonlocal depth
        depth += 1
        taken.extend(claim(brokers[depth - 1], f"worker {depth}", limit=2, queue=queue).records)
        depth -= 1

    with monkeypatch.context() as patch:
        patch.setattr(failpoints, "hook", interleave)
        take()
    return taken


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


def test_a_time_of_an_earlier_version_is_cut(broker: MongoBroker, clock: ManualClock) -> None:
    jobs = [new_job(limit_keys=("k",)) for _ in range(2)]
    broker.enqueue(jobs)
    hours_ahead = (clock.now_ms() + 3 * 3_600_000) * 1000
    broker._connection.run(  # the earlier version stored no spacing
        "limits", lambda limits: limits.insert_one({"_id": "k", "even_at": hours_ahead})
    )
    request = ClaimRequest(
        worker="w",
        wanted=(Wanted(name="q"),),
        limit=5,
        lease=LEASE,
        limits={"k": Limit(rate=1, per=100.0)},
    )
    starts = []
    for second in range(201):
        records = broker.claim(request).records
        starts += [(record.id, second) for record in records]
        assert all(broker.settle([success(record) for record in records]))
        clock.advance(1)
    assert starts == [(jobs[0].record.id, 100), (jobs[1].record.id, 200)]
