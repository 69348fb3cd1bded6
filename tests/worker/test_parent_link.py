"""What a worker reports to its parent, and what the parent makes of it."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from functools import partial

import pytest

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.worker.executions import Execution, Executions
from mrq_core.worker.interrupts import timeout_interrupt
from mrq_core.worker.parent_link import ParentLink
from mrq_core.worker.processes.child import ChildProcess
from mrq_core.worker.processes.messages import ALIVE, READY, REPORT
from mrq_core.worker.processes.slot import Slot, described
from mrq_core.worker.stopping import Stopping
from mrq_core.worker.worker_state import WorkerState
from tests.worker.records import execution

IDLE, HARD_GRACE, CHANGE = 60.0, 8.0, 1.0


class Link:
    """A link of a worker, and the parent's end of its reports."""

    def __init__(self, state: WorkerState) -> None:
        self.executions: Executions = state.executions
        commands, self.commands = os.pipe()
        self.reports, reports = os.pipe()
        os.set_blocking(self.reports, False)
        self.link = ParentLink(commands, reports)
        self.link.obey(Stopping(state, has_parent=True), state.executions)
        self.descriptors = [commands, self.commands, self.reports, reports]

    def received(self) -> list[tuple[bytes, float]]:
        """The reports since the last call."""
        try:
            return list(REPORT.iter_unpack(os.read(self.reports, 65536)))
        except BlockingIOError:
            return []

    def run_job(self, timeout: float | None = None) -> Execution:
        """A running job. None: it has no limit, or its limit is not known yet."""
        running = execution()
        running.context.in_code = True
        self.executions.add(running)
        if timeout:
            running.interrupt_from(time.monotonic() + timeout, partial(timeout_interrupt, timeout))
        return running

    def end_job(self, ended: Execution) -> None:
        self.executions.ended(ended)
        self.executions.remove([ended])


@pytest.fixture
def link(tmp_path: os.PathLike[str]) -> Iterator[Link]:
    client = Client(load_config({"broker": f"sqlite:///{os.fspath(tmp_path)}/jobs"}, environ={}))
    link = Link(WorkerState(client))
    yield link
    for descriptor in link.descriptors:
        os.close(descriptor)
    client.close()


def test_an_idle_worker_reports_once_a_second(link: Link) -> None:
    link.link.report_ready()
    now = time.monotonic()
    for tenth in range(25):
        link.link.tick(now + tenth / 10)
    assert link.received() == [(READY, IDLE)] + [(ALIVE, IDLE)] * 3


def test_a_job_that_starts_reports_its_limit_at_once(link: Link) -> None:
    link.link.tick(time.monotonic())
    link.link.expect(link.run_job(5), 5)
    assert link.received() == [(ALIVE, IDLE), (ALIVE, 5 + CHANGE + HARD_GRACE)]


def test_jobs_with_the_same_timeout_report_seldom(link: Link) -> None:
    began = time.monotonic()
    for _ in range(100):
        link.link.expect(link.run_job(5), 5)
    assert 1 <= len(link.received()) <= 1 + (time.monotonic() - began) / CHANGE


def test_the_latest_limit_of_all_running_jobs_counts(link: Link) -> None:
    late, early = link.run_job(100), link.run_job(5)
    link.link.expect(late, 100)
    link.link.expect(early, 5)
    link.received()
    link.end_job(late)
    link.link.tick(time.monotonic())
    ((_, seconds),) = link.received()
    assert seconds == pytest.approx(5 + HARD_GRACE, abs=0.5)
    link.end_job(early)
    link.link.tick(time.monotonic() + 0.1)
    assert link.received() == [(ALIVE, IDLE)]


def test_a_short_job_after_a_long_one_reports_its_limit_at_once(link: Link) -> None:
    long = link.run_job(1000)
    link.link.expect(long, 1000)
    link.end_job(long)
    link.link.expect(link.run_job(5), 5)
    assert [seconds for _, seconds in link.received()][1:] == [5 + CHANGE + HARD_GRACE]


def seconds_told(link: Link) -> list[float]:
    return [round(seconds) for _, seconds in link.received()]


def test_a_short_job_that_was_imported_beside_others_reports_its_limit_at_once(link: Link) -> None:
    """The import has the time of a job without a timeout."""
    first, second = link.run_job(), link.run_job()
    second.context.in_code = False  # it waits for its import
    link.link.expect(first, 3600)
    first.interrupt_from(time.monotonic() + 2, partial(timeout_interrupt, 2))
    link.link.expect(first, 2)
    assert seconds_told(link) == [3600 + CHANGE + HARD_GRACE, 2 + CHANGE + HARD_GRACE]


def test_a_short_job_beside_others_reports_the_latest_limit_when_a_long_one_has_ended(link: Link) -> None:
    long, other, short = link.run_job(1000), link.run_job(50), link.run_job(5)
    link.link.expect(long, 1000)
    link.link.expect(other, 50)
    link.link.expect(short, 5)
    assert seconds_told(link) == [1000 + CHANGE + HARD_GRACE]
    link.end_job(long)
    for _ in range(3):
        link.link.expect(short, 5)
    assert seconds_told(link) == [50 + CHANGE + HARD_GRACE]


def test_the_end_of_a_long_job_reports_the_latest_limit_of_those_that_run(link: Link) -> None:
    short, long = link.run_job(5), link.run_job(1000)
    link.link.expect(short, 5)
    link.link.expect(long, 1000)
    link.received()
    link.end_job(long)
    link.link.leave(long)
    ((_, seconds),) = link.received()
    assert seconds == pytest.approx(5 + CHANGE + HARD_GRACE, abs=0.5)
    long = link.run_job(1000)
    link.link.tick(long.started)
    link.received()
    link.end_job(long)
    link.link.leave(long)
    assert len(link.received()) == 1
    link.end_job(short)
    link.link.leave(short)
    assert link.received() == [], "an idle worker reports once a second"


def test_jobs_with_the_same_timeout_end_without_a_report(link: Link) -> None:
    jobs = [link.run_job(5) for _ in range(10)]
    for job in jobs:
        link.link.expect(job, 5)
    link.received()
    for job in jobs:
        link.end_job(job)
        link.link.leave(job)
    assert link.received() == []


def test_a_job_that_waits_for_its_import_does_not_raise_the_limit_of_those_that_run(link: Link) -> None:
    waiting, running = link.run_job(), link.run_job(5)
    waiting.context.in_code = False
    link.link.tick(running.started)
    ((_, seconds),) = link.received()
    assert seconds == pytest.approx(5 + HARD_GRACE, abs=0.5)


def test_a_job_without_a_timeout_has_no_limit(link: Link) -> None:
    job = link.run_job()
    link.link.expect(job, 0)
    assert link.received() == [(ALIVE, math.inf)]
    link.link.tick(job.started + 5)
    assert link.received() == [(ALIVE, math.inf)]


def test_a_job_whose_limit_is_not_known_yet_leaves_the_worker_a_limit(link: Link) -> None:
    job = link.run_job()
    link.link.tick(job.started)
    assert link.received() == [(ALIVE, IDLE + HARD_GRACE)]


def test_an_overdue_job_leaves_the_grace(link: Link) -> None:
    job = link.run_job(1)
    link.link.tick(job.started + 100)
    assert link.received() == [(ALIVE, HARD_GRACE)]


def test_a_parent_that_does_not_read_does_not_keep_the_worker(link: Link) -> None:
    for _ in range(20_000):
        link.link.report_ready()
    assert len(os.read(link.reports, 1_000_000)) % REPORT.size == 0


def silent_child(left: float) -> ChildProcess:
    child = ChildProcess.__new__(ChildProcess)
    child.silence_left, child.is_killed = left, False
    return child


def test_silence_counts_while_the_parent_looks() -> None:
    child = silent_child(2.5)
    assert [child.is_overdue(1.0) for _ in range(3)] == [False, False, True]


def test_a_suspension_of_the_parent_is_no_silence_of_the_worker() -> None:
    assert not silent_child(2.5).is_overdue(1000)
    assert not silent_child(math.inf).is_overdue(1000)


def test_the_pause_after_failed_starts_doubles_up_to_half_a_minute() -> None:
    slot = Slot(1)
    assert [slot.failed() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]
    assert slot.failures == 9


@pytest.mark.parametrize(
    ("code", "text"),
    [(1, "exit code 1"), (-11, "SIGSEGV"), (-9, "SIGKILL, as when memory is short"), (-63, "signal 63")],
)
def test_the_end_of_a_process_is_described(code: int, text: str) -> None:
    assert described(code) == text
