"""What the embedded driver does about raw queues beside the contract: costs, waking, what is forgotten."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.contract.messages import RawItem, Wanted
from mrq_core.contract.record import Status
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.embedded.jobs.trees import MAX_STEPS
from mrq_core.embedded.raw import claiming
from mrq_core.errors import InvalidValue
from mrq_core.testing.clock import ManualClock
from tests.embedded.kit import after_connect, job, open_broker
from tests.embedded.recount import check_tables
from tests.embedded.test_cost import SLACK, Counter

LEASE = 60.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mrq.sqlite3"


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def counter() -> Counter:
    return Counter()


@pytest.fixture
def broker(path: Path, clock: ManualClock, counter: Counter) -> Iterator[EmbeddedBroker]:
    with closing(open_broker(path, clock=clock, connect=after_connect(counter.watch))) as broker:
        broker.prepare()
        yield broker
        check_tables(path)


def items(number: int, *, start: int = 0, score: float | None = None) -> list[RawItem]:
    return [RawItem(param=f"p{n}", score=score) for n in range(start, start + number)]


@pytest.mark.parametrize("name", ["m_raw", "m_set", "m_sorted_set", "m_timed_set"])
def test_a_long_raw_queue_does_not_slow_a_claim(
    broker: EmbeddedBroker, clock: ManualClock, counter: Counter, name: str
) -> None:
    raw = broker.raw(name)
    later = clock.now_ms() / 1000 + 100.0

    def cost() -> int:
        before = counter.counts
        assert len(raw.claim(10, LEASE, "w1")) == 10
        return counter.counts - before

    raw.push(items(100, score=1.0))
    few = cost()
    raw.push(items(20_000, start=100, score=later if name == "m_timed_set" else 2.0))
    assert cost() <= few * SLACK


@pytest.mark.parametrize("statement", [claiming._OVER, claiming._LINE])
def test_a_raw_claim_seeks_in_the_index_and_sorts_nothing(
    broker: EmbeddedBroker, path: Path, statement: str
) -> None:
    with closing(sqlite3.connect(path)) as connection:
        plan = [row[3] for row in connection.execute("EXPLAIN QUERY PLAN " + statement, ("q", 1, 1))]
    assert len(plan) == 1
    assert plan[0].startswith("SEARCH")


def test_a_waiter_is_told_of_parameters_and_of_ended_leases(
    broker: EmbeddedBroker, clock: ManualClock
) -> None:
    raw = broker.raw("m_raw/sub")
    assert not broker.wait(named("m_raw/", "m_raw/sub"), 0.0)
    raw.push(items(1))
    assert broker.wait(named("m_raw/"), 0.0)
    assert broker.wait(named("m_raw/sub"), 0.0)
    raw.claim(1, LEASE, "w1")
    assert not broker.wait(named("m_raw/"), 0.0)
    clock.advance(LEASE)
    assert broker.wait(named("m_raw/"), 0.0)


def test_a_waiter_is_told_when_a_timed_parameter_is_due(broker: EmbeddedBroker, clock: ManualClock) -> None:
    broker.raw("m_timed_set").push([RawItem(param="a", score=clock.now_ms() / 1000 + 1.0)])
    assert not broker.wait(named("m_timed_set"), 0.0)
    clock.advance(1.0)
    assert broker.wait(named("m_timed_set"), 0.0)


def test_a_score_at_the_end_of_time_is_not_due(broker: EmbeddedBroker) -> None:
    broker.raw("m_timed_set").push([RawItem(param="a", score=253_402_300_799)])
    assert not broker.wait(named("m_timed_set"), 0.0)
    assert broker.raw("m_timed_set").claim(1, LEASE, "w1") == []


def test_a_wait_for_a_tree_of_raw_queues_is_bounded(broker: EmbeddedBroker, counter: Counter) -> None:
    for number in range(2 * MAX_STEPS):
        broker.raw(f"m_raw/{number:05}").push(items(1))
    before = counter.counts
    assert broker.wait(named("m_raw/"), 0.0)
    assert counter.counts - before <= 20_000


def test_tokens_of_settled_claims_are_forgotten_in_time(
    broker: EmbeddedBroker, clock: ManualClock, path: Path
) -> None:
    raw = broker.raw("m_raw")
    raw.push(items(3))
    claims = raw.claim(3, LEASE, "w1")
    assert raw.settle(claims, [None] * 3) == [True] * 3
    clock.advance(claiming.REMEMBERED_MS / 1000)
    broker.prune()
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT count(*) FROM raw_settled").fetchone() == (0,)
    assert raw.settle(claims, [None] * 3) == [False] * 3


def test_an_admitted_claim_stays_admitted_when_its_job_was_requeued(
    broker: EmbeddedBroker, clock: ManualClock
) -> None:
    raw = broker.raw("m_raw")
    raw.push(items(1))
    [claim] = raw.claim(1, LEASE, "w1")
    pair = (claim, job("t/a", limit_keys=("k",)).record)
    assert raw.admit([pair, pair], LEASE) == [True, True]
    [record] = broker.get([claim.job_id])
    assert record is not None
    assert (record.status, record.queue, record.claims) == (Status.STARTED, "t/a", 1)
    assert "t/a" in broker.queue_names()
    assert broker.counts(["t/a"])[0].claimed == 1
    clock.advance(LEASE)
    assert raw.admit([pair], LEASE) == [True]
    assert raw.settle([claim], [None]) == [False]


def test_what_is_no_raw_queue_is_refused_in_words(broker: EmbeddedBroker) -> None:
    with pytest.raises(InvalidValue, match="which does not name a raw queue"):
        broker.raw("default")
    with pytest.raises(InvalidValue, match="for timed sets only"):
        broker.raw("m_set").claim(1, LEASE, "w1", pushback=5.0)


def named(*names: str) -> list[Wanted]:
    return [Wanted(name=name) for name in names]
