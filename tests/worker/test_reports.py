"""Two threads write the report: what one removes, the other does not bring back. gevent is used unpatched."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NoReturn

import pytest

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.contract.broker import Broker
from mrq_core.errors import BrokerUnavailable
from mrq_core.operations.workers import WorkerReport, find_worker
from mrq_core.testing.memory import MemoryBroker
from mrq_core.worker.reporting import Reporter, Reports
from mrq_core.worker.worker_state import WorkerState


class Interleaved(Reporter):
    """Lets the hub end the reports while the native thread writes one."""

    reports: Reports
    broker: Broker

    def describe(self) -> WorkerReport:
        report = super().describe()
        self.reports.remove(self.broker)
        self.reports.remove_file()
        return report


class Bench:
    def __init__(self, folder: Path, reporter_class: type[Reporter] = Reporter) -> None:
        self.file = folder / "report.json"
        settings = {"broker": "sqlite:///never", "report_file": str(self.file), "report_interval": 1.0}
        self.broker = MemoryBroker()
        self.state = WorkerState(Client(load_config(settings, environ={}), self.broker))
        self.reporter = reporter_class(self.state, ("default",))
        self.reports = Reports(self.state, self.reporter)
        self.reports.start()

    def perform(self, seconds: float) -> tuple[bool, bool]:
        """Whether the native thread has written the report to shared state and to the file, this many seconds
        after the hub."""
        self.reports.perform(time.monotonic() + seconds, lambda: self.broker)
        return find_worker(self.broker, self.state.name) is not None, self.file.exists()


def test_the_native_thread_writes_a_report_that_is_late_and_no_other(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.perform(1.4) == (False, False)
    assert bench.perform(1.6) == (True, True)


def test_a_report_that_is_removed_while_it_is_written_stays_removed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, Interleaved)
    assert isinstance(bench.reporter, Interleaved)
    bench.reporter.reports, bench.reporter.broker = bench.reports, bench.broker
    bench.reports.store(bench.broker)
    assert find_worker(bench.broker, bench.state.name) is None
    bench.reports.start()
    bench.reports.write_file()
    assert not bench.file.exists()


def test_no_report_is_written_after_the_last(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.reports.remove(bench.broker)
    assert bench.perform(10) == (False, False)


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
