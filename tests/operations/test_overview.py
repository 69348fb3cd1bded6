"""The overview and series of metrics, on each broker."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import ClaimRequest, Wanted
from mrq_core.contract.metrics import ENDED, OVERFLOW, STARTED, Metric, Resolution, measured
from mrq_core.contract.record import Status
from mrq_core.errors import InvalidValue
from mrq_core.operations.explaining.reasons import ReasonKind
from mrq_core.operations.measures import overview as overview_module
from mrq_core.operations.measures.overview import overview, stuck_queues
from mrq_core.operations.measures.series import series
from mrq_core.operations.measures.slots import SlotHistory
from mrq_core.operations.queues import all_counts
from mrq_core.operations.views import struct_view
from mrq_core.operations.workers import WORKERS_NAMESPACE, WorkerReport, report_to_json
from mrq_core.testing import ManualClock, MemoryBroker
from mrq_core.testing.conformance.base import bring_to, put, put_many
from tests.operations.test_search import CLOCK


def ended(
    at: datetime, *values: float, queue: str = "q", status: str = "success", task: str = "a.B"
) -> Metric:
    return measured(ENDED, at, (("queue", queue), ("status", status), ("task", task)), values)


def started(at: datetime, *values: float, queue: str = "q") -> Metric:
    return measured(STARTED, at, (("queue", queue), ("task", "a.B")), values)


def report(broker: Broker, name: str, status: str, queues: tuple[str, ...], running: int = 0) -> None:
    now = broker.now()
    told = WorkerReport(
        name=name, host="h", pid=1, status=status, queues=queues, greenlets=10, started_at=now,
        reported_at=now, jobs={}, running=(), running_jobs=running, unsettled=0, memory=1, cpu_time=0.0,
        version="1",
    )  # fmt: skip
    broker.state.put(WORKERS_NAMESPACE, name, report_to_json(told))


def minute(broker: Broker) -> datetime:
    """The beginning of the last minute that is over."""
    return after(Resolution.MINUTE.start_of(broker.now()), -60)


def test_the_overview_of_an_hour(each_broker: Broker) -> None:
    last = minute(each_broker)
    each_broker.record_metrics(
        [
            ended(last, *[2.0] * 8),
            ended(last, 2.0, status="failed"),
            ended(last, 2.0, status="retry"),
            ended(after(last, -600), 1.0, queue="mail"),
            ended(after(last, -3600), *[9.0] * 99),
            started(last, 0.5, 0.5),
            Metric(name=ENDED, at=last, tags=(*OVERFLOW, ("status", "success")), count=2),
        ]
    )
    bring_to(each_broker, CLOCK, Status.FAILED)
    put_many(each_broker, CLOCK, 3, "mail")
    report(each_broker, "anna", "full", ("q",), 10)
    report(each_broker, "ben", "wait", ("q",), 2)
    report(each_broker, "old", "stop", ("q",), 5)
    found = overview(each_broker)
    index = [rate.at for rate in found.rates].index(last)
    assert len(found.rates) == len(found.run_time) == len(found.waiting_time) == 60
    assert (found.rates[index].ended, found.rates[index].failed) == (11, 1)
    assert sum(rate.ended for rate in found.rates) == 12
    assert found.run_time[index].p50 == pytest.approx(2.0, rel=0.09)
    assert found.waiting_time[index].mean == pytest.approx(0.5)
    assert found.waiting_time[index - 1].p95 is None
    assert dict(found.numbers) == {Status.FAILED: 1, Status.QUEUED: 3}
    assert (found.due, found.oldest_queue) == (3, "mail")
    assert (found.busy, found.greenlets, found.usage) == (12, 20, 0.6)
    assert dict(found.workers) == {"full": 1, "wait": 1, "stop": 1}
    assert [(line.queue, line.number) for line in found.sparklines] == [("q", 9), ("mail", 1)]
    assert found.sparklines[0].ended[index] == 9
    assert found.stuck == ()
    assert struct_view(found)["numbers"] == {"failed": 1, "queued": 3}


def test_hours_are_shown_if_asked(each_broker: Broker) -> None:
    now = Resolution.HOUR.start_of(each_broker.now())
    each_broker.record_metrics([ended(after(now, -71 * 3600), 1.0), ended(after(now, -72 * 3600), 1.0)])
    found = overview(each_broker, resolution=Resolution.HOUR, number=72)
    assert (len(found.rates), found.rates[0].ended, found.rates[0].at) == (72, 1, after(now, -71 * 3600))


@pytest.mark.parametrize("number", [0, 1441])
def test_the_number_is_bounded(each_broker: Broker, number: int) -> None:
    with pytest.raises(InvalidValue, match="number is"):
        overview(each_broker, number=number)


def test_a_series_has_a_point_for_each_minute(each_broker: Broker) -> None:
    last = minute(each_broker)
    each_broker.record_metrics(
        [ended(last, 1.0, 1.0), ended(last, 4.0, queue="mail/a", task="a.C"), ended(after(last, -120), 1.0)]
    )

    def counts(**more: Any) -> list[int]:
        found = series(each_broker, ENDED, since=after(last, -120), until=after(last, 60), **more)
        assert [point.at for point in found] == [after(last, -120), after(last, -60), last]
        return [point.count for point in found]

    assert counts() == [1, 0, 3]
    assert counts(queue="mail/") == [0, 0, 1]
    assert counts(task="a.B") == [1, 0, 2]
    assert counts(queue="q", task="a.C") == [0, 0, 0]
    [point] = series(each_broker, ENDED, queue="q", since=last, until=after(last, 60))
    assert point.rate == pytest.approx(2 / 60)
    assert point.mean == 1.0
    [hour] = series(each_broker, ENDED, since=last, until=after(last, 1), resolution=Resolution.HOUR)
    assert hour.count >= 3
    assert series(each_broker, ENDED, since=last, until=last) == ()
    with pytest.raises(InvalidValue, match="1,441 points"):
        series(each_broker, ENDED, since=last, until=after(last, 86_400 + 60))


# --- stuck queues, and kept minutes: with a clock that the test moves -------------------------------


@pytest.fixture
def clock() -> ManualClock:
    clock = ManualClock()
    clock.advance(60 - clock.now_ms() % 60_000 / 1000 + 20)  # 20 seconds after a minute began
    return clock


class Reads(MemoryBroker):
    """The in-memory broker, which notes how many minutes each read of metrics asks for."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.minutes: list[int] = []

    def read_metrics(
        self,
        names: Sequence[str],
        since: datetime,
        until: datetime,
        resolution: Resolution = Resolution.MINUTE,
    ) -> list[Metric]:
        self.minutes.append(round((until - since).total_seconds() // 60) + 1)
        return super().read_metrics(names, since, until, resolution)


@pytest.fixture
def broker(clock: ManualClock) -> Reads:
    return Reads(clock)


def test_a_queue_without_progress_is_stuck_with_the_first_reason(broker: Reads, clock: ManualClock) -> None:
    for queue in ("paused", "alone", "busy", "young"):
        if queue == "young":
            clock.advance(100)
        put(broker, clock, queue)
    broker.pause(["paused"])
    report(broker, "anna", "wait", ("busy",))
    clock.advance(30)
    broker.record_metrics([started(broker.now(), 0.1, queue="busy")])
    found = overview(broker).stuck
    assert [(one.queue, one.due, one.oldest_age) for one in found] == [
        ("alone", 1, 130.0),
        ("paused", 1, 130.0),
    ]
    assert [one.reason.kind for one in found if one.reason] == [ReasonKind.NO_WORKER, ReasonKind.PAUSED]
    broker.claim(ClaimRequest(worker="w", wanted=(Wanted(name="alone"),), limit=1, lease=60))
    assert [one.queue for one in overview(broker).stuck] == ["paused"]


def test_stuck_queues_are_bounded_in_number_and_time(
    broker: Reads, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(15):
        put(broker, clock, f"q{number}")
    clock.advance(100)
    found = stuck_queues(broker, all_counts(broker), broker.now())
    assert len(found) == 10
    assert all(one.reason for one in found)
    monkeypatch.setattr(overview_module, "STUCK_SECONDS", 0.0)
    found = stuck_queues(broker, all_counts(broker), broker.now())
    assert [one.reason for one in found] == [None] * 10


def test_a_minute_that_is_over_is_read_once(broker: Reads, clock: ManualClock) -> None:
    history = SlotHistory()
    for index in range(70):
        broker.record_metrics([ended(after(broker.now(), -60.0 * index), 1.0 + index)])
    first = overview(broker, history)
    assert sum(broker.minutes) == 60
    broker.minutes.clear()
    assert overview(broker, history) == first
    assert broker.minutes == [1], "the last minute is settled"
    for seconds in (45.0, 30.0, 600.0, 7200.0):
        clock.advance(seconds)
        broker.record_metrics([ended(broker.now(), 3.0), ended(after(broker.now(), -50), 5.0, queue="late")])
        assert overview(broker, history) == overview(broker)


def test_a_bounded_call_reads_the_latest_minutes_first(broker: Reads, clock: ManualClock) -> None:
    for index in range(60):
        broker.record_metrics([ended(after(broker.now(), -60.0 * index), 1.0)])
    history = SlotHistory()
    numbers = [sum(rate.ended for rate in overview(broker, history, seconds=0.0).rates) for _ in range(8)]
    assert numbers[0] == 10
    assert numbers == sorted(numbers)
    assert numbers[-1] == 60
