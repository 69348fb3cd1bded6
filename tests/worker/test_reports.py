"""Two threads write the report: what one removes, the other does not bring back. gevent is used unpatched."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest

from mrq_core.client.client import Client
from mrq_core.clock import now_ms
from mrq_core.config.sources import load_config
from mrq_core.contract.broker import Broker
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable
from mrq_core.ids import new_id
from mrq_core.operations.workers import WORKERS_NAMESPACE, WorkerReport, find_worker
from mrq_core.running.context import JobContext
from mrq_core.running.job_log import JobLog
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.memory import MemoryBroker
from mrq_core.worker.executions import job_execution
from mrq_core.worker.reporting import report as report_module
from mrq_core.worker.reporting.report import Reporter, Reports
from mrq_core.worker.worker_state import WorkerState


def started(path: str) -> JobRecord:
    now = datetime.now(UTC)
    return JobRecord(
        id=new_id(), path=path, params={}, queue="default", status=Status.STARTED, queued_at=now,
        updated_at=now, started_at=now, worker="w", claims=1, token=new_id(),
    )  # fmt: skip


class Interleaved(Reporter):
    """Lets the hub end the reports while the native thread writes one."""

    is_over = False
    reports: Reports
    broker: Broker

    def describe(self) -> WorkerReport:
        report = super().describe()
        if not self.is_over:
            self.is_over = True
            self.reports.say_goodbye(self.broker)
            self.reports.remove_file()
        return report


class Bench:
    def __init__(
        self,
        folder: Path,
        reporter_class: type[Reporter] = Reporter,
        queues: tuple[str, ...] = ("default",),
        **more: object,
    ) -> None:
        self.file = folder / "report.json"
        settings = {
            "broker": "sqlite:///never",
            "report_file": str(self.file),
            "report_interval": 1.0,
            **more,
        }
        self.broker = MemoryBroker()
        self.state = WorkerState(Client(load_config(settings, environ={}), self.broker))
        self.reporter = reporter_class(self.state, queues)
        self.reports = Reports(self.state, self.reporter)
        self.reports.start()

    def perform(self, seconds: float) -> tuple[bool, bool]:
        """Whether the native thread has written the report to shared state and to the file, this many seconds
        after the hub."""
        self.reports.perform(time.monotonic() + seconds, lambda: self.broker)
        return find_worker(self.broker, self.state.name) is not None, self.file.exists()

    def status(self) -> str | None:
        report = find_worker(self.broker, self.state.name)
        return None if report is None else report.status


def test_the_native_thread_writes_a_report_that_is_late_and_no_other(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.perform(1.4) == (False, False)
    assert bench.perform(1.6) == (True, True)


def test_a_report_that_is_written_after_the_last_one_does_not_replace_it(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Interleaved)
    assert isinstance(bench.reporter, Interleaved)
    bench.reporter.reports, bench.reporter.broker = bench.reports, bench.broker
    bench.reports.store(bench.broker)
    assert bench.status() == "stop"
    bench.reporter.is_over = False
    bench.reports.start()
    bench.reports.write_file()
    assert not bench.file.exists()


def test_no_report_is_written_after_the_last(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.reports.store(bench.broker)
    bench.reports.say_goodbye(bench.broker)
    assert bench.perform(10) == (True, False)
    assert bench.status() == "stop"


def test_a_worker_that_has_not_reported_leaves_no_last_report(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.reports.say_goodbye(bench.broker)
    assert bench.perform(10) == (False, False)


def test_a_report_stays_small(tmp_path: Path) -> None:
    bench = Bench(tmp_path, queues=tuple(f"queue-{number}" for number in range(10_000)))
    for minute in range(200):
        bench.reporter.samples.take(time.monotonic() + 60 * minute)
    for number in range(100):
        record = started(f"{'long.' * 200}task_{number}")
        bench.state.executions.add(
            job_execution(JobContext(record, bench.state.client, JobLog(record.id, 1, 0)))
        )
    bench.reports.store(bench.broker)
    [item] = bench.broker.state.list(WORKERS_NAMESPACE)
    assert len(json.dumps(item.value)) < 20_000
    report = find_worker(bench.broker, bench.state.name)
    assert report is not None
    assert len(report.queues) + report.queues_left_out == 10_000
    assert (len(report.running), report.busy) == (20, 100)
    assert len(report.memory_history) == len(report.cpu_history) == 60


@pytest.mark.parametrize("step", [-3600.0, 3600.0])
def test_the_age_of_a_worker_stays_when_the_clock_of_its_machine_is_set(
    tmp_path: Path, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    reporter = Bench(tmp_path).reporter
    before = reporter.describe()
    monkeypatch.setattr(report_module, "now_ms", lambda: now_ms() + round(step * 1000))
    set_ = [reporter.describe() for _ in range(2)]
    assert set_[0].started_at == set_[1].started_at
    assert abs((set_[0].started_at - before.started_at).total_seconds() - step) < 1
    ages = [(one.reported_at - one.started_at).total_seconds() for one in (before, *set_)]
    assert all(-0.01 <= age < 60 for age in ages)


def test_a_report_names_the_denied_tasks(tmp_path: Path) -> None:
    bench = Bench(tmp_path, deny_tasks=[f"long.{number}.Task" for number in range(1000)])
    report = bench.reporter.describe()
    assert report.denied_tasks[:2] == ("long.0.Task", "long.1.Task")
    assert not report.takes("long.1.Task")
    assert report.takes("other.Task")
    assert len(",".join(report.denied_tasks)) < 5000, "a report stays small"


def test_the_use_of_the_pool_is_the_mean_of_a_minute(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    samples = bench.reporter.samples
    started_at = time.monotonic()
    for second in range(30):
        samples.take(started_at + 1.01 * second)
    bench.state.executions.running = 1
    for second in range(30, 60):
        samples.take(started_at + 1.01 * second)
    assert samples.usage == 0.5
    for second in range(60, 120):
        samples.take(started_at + 1.01 * second)
    assert samples.usage == 1.0


def test_a_report_that_is_not_renewed_is_dead_by_the_clock_of_the_broker(tmp_path: Path) -> None:
    clock = ManualClock()
    bench = Bench(tmp_path)
    bench.broker = MemoryBroker(clock=clock)
    bench.reports.store(bench.broker)
    clock.advance(4)
    assert bench.status() == "init"
    clock.advance(2)
    assert bench.status() == "dead"
    bench.reports.say_goodbye(bench.broker)
    clock.advance(3590)
    assert bench.status() == "stop"
    clock.advance(20)
    assert bench.status() is None


def test_a_report_that_cannot_be_stored_is_tried_again_a_quarter_of_an_interval_later(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    tries: list[float] = []

    def away() -> NoReturn:
        tries.append(now)
        raise BrokerUnavailable("away")

    started = time.monotonic()
    for tenth in range(100):
        now = started + tenth / 10
        bench.reports.perform(now, away)
    assert tries[0] - started == pytest.approx(1.5, abs=0.2)
    assert 20 < len(tries) < 35
