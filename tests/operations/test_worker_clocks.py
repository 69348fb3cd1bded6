"""Reports of workers whose clock differs from the broker's."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.operations.running_jobs import running_now
from mrq_core.operations.workers import (
    DEAD,
    REPORT_TTL,
    STOPPED,
    WORKERS_NAMESPACE,
    find_worker,
    list_workers,
)
from mrq_core.testing import ManualClock, MemoryBroker
from tests.dashboard import scenes

DAY = 86_400.0
OFF = pytest.mark.parametrize("off", [-DAY, -60.0, 60.0, DAY])
"""Seconds by which the clock of the worker is ahead of the broker's."""


def report(broker: Broker, off: float, **fields: Any) -> None:
    """A worker of five hours reports now, by its own clock."""
    here = after(broker.now(), off)
    scenes.report(broker, started_at=after(here, -18_000), reported_at=here, **fields)


@OFF
@pytest.mark.parametrize("status", ["wait", STOPPED])
def test_the_times_of_a_report_are_by_the_clock_of_the_broker(
    each_broker: Broker, off: float, status: str
) -> None:
    before = each_broker.now()
    report(each_broker, off, status=status)
    [listed], found = list_workers(each_broker), find_worker(each_broker, scenes.WORKER)
    now = each_broker.now()
    assert found is not None
    assert found == listed
    a_bit = timedelta(seconds=1)
    assert before - a_bit <= found.reported_at <= now + a_bit
    assert found.reported_at - found.started_at == timedelta(hours=5)
    assert found.status == status


@OFF
def test_a_fresh_report_of_a_running_job_is_not_stale(each_broker: Broker, off: float) -> None:
    scenes.put(each_broker, "default")
    [record] = scenes.take(each_broker, "default")
    report(each_broker, off)
    running = running_now(each_broker, record, each_broker.now())
    assert running is not None
    assert not running.is_stale


def test_a_report_that_is_not_renewed_ages_by_the_clock_of_the_broker() -> None:
    clock = ManualClock()
    broker = MemoryBroker(clock=clock)
    at = broker.now()
    report(broker, -DAY)
    clock.advance(29)
    [silent] = list_workers(broker)
    assert (silent.reported_at, silent.status) == (at, "spawn")
    clock.advance(2)
    [dead] = list_workers(broker)
    assert (dead.reported_at, dead.status) == (at, DEAD)


def test_a_worker_whose_clock_was_set_back_started_when_it_reported() -> None:
    broker = MemoryBroker(clock=ManualClock())
    now = broker.now()
    scenes.report(broker, started_at=after(now, DAY), reported_at=now)
    [found] = list_workers(broker)
    assert found.started_at == found.reported_at == now


@pytest.mark.parametrize(
    ("started_at", "reported_at"),
    [
        ("2025-01-01T00:00:00", "2025-01-01T00:00:00"),
        ("2025-01-01T00:00:00", "2025-01-01T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "9999-12-31T00:00:00Z"),
    ],
)
def test_a_report_with_unusable_times_is_left_out(started_at: str, reported_at: str) -> None:
    broker = MemoryBroker()
    report(broker, 0.0)
    [item] = broker.state.list(WORKERS_NAMESPACE)
    assert isinstance(item.value, dict)
    value = {**item.value, "started_at": started_at, "reported_at": reported_at}
    broker.state.put(WORKERS_NAMESPACE, item.name, value, ttl=REPORT_TTL)
    assert list_workers(broker) == []
