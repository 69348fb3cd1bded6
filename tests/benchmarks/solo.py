"""What solo jobs cost: the start of their process, and the time that the worker's other jobs lose."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from mrq_core.client.client import Client
from mrq_core.contract.messages import Cancel
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.tasks.task import Task
from tests.benchmarks.ours import Arrangement, client_of, started
from tests.benchmarks.processes import ROOT
from tests.benchmarks.workloads import Figures

TURNS = 5
_PATIENCE_SECONDS = 300.0


class Nothing(Task):
    """Does nothing."""

    def run(self, params: object) -> int:
        return 1


class Solo(Nothing):
    """Does nothing, in a separate process."""

    isolate = True


class Stay(Task):
    """Stays in a separate process."""

    isolate = True

    def run(self, params: object) -> None:
        time.sleep(1000)


def solo(arrangement: Arrangement, scale: float, folder: Path) -> Figures:
    """Milliseconds from the claim of an isolated job that does nothing to its end; and jobs a second of the
    worker's other jobs while a process runs, as a part of those without one, in turns."""
    jobs = max(int(20_000 * scale), 2_000)
    rates: dict[bool, list[float]] = {False: [], True: []}
    with started(arrangement, folder) as environ, client_of(environ) as client:
        with _worker(environ, folder, greenlets=1):
            times = [_seconds(client, client.queue_job(_path(Solo), {})) for _ in range(20)]
        for _ in range(TURNS):
            for with_process in (False, True):
                rates[with_process].append(_drain(client, environ, folder, jobs, with_process))
    kept = statistics.median(ours / theirs for ours, theirs in zip(rates[True], rates[False], strict=True))
    return {
        "an isolated job that does nothing (ms)": statistics.median(times) * 1000,
        "jobs a second beside a solo process, of those without (%)": kept * 100,
    }


def _drain(client: Client, environ: Mapping[str, str], folder: Path, jobs: int, with_process: bool) -> float:
    """Jobs a second between the first start and the last end of this many jobs."""
    with _worker(environ, folder, greenlets=10 + with_process):
        staying = client.queue_job(_path(Stay), {}) if with_process else None
        if staying is not None:
            _until_status(client, staying, Status.STARTED)
            time.sleep(1.5)  # its process has started by then: nothing else is waited for
        ids = client.queue_jobs(_path(Nothing), [{}] * jobs)
        _until_status(client, ids[-1], Status.SUCCESS)
        records = _records(client, jobs)
    if staying is not None:
        client.broker.cancel([staying], Cancel())
    starts = [record.started_at.timestamp() for record in records if record.started_at is not None]
    ends = [record.ended_at.timestamp() for record in records if record.ended_at is not None]
    return jobs / (max(ends) - min(starts))


def _records(client: Client, jobs: int) -> list[JobRecord]:
    """The records of the latest jobs that do nothing."""
    found: list[JobRecord] = []
    cursor: str | None = None
    while len(found) < jobs:
        page = client.broker.find(
            JobFilter(paths=(_path(Nothing),)), order=Order.NEWEST_FIRST, cursor=cursor, limit=500
        )
        found += page.records
        cursor = page.cursor
        if cursor is None:
            break
    return found[:jobs]


def _path(task: type[Task]) -> str:
    return f"{__name__}.{task.__name__}"


def _seconds(client: Client, job_id: str) -> float:
    record = _until_status(client, job_id, Status.SUCCESS)
    assert record.started_at is not None
    assert record.ended_at is not None
    return (record.ended_at - record.started_at).total_seconds()


def _until_status(client: Client, job_id: str, status: Status) -> JobRecord:
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while time.monotonic() < deadline:
        record = client.fetch(job_id)
        if record.status is status:
            return record
        time.sleep(0.01)
    raise TimeoutError(f"{job_id} is {record.status}, and not {status}")


@contextlib.contextmanager
def _worker(environ: Mapping[str, str], folder: Path, *, greenlets: int) -> Iterator[None]:
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MRQ_", "PYTHON"))}
    command = [sys.executable, "-m", "mrq_core.cli", "worker", "--quiet", "--stop-grace", "0"]
    worker = subprocess.Popen(
        [*command, "--greenlets", str(greenlets)],
        cwd=folder,
        env={**outside, "PYTHONPATH": str(ROOT), **environ},
    )
    try:
        yield
    finally:
        worker.terminate()
        worker.wait()
