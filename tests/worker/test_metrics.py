"""The metrics that a worker records, and what it does if the broker takes none."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mrq_core.clock import after, from_ms
from mrq_core.contract.messages import Cancel, ChangeResult, Outcome
from mrq_core.contract.metrics import (
    ENDED,
    ERRORS,
    LOST,
    OVERFLOW,
    STARTED,
    UNFINISHED,
    Metric,
    Resolution,
    Tags,
)
from mrq_core.contract.queries import QueueCounts
from mrq_core.contract.record import Attempt, JobRecord, Status
from mrq_core.errors import BrokerUnavailable, NotSupported
from mrq_core.operations.workers import list_workers
from mrq_core.testing.memory import MemoryBroker
from mrq_core.worker import metrics
from mrq_core.worker.metrics import WorkerMetrics
from tests import brokers
from tests.support import Project, open_project, until

NOW = from_ms(1_750_000_000_000)


class Recorded(MemoryBroker):
    """The in-memory broker, which keeps each call that records metrics."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[list[Metric]] = []
        self.error: Exception | None = None

    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        if self.error is not None:
            raise self.error
        super().record_metrics(metrics)
        self.calls.append(list(metrics))


@pytest.fixture
def broker() -> Iterator[Recorded]:
    broker = Recorded()
    yield broker
    broker.close()


def record(queue: str = "q", path: str = "a.B", **more: Any) -> JobRecord:
    fields = {"queued_at": NOW, "updated_at": NOW, "started_at": after(NOW, 4), **more}
    return JobRecord(id="0" * 24, path=path, params={}, queue=queue, **fields)


class Ended:
    """As much of an execution as the metrics use."""

    def __init__(self, record: JobRecord) -> None:
        self.record = record


def end(measuring: WorkerMetrics, *outcomes: Outcome, accepted: bool = True, **more: Any) -> None:
    executions: Any = [Ended(record(**more)) for _ in outcomes]
    measuring.ended(executions, outcomes, [accepted] * len(outcomes))


def success(seconds: float | None) -> Outcome:
    return Outcome(status=Status.SUCCESS, total_time=seconds)


def by_series(metrics: Sequence[Metric]) -> dict[tuple[str, Tags], tuple[int, float]]:
    return {(metric.name, metric.tags): (metric.count, metric.total) for metric in metrics}


TASK: Tags = (("queue", "q"), ("task", "a.B"))


def with_status(status: str) -> Tags:
    return (("queue", "q"), ("status", status), ("task", "a.B"))


def test_a_batch_is_one_call_with_a_metric_for_each_series(broker: Recorded) -> None:
    measuring = WorkerMetrics([])
    measuring.started([record(), record(waits_from=after(NOW, 1)), record(queue="r")])
    end(measuring, success(1.5), success(None), Outcome(status=Status.FAILED, total_time=2.0))
    end(measuring, success(99.0), accepted=False)
    measuring.record(broker)
    [call] = broker.calls
    assert by_series(call) == {
        (STARTED, TASK): (2, 7.0),
        (STARTED, (("queue", "r"), ("task", "a.B"))): (1, 4.0),
        (ENDED, with_status("success")): (1, 1.5),
        (ENDED, with_status("failed")): (1, 2.0),
    }
    assert {type(value) for metric in call for _, value in metric.tags} == {str}
    measuring.record(broker)
    assert len(broker.calls) == 1, "nothing happened since"


def test_a_job_waits_again_from_the_end_of_a_lost_claim_which_is_counted(broker: Recorded) -> None:
    measuring = WorkerMetrics([])
    lost = Attempt(
        claim=1,
        token="1.x",
        started_at=NOW,
        ended_at=after(NOW, 3),
        worker="w",
        status=Status.STARTED,
        lost=True,
    )
    interrupted = Attempt(
        claim=2, token="2.x", started_at=NOW, ended_at=NOW, worker="w", status=Status.INTERRUPT
    )
    measuring.started([record(lost_claims=1, history=(lost,))])
    measuring.started([record(lost_claims=1, history=(lost, interrupted), waits_from=after(NOW, 2))])
    measuring.lost([record(status=Status.FAILED)])
    end(
        measuring,
        Outcome(status=Status.FAILED, lost=True, total_time=1.0),
        Outcome(status=Status.QUEUED, lost=True, delay=0.0, total_time=1.0),
    )
    measuring.record(broker)
    found = by_series(broker.calls[0])
    assert found[STARTED, TASK] == (2, 1.0 + 2.0)
    assert found[LOST, TASK] == (3, 0.0)


def test_a_clock_that_steps_back_gives_zeros(broker: Recorded) -> None:
    measuring = WorkerMetrics([])
    measuring.started([record(started_at=after(NOW, -3600)), record(started_at=after(NOW, 1))])
    measuring.record(broker)
    [metric] = broker.calls[0]
    assert (metric.count, metric.total) == (2, 1.0)


def test_series_above_the_bound_count_together(broker: Recorded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MOST_SERIES", 3)
    measuring = WorkerMetrics([])
    for _ in range(2):
        for number in range(100_000):
            measuring.started([record(queue=f"q{number % 5000}")])
        end(measuring, success(1.0), success(1.0))
        measuring.record(broker)
    for call in broker.calls:
        assert len(call) == 5
        found = by_series(call)
        assert found[STARTED, OVERFLOW][0] == 100_000 - 3 * 20
        assert found[ENDED, (*OVERFLOW, ("status", "success"))] == (2, 2.0)
        assert found[STARTED, (("queue", "q0"), ("task", "a.B"))][0] == 20
    monkeypatch.setattr(metrics, "_SERIES_INTERVAL", -1.0)  # the hour is over
    end(measuring, success(1.0))
    measuring.record(broker)
    assert by_series(broker.calls[-1]) == {(ENDED, with_status("success")): (1, 1.0)}


def test_the_metrics_of_a_process_fit_into_one_call(broker: Recorded) -> None:
    measuring = WorkerMetrics([])
    for number in range(2000):
        measuring.started([record(queue=f"q{number}", path=f"a.B{number}")])
    measuring.lost([record()])
    for status in Status:
        end(measuring, Outcome(status=status, total_time=1.0))
    failed = [Outcome(status=Status.FAILED, total_time=1.0, error_group=f"g{n}") for n in range(2000)]
    end(measuring, *failed)
    measuring.record(broker)
    assert len(broker.calls[0]) <= 1000


def test_errors_count_by_group_and_task_and_further_groups_together(
    broker: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(metrics, "MOST_GROUPS", 2)
    measuring = WorkerMetrics([])

    def raised(group: str | None, status: Status = Status.FAILED) -> Outcome:
        return Outcome(status=status, total_time=1.0, error_group=group)

    end(measuring, raised("g1"), raised("g1", Status.RETRY), raised("g2"), raised(None), raised("g3"))
    end(measuring, raised("g1"), raised("g3"), success(1.0), path="a.C")
    end(measuring, raised("g1"), accepted=False)
    measuring.record(broker)
    found = {tags: pair for (name, tags), pair in by_series(broker.calls[0]).items() if name == ERRORS}
    assert found == {
        (("group", "g1"), ("task", "a.B")): (2, 0.0),
        (("group", "g2"), ("task", "a.B")): (1, 0.0),
        OVERFLOW: (3, 0.0),
    }
    end(measuring, raised("g3"))
    measuring.record(broker)
    assert by_series(broker.calls[1])[ERRORS, (("group", "g3"), ("task", "a.B"))] == (1, 0.0)


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), NotSupported("no metrics")])
def test_metrics_that_the_broker_does_not_take_are_lost_and_nothing_else(
    broker: Recorded, error: Exception
) -> None:
    measuring = WorkerMetrics(["q"])
    measuring.started([record()])
    broker.error = error
    if isinstance(error, NotSupported):
        measuring.record(broker)
    else:
        with pytest.raises(BrokerUnavailable):
            measuring.record(broker)
    measuring.record(broker)  # nothing is left
    broker.error = None
    measuring.started([record()])
    measuring.record(broker)
    assert len(broker.calls) == (0 if isinstance(error, NotSupported) else 1)


def test_a_broker_that_takes_long_costs_no_memory(
    broker: Recorded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(metrics, "MOST_VALUES", 10)
    measuring = WorkerMetrics([])
    for _ in range(50):
        measuring.started([record()])
    measuring.record(broker)
    assert broker.calls[0][0].count == 10
    assert "metrics.lost values=40" in caplog.text
    measuring.started([record()])
    measuring.record(broker)
    assert broker.calls[1][0].count == 1


def test_sizes_are_sampled_once_a_minute_of_own_queues_and_of_those_of_jobs(
    broker: Recorded, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Sequence[str]] = []
    counts = broker.counts

    def noted(queues: Sequence[str]) -> list[QueueCounts]:
        asked.append(queues)
        return counts(queues)

    monkeypatch.setattr(broker, "counts", noted)
    measuring = WorkerMetrics(["q", "tree/"])
    measuring.started([record(queue="tree/a")])
    measuring.record(broker)
    for _ in range(2):
        measuring.sample(broker)
    assert asked == [["q", "tree/a"]]
    measuring.record(broker)
    assert by_series(broker.calls[1]) == {
        (UNFINISHED, (("queue", "q"),)): (1, 0.0),
        (UNFINISHED, (("queue", "tree/a"),)): (1, 0.0),
    }


def read(project: Project, name: str, resolution: Resolution = Resolution.HOUR) -> dict[Tags, Metric]:
    broker = project.client.broker
    now: datetime = broker.now()
    found: dict[Tags, Metric] = {}
    for metric in broker.read_metrics([name], after(now, -7200), after(now, 60), resolution):
        assert metric.tags not in found, "the hour has ended in the middle of the test"
        found[metric.tags] = metric
    return found


def test_a_worker_records_what_it_ran(project: Project) -> None:
    for number in range(5):
        project.queue("tasks.noted", {"word": str(number), "seconds": 0.1})
    project.queue("tasks.fail")
    project.queue("tasks.flaky", {"failures": 1}, queue="other")
    process = project.start("worker", "--max-latency", "0.05", "-g", "3", "default", "other")
    noted: Tags = (("queue", "default"), ("status", "success"), ("task", "tasks.noted"))
    found = until(lambda: (got := read(project, ENDED)).get(noted) and got)
    assert isinstance(found, dict)
    process.popen.terminate()
    assert process.wait() == 0
    found = read(project, ENDED)
    assert (found[noted].count, sum(found[noted].buckets.values())) == (5, 5)
    assert 0.5 <= found[noted].total < 30
    numbers = {(dict(tags)["task"], dict(tags)["status"]): metric.count for tags, metric in found.items()}
    assert numbers == {
        ("tasks.noted", "success"): 5, ("tasks.fail", "failed"): 1,
        ("tasks.flaky", "retry"): 1, ("tasks.flaky", "success"): 1,
    }  # fmt: skip
    errors = {(dict(tags)["task"], metric.count) for tags, metric in read(project, ERRORS).items()}
    assert errors == {("tasks.fail", 1), ("tasks.flaky", 1)}
    started = {dict(tags)["task"]: metric.count for tags, metric in read(project, STARTED).items()}
    assert started == {"tasks.noted": 5, "tasks.fail": 1, "tasks.flaky": 2}
    assert {dict(tags)["queue"] for tags in read(project, UNFINISHED)} >= {"default", "other"}
    assert read(project, LOST) == {}


def test_the_last_metrics_are_recorded_when_a_worker_stops(project: Project) -> None:
    project.queue("tasks.noted", {"word": "x"})
    project.work_off()
    [metric] = read(project, ENDED).values()
    assert metric.count == 1


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_a_lost_claim_is_counted_once(project: Project, is_cancelled: bool) -> None:
    """Also where the job ends with it, and no worker claims it again."""
    job_id = project.queue("tasks.noted", {"word": "x", "seconds": 2.0})
    first = project.worker("--lease", "1")
    project.until_status(job_id, "started")
    if is_cancelled:
        assert project.client.broker.cancel([job_id], Cancel()) == [ChangeResult.REQUESTED]
    first.end()
    second = project.worker("--lease", "1")
    assert project.ended(job_id).status == ("cancel" if is_cancelled else "success")
    until(lambda: read(project, LOST))
    second.popen.terminate()
    assert second.wait() == 0
    [lost] = read(project, LOST).values()
    assert (lost.count, lost.tags) == (1, (("queue", "default"), ("task", "tasks.noted")))


def test_a_worker_that_may_not_record_metrics_goes_on(tmp_path: Path) -> None:
    with open_project(tmp_path, *brokers.address_of("sqlite", tmp_path)) as project:
        project.write("tasks.py", "from mrq_core import task\n\n@task\ndef one(n: int):\n    return n\n")
        project.client.broker.prepare()
        with closing(sqlite3.connect(tmp_path / "jobs.sqlite3")) as connection:
            refused = "CREATE TRIGGER t BEFORE INSERT ON metrics BEGIN SELECT RAISE(ABORT, 'refused'); END"
            connection.execute(refused)
        ids = [project.queue("tasks.one", {"n": number}) for number in range(20)]
        process = project.work_off("-g", "2")
        assert {project.client.fetch(job_id).status for job_id in ids} == {Status.SUCCESS}
        assert "refused" in process.output
        assert "Traceback" not in process.output
        assert read(project, ENDED) == {}
        assert [one.status for one in list_workers(project.client.broker)] == ["stop"]
