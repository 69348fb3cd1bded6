"""The life of a fleet: faults and pauses under load, a clock that steps, an upgrade, and a worker's memory.

MRQ_TEST_FLEET_JOBS is the number of jobs, 100,000 if it is not set; MRQ_TEST_SEED repeats a run, as far as
the choices go.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

from mrq_core.client.handles import Queue
from mrq_core.clock import SystemClock
from mrq_core.contract.record import Status
from mrq_core.operations.queues import pause_tasks, resume_tasks
from tests import brokers
from tests.campaign import ledger
from tests.campaign.ledger import Ledger
from tests.support import Process, Project, open_project, until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(3600)]

JOBS = int(os.environ.get("MRQ_TEST_FLEET_JOBS", "100000"))
SEED = int(os.environ.get("MRQ_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 1_000_000)
PROCESSES, LEASE, BATCH = 4, 1.0, 500
LONG = 1800.0
"""Seconds for all jobs to end."""
HOUR_MS = 3_600_000
GOLDEN = Path(__file__).parent.parent / "golden"
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(params=brokers.NAMES)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    print(f"seed: {SEED}")
    with open_project(tmp_path, *brokers.address_of(request.param, tmp_path)) as opened:
        opened.write("tasks.py", ledger.TASKS)
        yield opened


def succeeded(project: Project) -> int:
    """The number of jobs that have succeeded."""
    return sum(row.get(Status.SUCCESS, 0) for row in project.client.broker.totals().by_queue.values())


def workers_of(parent: Process) -> list[psutil.Process]:
    """The workers under a parent process."""
    return psutil.Process(parent.pid).children()


def queue_all(project: Project, number: int, seconds: float = 0.0) -> list[str]:
    """Enqueues jobs in batches."""
    ids: list[str] = []
    while len(ids) < number:
        params = [{"seconds": seconds}] * min(BATCH, number - len(ids))
        ids += project.client.queue_jobs("tasks.work", params)
    return ids


# --- faults and pauses --------------------------------------------------------------------------------


class Faults:
    """What happens to the workers of one parent process, once a second."""

    def __init__(self, project: Project, parent: Process) -> None:
        self._project = project
        self._parent = parent
        self._random = random.Random(SEED)
        self._kinds: dict[str, Callable[[], None]] = {
            "SIGTERM": lambda: self._victim().send_signal(signal.SIGTERM),
            "SIGKILL": lambda: self._victim().send_signal(signal.SIGKILL),
            "SIGSTOP": self._freeze,
            "pause of the queue": self._pause_queue,
            "pause of the task": self._pause_task,
        }
        self.counted: Counter[str] = Counter()

    def go_on_until(self, is_over: Callable[[], bool]) -> None:
        while not is_over():
            time.sleep(1.0)  # the rhythm of the faults: nothing is waited for
            kind = self._random.choice(list(self._kinds))
            try:
                self._kinds[kind]()
            except psutil.NoSuchProcess:  # the worker has ended meanwhile
                continue
            self.counted[kind] += 1

    def _victim(self) -> psutil.Process:
        found = until(lambda: workers_of(self._parent), what="a worker")
        return self._random.choice(found)

    def _freeze(self) -> None:
        victim = self._victim()
        victim.suspend()
        time.sleep(2.5 * LEASE)  # how long the fault lasts
        victim.resume()

    def _pause_queue(self) -> None:
        queue = Queue("default", client=self._project.client)
        queue.pause()
        time.sleep(1.5)  # how long the pause lasts
        queue.resume()

    def _pause_task(self) -> None:
        broker = self._project.client.broker
        pause_tasks(broker, ["tasks.work"])
        time.sleep(1.5)  # how long the pause lasts
        resume_tasks(broker, ["tasks.work"])


def test_a_fleet_loses_no_job_under_faults_and_pauses(project: Project) -> None:
    began = time.monotonic()
    parent = project.start(
        "worker", "--processes", str(PROCESSES), "--greenlets", "10", "--lease", f"{LEASE:g}", "--quiet",
        "--stop-grace", "0.5", "--paused-queues-refresh-interval", "0.5",
    )  # fmt: skip
    faults = Faults(project, parent)
    with ThreadPoolExecutor(1) as pool:
        enqueueing = pool.submit(queue_all, project, JOBS)
        until(project.ledger_path.exists, what="a job to start")
        deadline = time.monotonic() + LONG
        faults.go_on_until(lambda: succeeded(project) >= JOBS or time.monotonic() > deadline)
        ids = enqueueing.result(LONG)
    parent.send(signal.SIGINT)
    assert parent.wait() == 0, parent.output
    records = ledger.all_records(project.client.broker)
    assert {record.id for record in records} == set(ids)
    counted = ledger.check(
        records,
        Ledger(project.ledger_path),
        repeated_after=(ledger.LOST, Status.INTERRUPT.value),
    )
    ledger.check_totals(project.client.broker, records)
    seconds = time.monotonic() - began
    print(f"jobs: {JOBS}, {dict(faults.counted)}, {dict(counted)}, seconds: {seconds:.0f}")
    assert faults.counted.total() > 0


# --- the clock ----------------------------------------------------------------------------------------

STEPPING = """
import time
from mrq_core.clock import SystemClock

def now_ms(self):
    with open({offset!r}) as file:
        return time.time_ns() // 1_000_000 + int(file.read() or 0)

SystemClock.now_ms = now_ms
"""


@pytest.mark.parametrize("project", ["sqlite"], indirect=True)
def test_clock_steps_of_an_hour_lose_no_job(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    # The other brokers use the clock of their server.
    offset = project.path / "offset"

    def step(milliseconds: int) -> None:
        new = project.path / "offset.new"
        new.write_text(str(milliseconds))
        new.replace(offset)

    step(0)
    project.write("mrq-config.py", STEPPING.format(offset=str(offset)))
    monkeypatch.setattr(
        SystemClock, "now_ms", lambda self: time.time_ns() // 1_000_000 + int(offset.read_text())
    )
    workers = [project.worker("--greenlets", "30", "--lease", "6") for _ in range(2)]
    ids: list[str] = []
    for hours in (0, 1, 0, -1, 0, 1):
        step(hours * HOUR_MS)
        ids += queue_all(project, 10, seconds=3.0) + queue_all(project, 20, seconds=0.1)
        moment = time.monotonic()
        until(lambda: time.monotonic() > moment + 2.0, what="some jobs under this clock")  # noqa: B023
    # Jobs of a later hour have waited while the clock was behind.
    until(lambda: succeeded(project) >= len(ids), what="all jobs to end")
    for worker in workers:
        worker.send(signal.SIGINT)
        assert worker.wait() == 0, worker.output
    records = ledger.all_records(project.client.broker)
    assert {record.id for record in records} == set(ids)
    counted = ledger.check(records, Ledger(project.ledger_path), repeated_after=ledger.LOST, clock_steps=True)
    print(dict(counted))
    assert counted[ledger.LOST] > 0, "a step ahead ends leases"


# --- a rolling upgrade --------------------------------------------------------------------------------


def golden_commit(arrangement: str) -> str:
    """The commit that has written the newest golden data of this arrangement."""
    files = sorted(GOLDEN.glob(f"{arrangement}-[0-9]*.expected.json"))
    commit: str = json.loads(files[-1].read_text())["commit"]
    return commit


@pytest.fixture
def earlier(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder with the packages of the commit that wrote the golden data."""
    commit = golden_commit(request.node.callspec.params["project"])
    git = ["git", "-C", str(ROOT)]
    known = subprocess.run([*git, "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True, check=False)
    if known.returncode:
        pytest.skip(f"this copy of the project has no git history with the commit {commit}")
    tree, installed = tmp_path / "earlier", tmp_path / "installed"
    subprocess.run([*git, "worktree", "add", "--detach", str(tree), commit], capture_output=True, check=True)
    try:
        subprocess.run(
            [
                sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
                "--target", str(installed), str(tree),
            ],
            check=True,
        )  # fmt: skip
        yield installed
    finally:
        subprocess.run([*git, "worktree", "remove", "--force", str(tree)], capture_output=True, check=True)


def test_an_earlier_version_and_this_one_work_side_by_side(project: Project, earlier: Path) -> None:
    project.client.broker.prepare()
    project.env["PYTHONPATH"] = str(earlier)
    where = "import mrq_core; print(mrq_core.__file__)"
    told = subprocess.run(
        [sys.executable, "-c", where],
        env=project.env, cwd=project.path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.startswith(str(earlier))
    old = project.worker("--greenlets", "5", "--name", "old")
    del project.env["PYTHONPATH"]
    new = project.worker("--greenlets", "5", "--name", "new")
    stop = threading.Event()
    ids: list[str] = []

    def feed() -> None:
        while not stop.wait(0.05):
            ids.extend(queue_all(project, 10, seconds=0.02))

    feeding = threading.Thread(target=feed)
    feeding.start()
    try:
        until(lambda: succeeded(project) >= 300, what="300 jobs of both versions")
        old.send(signal.SIGTERM)
        assert old.wait() == 0, old.output
        at = succeeded(project)
        until(lambda: succeeded(project) >= at + 100, what="100 jobs of the new version alone")
    finally:
        stop.set()
        feeding.join()
    until(lambda: succeeded(project) >= len(ids), what="all jobs to end")
    new.send(signal.SIGINT)
    assert new.wait() == 0, new.output
    records = ledger.all_records(project.client.broker)
    by = Counter((record.worker or "").partition(".")[0] for record in records)
    print(f"jobs by version: {dict(by)}")
    assert min(by["old"], by["new"]) >= 50
    ledger.check(records, Ledger(project.ledger_path), repeated_after=Status.INTERRUPT.value)
    assert "Traceback" not in old.output + new.output


# --- memory -------------------------------------------------------------------------------------------

EMPTY = """
from mrq_core import task

@task
def nothing(seconds):
    return seconds
"""


def test_the_memory_of_a_worker_stays_as_it_is_after_a_tenth_of_the_jobs(project: Project) -> None:
    project.write("empty.py", EMPTY)
    # The page cache of SQLite, 16 MB, is full after about 100,000 jobs. It is no growth of the worker.
    earlier = JOBS if project.address.broker.startswith("sqlite") else 0
    for _ in range((earlier + JOBS) // BATCH):
        project.client.queue_jobs("empty.nothing", [{"seconds": 0.5}] * BATCH)
    worker = project.start("worker", "--greenlets", "20", "--quiet", "--max-latency", "0.05")
    process = psutil.Process(worker.pid)
    sizes = []
    for number in (earlier + JOBS // 10, earlier + JOBS):
        until(lambda: succeeded(project) >= number, what="the jobs to end", patience=LONG)  # noqa: B023
        sizes.append(process.memory_info().rss / 1e6)
    print(f"after {earlier + JOBS // 10} jobs: {sizes[0]:.1f} MB, after {earlier + JOBS}: {sizes[1]:.1f} MB")
    assert sizes[1] < 1.1 * sizes[0]
    worker.send(signal.SIGINT)
    assert worker.wait() == 0
