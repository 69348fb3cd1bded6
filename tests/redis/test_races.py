"""What happens between two calls of one worker: another one is quicker, or the server is away."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace
from redis import exceptions

from mrq_broker_redis.broker import RedisBroker
from mrq_core.contract.messages import Claimed, ClaimRequest, Limit, Wanted
from mrq_core.contract.record import JobRecord
from mrq_core.testing import ManualClock
from tests.interleaving import at
from tests.redis.kit import Place
from tests.redis.servers import Server
from tests.redis.test_connection import new_job, success

LEASE = 60.0


def test_two_suspects_under_one_limit_are_not_claimed_at_once(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    broker, other = place.open(clock), place.open(clock)

    def claim_from(name: str, *, of: str, concurrency: int) -> tuple[JobRecord, ...]:
        request = ClaimRequest(
            worker=of,
            wanted=(Wanted(name=name),),
            limit=5,
            lease=LEASE,
            limits={"slow": Limit(concurrency=concurrency)},
        )
        return (broker if of == "second" else other).claim(request).records

    for name in ("q", "r"):
        job = new_job(name)
        broker.enqueue([replace(job, record=replace(job.record, limit_keys=("slow",)))])
    assert [len(claim_from(name, of="first", concurrency=2)) for name in ("q", "r")] == [1, 1]
    clock.advance(LEASE + 1)
    quicker: list[JobRecord] = []
    at(monkeypatch, "claim.after", lambda: quicker.extend(claim_from("r", of="third", concurrency=1)))
    assert claim_from("q", of="second", concurrency=1) == ()
    assert [record.queue for record in quicker] == ["r"]
    broker.close()
    other.close()


def test_suspects_that_are_claimed_are_not_lost_with_the_rest_of_the_claim(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ManualClock()
    broker = place.open(clock)
    broker.enqueue([new_job(), new_job()])
    lost = claim(broker, limit=2)
    assert len(lost.records) == 2
    clock.advance(LEASE + 1)
    broker.enqueue([new_job()])

    def fail() -> None:
        raise exceptions.ConnectionError("the server is away")

    at(monkeypatch, "replace.after", lambda: at(monkeypatch, "claim.before", fail))
    answer = claim(broker, limit=2)
    assert [record.id for record in answer.records] == [lost.records[0].id]
    assert answer.next_due == answer.now
    assert len(claim(broker, limit=5).records) == 2
    broker.close()


def test_the_count_of_an_earlier_version_keeps_no_worker_busy(place: Place, server: Server) -> None:
    """`L` of an earlier version counts other losses, and may be larger than the number that ends a job."""
    clock = ManualClock()
    broker = place.open(clock)
    limits = {"slow": Limit(concurrency=1)}

    def put() -> str:
        job = new_job()
        return broker.enqueue([replace(job, record=replace(job.record, limit_keys=("slow",)))])[0].id

    suspect = put()
    assert len(claim(broker, limit=1, limits=limits).records) == 1
    clock.advance(LEASE + 1)
    running = put()
    [taken] = claim(broker, limit=1, limits=limits, lost_limit=0).records
    assert taken.id == running
    with server.client() as client:
        assert client.hset(f"{{{place.prefix}}}:j:{suspect}", "L", "50") == 1
    answer = claim(broker, limit=5, limits=limits)
    assert answer.records == answer.ended == ()
    assert answer.next_due is not None
    assert answer.next_due > answer.now
    broker.close()


def claim(broker: RedisBroker, *, limit: int, **more: Any) -> Claimed:
    request = ClaimRequest(worker="w", wanted=(Wanted(name="q"),), limit=limit, lease=LEASE, **more)
    return broker.claim(request)


def test_a_time_of_an_earlier_version_is_cut(place: Place, server: Server) -> None:
    clock = ManualClock()
    broker = place.open(clock)
    jobs = [new_job() for _ in range(2)]
    broker.enqueue([replace(job, record=replace(job.record, limit_keys=("k",))) for job in jobs])
    with server.client() as client:  # the earlier version stored no spacing
        hours_ahead = (clock.now_ms() + 3 * 3_600_000) * 1000
        client.zadd("{" + place.prefix + "}:rates", {"k": hours_ahead})
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
    broker.close()
