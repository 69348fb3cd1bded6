"""What happens between two calls of one worker, when another one is quicker."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrq_core.contract.messages import ClaimRequest, Limit, Wanted
from mrq_core.contract.record import JobRecord
from mrq_core.testing import ManualClock
from tests.interleaving import at
from tests.redis.kit import Place
from tests.redis.test_connection import new_job

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
