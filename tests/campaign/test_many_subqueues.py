"""A claim from a tree of 10,000 subqueues costs about as much as a claim from a tree of 10."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.contract.messages import ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.record import Status
from tests import brokers

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]

FEW, MANY = 10, 10_000
CLAIMS = 200
MOST = 3.0
"""How much longer a claim from many subqueues may take, with the noise of a busy machine."""


def seconds_of_a_claim(client: Client, tree: str, subqueues: int) -> float:
    """The median time of claims of ten jobs, while each subqueue holds jobs."""
    per_queue = max(1, -(-CLAIMS * 10 // subqueues))
    for start in range(0, subqueues, 1000):
        for number in range(start, min(start + 1000, subqueues)):
            client.queue_jobs("a.B", [{}] * per_queue, queue=f"{tree}{number}")
    request = ClaimRequest(worker="w", wanted=(Wanted(name=tree),), limit=10, lease=60.0)
    times = []
    for _ in range(CLAIMS - 20):
        began = time.perf_counter()
        claimed = client.broker.claim(request)
        times.append(time.perf_counter() - began)
        assert len(claimed.records) == 10
        done = Outcome(status=Status.SUCCESS, ttl=60.0)
        client.broker.settle(
            [Settlement(id=r.id, token=r.token or "", outcome=done) for r in claimed.records]
        )
    return statistics.median(times)


@pytest.mark.parametrize("name", brokers.NAMES)
def test_a_claim_from_many_subqueues_costs_what_one_from_few_costs(name: str, tmp_path: Path) -> None:
    broker, store = (*brokers.address_of(name, tmp_path), "")[:2]
    client = Client(load_config({"broker": broker, "store": store}, environ={}))
    try:
        client.broker.prepare()
        few = seconds_of_a_claim(client, "few/", FEW)
        many = seconds_of_a_claim(client, "many/", MANY)
        print(
            f"{name}: a claim of 10 jobs takes {few * 1000:.2f} ms from {FEW} subqueues and "
            f"{many * 1000:.2f} ms from {MANY:,}, {many / few:.1f} times as long"
        )
        assert many < MOST * few
    finally:
        client.close()
