"""Tasks in numbers, on each broker; and the hours that a process keeps."""

from __future__ import annotations

import threading
from datetime import datetime
from typing import Any

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.metrics import ENDED, OVERFLOW, STARTED, Metric, Resolution, measured
from mrq_core.contract.record import Status
from mrq_core.errors import BrokerUnavailable, InvalidValue
from mrq_core.operations.measures.task_history import TaskHistory
from mrq_core.operations.queues import pause_tasks
from mrq_core.operations.task_descriptions import publish_task, published_task, published_tasks
from mrq_core.operations.tasks import TaskSummary, task_details, task_list
from mrq_core.tasks.describing import TaskDescription
from mrq_core.testing import ManualClock, MemoryBroker
from mrq_core.testing.conformance.base import bring_to
from tests.operations.test_search import CLOCK
from tests.support import until


def ended(
    at: datetime, *values: float, task: str = "a.B", status: str = "success", queue: str = "q"
) -> Metric:
    return measured(ENDED, at, (("queue", queue), ("status", status), ("task", task)), values)


def started(at: datetime, *values: float, task: str = "a.B") -> Metric:
    return measured(STARTED, at, (("queue", "q"), ("task", task)), values)


def by_path(found: list[TaskSummary]) -> dict[str, TaskSummary]:
    assert [one.path for one in found] == sorted(one.path for one in found)
    return {one.path: one for one in found}


def test_a_task_is_listed_with_numbers_durations_and_failures(each_broker: Broker) -> None:
    now = Resolution.HOUR.start_of(each_broker.now())
    each_broker.record_metrics(
        [
            ended(now, *[2.0] * 6),
            ended(now, 2.0, 2.0, status="failed"),
            ended(now, 2.0, status="retry"),
            started(now, 0.5),
            ended(after(now, -5 * 3600), 2.0, queue="r"),
            ended(after(now, -71 * 3600), 2.0, status="timeout"),
            ended(after(now, -72 * 3600), *[99.0] * 50, status="failed"),
            Metric(name=ENDED, at=now, tags=OVERFLOW, count=3),
        ]
    )
    bring_to(each_broker, CLOCK, Status.FAILED, path="a.B")
    bring_to(each_broker, CLOCK, Status.QUEUED, path="a.Other")
    pause_tasks(each_broker, ["a.Paused"])
    publish_task(each_broker, TaskDescription(path="a.Known", doc="Does it."))
    found = by_path(task_list(each_broker))
    assert set(found) == {"a.B", "a.Other", "a.Paused", "a.Known"}
    task = found["a.B"]
    assert (dict(task.numbers), task.number, task.measured_hours) == ({Status.FAILED: 1}, 1, 72)
    assert task.failure_rate == pytest.approx(3 / 10)
    assert task.run_time is not None
    assert task.waiting_time is not None
    assert task.run_time.p99 == pytest.approx(2.0, rel=0.09)
    assert task.waiting_time.mean == pytest.approx(0.5)
    assert (len(task.hours), task.hours[-1], task.hours[-6], task.hours[0]) == (24, (6, 2), (1, 0), (0, 0))
    assert (found["a.Paused"].is_paused, task.is_paused, task.description) == (True, False, None)
    assert found["a.Known"].description == TaskDescription(path="a.Known", doc="Does it.")
    other = found["a.Other"]
    assert (other.run_time, other.waiting_time, other.failure_rate) == (None, None, None)


def test_the_details_of_a_task_have_its_histograms_and_queues(each_broker: Broker) -> None:
    now = each_broker.now()
    each_broker.record_metrics([ended(now, 1.0, 1.0, 8.0), ended(now, 1.0, queue="r"), started(now, 0.25)])
    details = task_details(each_broker, "a.B")
    assert details.run_time_histogram == ((1.0, 3), (8.0, 1))
    assert details.waiting_time_histogram == ((0.25, 1),)
    assert dict(details.queues) == {"q": 3, "r": 1}
    assert details.summary.path == "a.B"
    assert task_details(each_broker, "a.Unknown").queues == {}
    with pytest.raises(InvalidValue):
        task_details(each_broker, "nonsense")


# --- the kept hours ------------------------------------------------------------------------------


class Reads(MemoryBroker):
    """The in-memory broker, which notes how many hours each read of metrics asks for."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock=clock)
        self.hours: list[int] = []

    def read_metrics(self, names, since, until, resolution=Resolution.MINUTE):  # type: ignore[no-untyped-def]
        self.hours.append(round((until - since).total_seconds() // 3600) + 1)
        return super().read_metrics(names, since, until, resolution)


@pytest.fixture
def clock() -> ManualClock:
    clock = ManualClock()
    clock.advance(3600 - clock.now_ms() % 3_600_000 / 1000 + 600)  # ten minutes after an hour began
    return clock


@pytest.fixture
def broker(clock: ManualClock) -> Reads:
    return Reads(clock)


def filled(broker: Reads, hours: int = 80) -> None:
    now = broker.now()
    for hour in range(hours):
        broker.record_metrics([ended(after(now, -3600.0 * hour), 1.0 + hour, task=f"a.T{hour % 3}")])


def test_an_hour_that_is_over_is_read_once(broker: Reads, clock: ManualClock) -> None:
    filled(broker)
    history = TaskHistory()
    first = task_list(broker, history)
    assert sum(broker.hours) == 72
    broker.hours.clear()
    assert task_list(broker, history) == first
    assert broker.hours == [1]
    broker.record_metrics([ended(broker.now(), 5.0, task="a.T0")])
    assert task_list(broker, history) == task_list(broker) != first


@pytest.mark.parametrize("seconds", [60.0, 3600.0, 5 * 3600.0, 71 * 3600.0, 200 * 3600.0])
def test_kept_hours_answer_as_a_new_read_does(broker: Reads, clock: ManualClock, seconds: float) -> None:
    filled(broker)
    history = TaskHistory()
    for _ in range(3):
        task_list(broker, history)
        clock.advance(seconds)
        broker.record_metrics(
            [ended(broker.now(), 7.0, task="a.T1"), started(broker.now(), 1.0, task="a.T5")]
        )
    kept, fresh = by_path(task_list(broker, history)), by_path(task_list(broker))
    assert kept.keys() == fresh.keys()
    for path, task in kept.items():
        assert (task.hours, task.failure_rate) == (fresh[path].hours, fresh[path].failure_rate)
        for mine, theirs in (
            (task.run_time, fresh[path].run_time),
            (task.waiting_time, fresh[path].waiting_time),
        ):
            assert (mine is None) == (theirs is None)
            if mine and theirs:
                assert mine.mean == pytest.approx(theirs.mean)
                assert (mine.p50, mine.p95, mine.p99) == (theirs.p50, theirs.p95, theirs.p99)


def test_metrics_that_come_late_in_the_next_hour_count(broker: Reads, clock: ManualClock) -> None:
    history = TaskHistory()
    clock.advance(3000 + 60)  # a minute after the next hour began
    task_list(broker, history)
    broker.record_metrics([ended(after(broker.now(), -120), 1.0)])
    assert task_list(broker, history)[0].hours[-2:] == ((1, 0), (0, 0))


def test_a_bounded_call_reads_some_hours_and_a_thread_reads_the_rest(
    broker: Reads, clock: ManualClock
) -> None:
    filled(broker)
    history = TaskHistory()
    # Two hours by the call; the thread may have read more by the end of it.
    assert task_list(broker, history, seconds=0.0)[0].measured_hours in range(2, 72)
    until(lambda: task_list(broker, history, seconds=60.0)[0].measured_hours == 72)
    assert task_list(broker, history) == task_list(broker)


def test_a_thread_that_fails_leaves_its_hours_to_later_calls(
    broker: Reads, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    filled(broker)
    history, read = TaskHistory(), broker.read_metrics

    def broken(*given: Any) -> Any:
        if threading.current_thread() is not threading.main_thread():
            raise BrokerUnavailable("away")
        return read(*given)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(broker, "read_metrics", broken)
    task_list(broker, history, seconds=0.0)
    until(lambda: history._filling is None)
    monkeypatch.undo()
    task_list(broker, history, seconds=0.0)
    until(lambda: len(history._hours) == 71)
    assert task_list(broker, history) == task_list(broker)


def test_a_description_is_written_when_it_differs_or_ends_soon(broker: Reads, clock: ManualClock) -> None:
    task = TaskDescription(path="a.B", doc="One.")
    assert [publish_task(broker, task) for _ in range(2)] == [True, False]
    assert publish_task(broker, TaskDescription(path="a.B", doc="Two."))
    clock.advance(16 * 86_400)
    assert publish_task(broker, TaskDescription(path="a.B", doc="Two."))
    clock.advance(29 * 86_400)
    assert published_task(broker, "a.B") == TaskDescription(path="a.B", doc="Two.")
    clock.advance(2 * 86_400)
    assert published_tasks(broker) == {}
    broker.state.put("tasks", "a.Odd", ["of", "a", "later", "version"])
    assert (published_tasks(broker), published_task(broker, "a.Odd")) == ({}, None)
