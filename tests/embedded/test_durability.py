"""What is on the disk when a call returns, and what a waiter is woken by."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.contract.messages import RawItem, Wanted
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.testing.clock import ManualClock
from tests.embedded.kit import after_connect, claim, job, open_broker, succeed


@pytest.fixture
def statements() -> list[str]:
    return []


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def broker(tmp_path: Path, statements: list[str], clock: ManualClock) -> Iterator[EmbeddedBroker]:
    def trace(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(statements.append)

    path = tmp_path / "mrq.sqlite3"
    with closing(open_broker(path, connect=after_connect(trace), clock=clock)) as broker:
        broker.prepare()
        yield broker


def levels(statements: list[str]) -> list[str]:
    """The levels of durability of the transactions since the last look."""
    found = [text.rpartition(" ")[2] for text in statements if text.startswith("PRAGMA synchronous")]
    statements.clear()
    return found


def test_an_enqueue_is_on_the_disk_when_it_returns(broker: EmbeddedBroker, statements: list[str]) -> None:
    levels(statements)
    broker.enqueue([job()])
    assert levels(statements) == ["FULL"]


def test_claim_and_settle_do_not_wait_for_the_disk(broker: EmbeddedBroker, statements: list[str]) -> None:
    broker.enqueue([job()])
    levels(statements)
    broker.settle([succeed(record) for record in claim(broker).records])
    assert levels(statements) == ["NORMAL", "NORMAL"]


def test_the_claim_of_an_at_most_once_job_is_on_the_disk_when_it_returns(
    broker: EmbeddedBroker, statements: list[str]
) -> None:
    broker.enqueue([job(at_most_once=True)])
    levels(statements)
    assert len(claim(broker).records) == 1
    assert levels(statements) == ["NORMAL", "FULL"]


def test_a_pushed_parameter_is_on_the_disk_when_it_returns(
    broker: EmbeddedBroker, statements: list[str]
) -> None:
    urls = broker.raw("urls_set")
    levels(statements)
    urls.push([RawItem(param="a")])
    [claim] = urls.claim(1, 60.0, "w1")
    assert urls.settle([claim], [None]) == [True]
    assert levels(statements) == ["FULL", "NORMAL", "NORMAL"]


def test_a_lease_that_ends_wakes_a_waiter_once_and_not_for_ever(
    broker: EmbeddedBroker, clock: ManualClock
) -> None:
    broker.enqueue([job()])
    claim(broker, lease=60.0)
    woken: list[bool] = []
    waiter = threading.Thread(target=lambda: woken.append(broker.wait([Wanted(name="q")], 30.0)))
    waiter.start()
    while not waiter_has_looked(broker):
        pass
    clock.advance(60.0)
    waiter.join(10.0)
    assert woken == [True]
    assert not broker.wait([Wanted(name="q")], 0.0)


def waiter_has_looked(broker: EmbeddedBroker) -> bool:
    """Whether the waiter has taken the only idle connection, and with it the time at which it began."""
    return not broker._database._pool.idle
