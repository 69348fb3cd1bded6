"""Requests to a worker: what its answer, its silence and a broker that is away tell the caller."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from mrq_core.contract import rules
from mrq_core.contract.services import SharedState
from mrq_core.contract.shared_state import StateItem, Versions
from mrq_core.errors import BrokerUnavailable, InvalidValue, RequestFailed
from mrq_core.operations.requests import ANSWERS, CHUNK_SIZE, request_worker, send_request, store_answer
from mrq_core.operations.workers import WORKERS_NAMESPACE, WorkerReport, report_to_json
from mrq_core.testing.memory import MemoryBroker
from mrq_core.testing.memory.shared.state import MemoryState

NAME = "größe 'x'; --.1"


@pytest.fixture
def broker() -> Iterator[MemoryBroker]:
    broker = MemoryBroker()
    now = datetime.now(UTC)
    report = WorkerReport(
        name=NAME, host="h", pid=1, status="wait", queues=("q",), greenlets=1, started_at=now,
        reported_at=now, jobs={}, running=(), unsettled=0, memory=0, cpu_time=0.0, version="1",
    )  # fmt: skip
    broker.state.put(WORKERS_NAMESPACE, NAME, report_to_json(report))
    yield broker
    broker.close()


def answered(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, state: str, text: str) -> None:
    """Lets a worker answer while the caller sleeps."""

    def answer(seconds: float) -> None:
        for request in broker.poll(NAME, Versions()).requests:
            store_answer(broker, request.id, state, text)

    monkeypatch.setattr(
        "mrq_core.operations.requests.time", SimpleNamespace(monotonic=time.monotonic, sleep=answer)
    )


@pytest.mark.parametrize("length", [0, 1, CHUNK_SIZE, CHUNK_SIZE + 1, 5 * CHUNK_SIZE])
def test_an_answer_of_any_length_comes_whole(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch, length: int
) -> None:
    text = ("größe\n" * length)[:length]
    answered(broker, monkeypatch, "done", text)
    assert request_worker(broker, NAME, "stack") == text
    sizes = [len(str(item.value)) for item in broker.state.list(ANSWERS)]
    assert max(sizes) <= CHUNK_SIZE


def test_a_refusal_is_told(broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch) -> None:
    answered(broker, monkeypatch, "refused", "no")
    with pytest.raises(RequestFailed, match="refuses the request profile: no"):
        request_worker(broker, NAME, "profile")


def test_a_worker_that_ends_after_it_has_accepted_is_told(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def accept(seconds: float) -> None:
        for request in broker.poll(NAME, Versions()).requests:
            broker.state.compare_and_set(ANSWERS, request.id, {"state": "accepted"}, version=0)

    monkeypatch.setattr(
        "mrq_core.operations.requests.time", SimpleNamespace(monotonic=time.monotonic, sleep=accept)
    )
    with pytest.raises(RequestFailed, match="has accepted the request stack, and ended before it answered"):
        request_worker(broker, NAME, "stack", ttl=0.05)


def test_a_broker_that_is_away_for_a_moment_loses_no_answer(
    broker: MemoryBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered(broker, monkeypatch, "done", "text")
    failures = [BrokerUnavailable("away")] * 3
    get = MemoryState.get

    def away(self: SharedState, namespace: str, name: str) -> StateItem | None:
        if namespace == ANSWERS and failures:
            raise failures.pop()
        return get(self, namespace, name)  # type: ignore[arg-type]

    monkeypatch.setattr(MemoryState, "get", away)
    assert request_worker(broker, NAME, "stack") == "text"
    assert failures == []


def test_requests_of_several_people_are_all_sent_up_to_twenty(broker: MemoryBroker) -> None:
    sent = [send_request(broker, NAME, "stack", {"n": number}) for number in range(20)]
    assert list(broker.poll(NAME, Versions()).requests) == sent
    with pytest.raises(RequestFailed, match="20 requests to worker"):
        send_request(broker, NAME, "stack")
    broker.state.delete(rules.REQUESTS, [NAME])
    send_request(broker, NAME, "stack")


@pytest.mark.parametrize(
    ("kind", "ttl", "text"),
    [
        ("dance", 1.0, "kind is 'dance'"),
        ("stop", 0.0, "ttl is 0"),
        ("stop", 1e9, "ttl is"),
        ("stop", -1.0, "ttl is -1"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(
    broker: MemoryBroker, kind: str, ttl: float, text: str
) -> None:
    with pytest.raises(InvalidValue, match=text):
        send_request(broker, NAME, kind, ttl=ttl)


def test_an_answer_may_have_names_that_utf8_cannot_hold(broker: MemoryBroker) -> None:
    store_answer(broker, "r1", "done", "/tmp/bad\udcff/tasks.py:5 wait")
    item = broker.state.get(ANSWERS, "r1.0")
    assert item is not None
    assert item.value == "/tmp/bad\\udcff/tasks.py:5 wait"
