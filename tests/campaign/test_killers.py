"""Jobs that kill their process, and workers that are killed, slow the others down no more than they must.

Four workers of ten greenlets run jobs of 0.1 s, of which one in a hundred kills its process. A killed worker
is started again at once. One of the workers is also killed from outside, every ten seconds.
"""

from __future__ import annotations

import os
import random
import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.contract.record import JobRecord, Status
from tests import brokers
from tests.campaign import ledger
from tests.support import Process, Project, open_project

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3600)]

JOBS = int(os.environ.get("MRQ_TEST_KILLER_JOBS", "10000"))
SEED = int(os.environ.get("MRQ_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
WORKERS, WINDOW, LEAST = 4, 10.0, 0.6
ONE_IN = 100

TASKS = """
import os, signal, time
from mrq_core import task

@task
def nap():
    time.sleep(0.1)

@task
def kill():
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(params=brokers.NAMES)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, *brokers.address_of(request.param, tmp_path)) as opened:
        opened.write("napping.py", TASKS)
        yield opened
        brokers.check_counters(request.param, opened.client.broker, tmp_path)


def test_killers_fail_with_their_signal_and_all_others_succeed(project: Project) -> None:
    print(f"seed: {SEED}")
    calm, calm_deaths = _run(project, killers=True, is_disturbed=False)
    quick, _ = _run(project, killers=False, is_disturbed=False)
    disturbed, deaths = _run(project, killers=True, is_disturbed=True)
    print(
        f"jobs: {JOBS}, without killers: {statistics.median(quick):.0f} jobs/s, "
        f"with killers: {statistics.median(calm):.0f} jobs/s (windows {min(calm):.0f} to {max(calm):.0f}, "
        f"{calm_deaths} workers died), and killed from outside: {statistics.median(disturbed):.0f} jobs/s "
        f"(windows {min(disturbed):.0f} to {max(disturbed):.0f}, {deaths} workers died)"
    )
    assert min(disturbed) >= LEAST * statistics.median(calm)


def _run(project: Project, *, killers: bool, is_disturbed: bool) -> tuple[list[float], int]:
    """Jobs a second in each whole window of ten seconds, and how many workers died."""
    chance = random.Random(SEED)
    client = project.client
    ids: list[str] = []
    for _ in range(JOBS // ONE_IN):
        ids += client.queue_jobs("napping.nap", [{}] * (ONE_IN - killers))
        if killers:
            ids.append(client.queue_job("napping.kill", {}))
    workers = [_worker(project) for _ in range(WORKERS)]
    started = time.time()
    deaths, next_kill = 0, time.monotonic() + WINDOW
    while not _is_over(project, ids):
        for index, worker in enumerate(workers):
            if worker.popen.poll() is not None:
                deaths += 1
                workers[index] = _worker(project)
        if is_disturbed and time.monotonic() > next_kill:
            next_kill += WINDOW
            chance.choice(workers).send(signal.SIGKILL)
        time.sleep(0.02)  # the pace of the supervisor
    for worker in workers:
        worker.send(signal.SIGTERM)
    known = set(ids)
    records = [record for record in ledger.all_records(client.broker) if record.id in known]
    _check(records)
    losses = Counter(sum(attempt.lost for attempt in record.attempts) for record in records)
    seconds = max(r.ended_at.timestamp() for r in records if r.ended_at is not None) - started
    print(
        f"jobs by lost claims: {sorted(losses.items())}, claims: {sum(r.claims for r in records)}, "
        f"all ended after {seconds:.0f} s"
    )
    for start in range(0, len(ids), 1000):
        client.broker.remove(ids[start : start + 1000])
    return _windows(records, started), deaths


def _worker(project: Project) -> Process:
    return project.start(
        "worker", "--greenlets", "10", "--lease", "4", "--max-latency", "0.05", "--quiet",
        "--report-interval", "1",
    )  # fmt: skip


def _is_over(project: Project, ids: list[str]) -> bool:
    totals = project.client.broker.totals().by_status()
    return sum(totals.get(status, 0) for status in (Status.SUCCESS, Status.FAILED)) == len(ids)


def _check(records: list[JobRecord]) -> None:
    assert len(records) == JOBS
    numbers = Counter((record.path, record.status) for record in records)
    wrong = [r for r in records if (r.path == "napping.kill") is (r.status is Status.SUCCESS)]
    for record in wrong:
        print(record.id, record.traceback, *record.attempts, sep="\n  ")
    assert set(numbers) <= {("napping.nap", Status.SUCCESS), ("napping.kill", Status.FAILED)}, numbers
    for record in records:
        if record.path == "napping.kill":
            assert record.exception_type == "mrq_core.errors.ProcessDied", record.traceback
            assert "SIGKILL" in (record.traceback or "")
            assert record.solo_deaths == 2


def _windows(records: list[JobRecord], started: float) -> list[float]:
    """Jobs a second in each whole window in which jobs waited that no worker had started yet.

    Later, only jobs of lost claims are left: how soon they run again depends on leases, not on throughput.
    """
    ends = Counter(
        int((record.ended_at.timestamp() - started) // WINDOW)
        for record in records
        if record.ended_at is not None and record.status is Status.SUCCESS
    )
    last_start = max(record.attempts[0].started_at.timestamp() for record in records)
    whole = int((last_start - started) // WINDOW)
    return [ends[number] / WINDOW for number in range(max(1, whole))]
