"""The load of queues, and the workers that they need."""

from __future__ import annotations

import math
from datetime import datetime

import msgspec
import pytest
from msgspec.structs import replace

from mrq_core.client.client import Client
from mrq_core.clock import after
from mrq_core.config.settings import Config
from mrq_core.contract.messages import ClaimRequest, Wanted
from mrq_core.contract.metrics import ENDED, LOST, OVERFLOW, STARTED, UNFINISHED, Metric, measured
from mrq_core.errors import InvalidValue
from mrq_core.operations.statistics import DayMeasurements, QueueStatistics, queue_statistics, workers_needed
from mrq_core.operations.workers import WORKERS_NAMESPACE, WorkerReport, report_to_json
from mrq_core.testing import ManualClock, MemoryBroker
from mrq_core.testing.conformance.base import new_job

MINUTE = 60.0


@pytest.fixture
def clock() -> ManualClock:
    clock = ManualClock()
    clock.advance(MINUTE - clock.now_ms() % 60_000 / 1000)  # a minute begins
    return clock


@pytest.fixture
def broker(clock: ManualClock) -> MemoryBroker:
    return MemoryBroker(clock=clock)


def enqueue(
    broker: MemoryBroker, clock: ManualClock, queue: str, number: int, delay: float | None = None
) -> None:
    broker.enqueue([new_job(clock, queue, delay=delay) for _ in range(number)])


def ended(queue: str, at: datetime, *values: float, status: str = "success", task: str = "a.B") -> Metric:
    return measured(ENDED, at, (("queue", queue), ("status", status), ("task", task)), values)


def sampled(queue: str, at: datetime, *sizes: int) -> Metric:
    return Metric(name=UNFINISHED, at=at, tags=(("queue", queue),), count=len(sizes), total=sum(sizes))


def report(
    broker: MemoryBroker, name: str, queues: tuple[str, ...], greenlets: int, status: str = "wait"
) -> None:
    now = broker.now()
    told = WorkerReport(
        name=name, host="h", pid=1, status=status, queues=queues, greenlets=greenlets, started_at=now,
        reported_at=now, jobs={}, running=(), unsettled=0, memory=1, cpu_time=0.0, version="1",
    )  # fmt: skip
    broker.state.put(WORKERS_NAMESPACE, name, report_to_json(told))


def of(broker: MemoryBroker, name: str, **more: float) -> QueueStatistics:
    [found] = queue_statistics(broker, [name], **more)  # type: ignore[arg-type]
    return found


def test_what_waits_and_for_how_long(broker: MemoryBroker, clock: ManualClock) -> None:
    enqueue(broker, clock, "q", 3)
    enqueue(broker, clock, "q", 1, delay=1000.0)
    clock.advance(20)
    broker.claim(ClaimRequest(worker="w", wanted=(Wanted(name="q"),), limit=1, lease=60))
    found = of(broker, "q")
    assert (found.waiting, found.due, found.claimed, found.oldest_age) == (3, 2, 1, 20.0)
    assert (found.service_rate, found.arrival_rate, found.run_time, found.waiting_time) == (
        0.0,
        None,
        None,
        None,
    )
    assert found.workers_needed is None  # nothing ran yet, so no one knows how long jobs take


def test_a_queue_without_jobs_needs_no_workers(broker: MemoryBroker) -> None:
    found = of(broker, "none")
    assert (found.due, found.oldest_age, found.workers_needed, found.ended) == (0, None, 0, {})
    assert queue_statistics(broker) == []


def test_rates_and_percentiles_are_of_the_last_five_minutes(broker: MemoryBroker, clock: ManualClock) -> None:
    now = clock.now()
    broker.record_metrics(
        [
            ended("q", after(now, -301), *[100.0] * 50),
            ended("q", after(now, -299), *[1.0] * 270),
            ended("q", after(now, -10), *[4.0] * 20, status="failed"),
            ended("q", after(now, -10), *[4.0] * 10, status="retry"),
            ended("other", now, 9.0),
            measured(STARTED, now, (("queue", "q"), ("task", "a.B")), [0.5] * 3),
            Metric(name=LOST, at=now, tags=(("queue", "q"), ("task", "a.B")), count=2),
            Metric(name=ENDED, at=now, tags=OVERFLOW),
        ]
    )
    found = of(broker, "q")
    assert found.ended == {"success": 270, "failed": 20, "retry": 10}
    assert found.service_rate == pytest.approx(290 / 300)
    assert found.run_time is not None
    assert found.waiting_time is not None
    assert found.run_time.mean == pytest.approx((270 + 120) / 300)
    assert found.run_time.p50 == pytest.approx(1.0, rel=0.09)
    assert found.run_time.p95 == pytest.approx(4.0, rel=0.09)
    assert found.waiting_time.p99 == pytest.approx(0.5, rel=0.09)
    assert found.lost_claims == 2


def test_jobs_arrive_as_fast_as_they_end_and_as_their_number_grows(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    """100 unfinished jobs in the minute that began four minutes ago, 40 now, and 200 ended since."""
    now = clock.now()
    enqueue(broker, clock, "q", 40)
    broker.record_metrics(
        [
            sampled("q", after(now, -240), 90, 110),
            sampled("q", after(now, -60), 1000),
            ended("q", after(now, -230), *[1.0] * 40),  # half of them after the sample
            ended("q", after(now, -100), *[1.0] * 180),
            ended("q", after(now, -100), *[1.0] * 99, status="retry"),
            ended("q", after(now, -290), *[1.0] * 500),
        ]
    )
    assert of(broker, "q").arrival_rate == pytest.approx((20 + 180 - 60) / 210)


def test_a_single_fresh_sample_tells_no_rate_and_removed_jobs_are_no_negative_one(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    broker.record_metrics([sampled("q", clock.now(), 5), sampled("r", after(clock.now(), -120), 50)])
    assert of(broker, "q").arrival_rate is None
    assert of(broker, "r").arrival_rate == 0.0


def test_the_workers_needed_run_the_due_jobs_and_those_that_come_meanwhile(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    assert workers_needed(due=600, arrival_rate=3.0, run_time=2.0, empty_in=300, greenlets=1) == 10
    assert workers_needed(due=600, arrival_rate=3.0, run_time=2.0, empty_in=300, greenlets=4) == 3
    assert workers_needed(due=1, arrival_rate=0.0, run_time=0.0, empty_in=300, greenlets=4) == 1
    assert workers_needed(due=0, arrival_rate=0.0, run_time=None, empty_in=300, greenlets=4) == 0
    enqueue(broker, clock, "q", 600)
    broker.record_metrics([ended("q", clock.now(), *[2.0] * 10)])
    assert of(broker, "q", empty_in=60.0).workers_needed == 20
    assert of(broker, "q", empty_in=60.0, greenlets=10).workers_needed == 2
    report(broker, "anna", ("q",), 4)
    report(broker, "ben", ("q", "r"), 6)
    report(broker, "cleo", ("r",), 100)
    found = of(broker, "q", empty_in=60.0)
    assert (found.workers, found.greenlets, found.workers_needed) == (2, 10, 4)


def test_the_run_time_of_the_day_counts_where_nothing_ended_lately(
    broker: MemoryBroker, clock: ManualClock
) -> None:
    enqueue(broker, clock, "q", 10)
    broker.record_metrics([ended("q", after(clock.now(), -8 * 3600), 30.0)])
    found = of(broker, "q", empty_in=100.0)
    assert (found.service_rate, found.workers_needed) == (0.0, 3)
    assert found.run_time is not None
    assert found.run_time.mean == 30.0


def test_a_process_that_asks_often_reads_the_day_once_a_minute(
    broker: MemoryBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueue(broker, clock, "q", 1)
    day = DayMeasurements()
    for kept, mean in ((60.0, None), (60.0, None), (0.0, 30.0)):
        monkeypatch.setattr(DayMeasurements, "KEPT", kept)
        [found] = queue_statistics(broker, ["q"], day=day)
        assert (found.run_time.mean if found.run_time else None) == mean
        broker.record_metrics([ended("q", after(clock.now(), -8 * 3600), 30.0)])


def test_the_greenlets_in_use_are_those_of_its_workers(broker: MemoryBroker) -> None:
    assert of(broker, "q").usage is None
    for name, greenlets, usage in (("a", 30, 1.0), ("b", 10, 0.2)):
        report(broker, name, ("q",), greenlets)
        item = broker.state.get(WORKERS_NAMESPACE, name)
        assert item is not None
        assert isinstance(item.value, dict)
        broker.state.put(WORKERS_NAMESPACE, name, {**item.value, "usage": usage})
    assert of(broker, "q").usage == pytest.approx(0.8)


def test_a_queue_is_empty_when_more_jobs_go_than_come() -> None:
    now = {
        "waiting": 10,
        "due": 10,
        "claimed": 0,
        "oldest_age": 1.0,
        "lost_claims": 0,
        "workers": 1,
        "greenlets": 1,
    }
    none: dict[str, object] = {"waiting_time": None, "run_time": None, "ended": {}, "workers_needed": None}
    for arrival_rate, service_rate, seconds in (
        (1.0, 3.0, 5.0),
        (3.0, 1.0, None),
        (1.0, 1.0, None),
        (None, 2.0, 5.0),
    ):
        rates = {"arrival_rate": arrival_rate, "service_rate": service_rate}
        made = msgspec.convert({"name": "q", **rates, **now, **none}, QueueStatistics)
        assert made.time_to_empty == seconds
        assert replace(made, due=0).time_to_empty == 0.0


def test_a_tree_is_the_sum_of_its_subqueues(broker: MemoryBroker, clock: ManualClock) -> None:
    now = clock.now()
    for queue in ("mail/a", "mail/b", "mails", "mail"):
        enqueue(broker, clock, queue, 2)
    broker.record_metrics([ended(queue, now, 1.0) for queue in ("mail/a", "mail/b", "mails", "mail")])
    broker.record_metrics([sampled(queue, after(now, -150), 1) for queue in ("mail/a", "mails")])
    report(broker, "anna", ("mail/",), 1)
    report(broker, "ben", ("mail/b",), 1)
    found = of(broker, "mail/")
    assert (found.name, found.due, found.ended, found.workers) == ("mail/", 4, {"success": 2}, 2)
    assert found.arrival_rate == pytest.approx((1 + 1) / 150)
    assert [one.name for one in queue_statistics(broker)] == ["mail", "mail/a", "mail/b", "mails"]
    assert of(broker, "mail/a").workers == 1


def test_above_ten_thousand_all_waiting_jobs_count(
    broker: MemoryBroker, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mrq_core.operations.statistics._DUE_MOST", 10)
    enqueue(broker, clock, "q", 12)
    enqueue(broker, clock, "q", 1, delay=60.0)
    assert of(broker, "q").due == 13


@pytest.mark.parametrize("empty_in", [0.0, -1.0, math.nan, math.inf])
def test_a_time_that_is_none_is_refused(broker: MemoryBroker, empty_in: float) -> None:
    with pytest.raises(InvalidValue, match="empty_in"):
        queue_statistics(broker, empty_in=empty_in)
    with pytest.raises(InvalidValue, match="queue is ''"):
        queue_statistics(broker, [""])


def test_a_job_waits_from_its_due_time(broker: MemoryBroker) -> None:
    client = Client(Config(), broker=broker)
    ids = [client.queue_job("a.B"), client.queue_job("a.B", delay=60), client.queue_job("a.B", delay=0)]
    ids.append(client.queue_job("a.B", at=after(broker.now(), 90)))
    now, later, at_once, fixed = (record for record in broker.get(ids) if record is not None)
    assert now.waits_from is at_once.waits_from is None
    assert later.waits_from == after(later.queued_at, 60)
    assert fixed.waits_from == fixed.due_at


@pytest.mark.parametrize("status", ["join", "kill", "stop", "dead"])
def test_a_worker_that_stops_serves_no_queue(status: str, broker: MemoryBroker, clock: ManualClock) -> None:
    enqueue(broker, clock, "q", 3)
    report(broker, "works", ("q",), 5, status="full")
    report(broker, "ends", ("q",), 7, status=status)
    found = of(broker, "q")
    assert (found.workers, found.greenlets) == (1, 5)
