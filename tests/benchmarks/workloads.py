"""The measurements that are the same for all systems.

No figure is given unless every job has run; what ran more than once is counted. A drain is timed from the
mark of the first job to the moment when all have left theirs and the system holds none that has not ended.
"""

from __future__ import annotations

import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks import marks
from tests.benchmarks.processes import Bench, Refused, Workers, workers
from tests.benchmarks.send import WARM_UP
from tests.benchmarks.systems import System

Figures = dict[str, float]
Workload = Callable[[System, Path, float], Figures]
"""A system, the Python of its environment, and the part of the jobs that are run."""

ONE_BY_ONE = "enqueue, one by one (jobs/s)"
IN_BULK = "enqueue, in bulk (jobs/s)"
DRAIN = "drain, one worker (jobs/s)"
DRAIN_TWO = "drain, two workers (jobs/s)"
NAPS = "jobs that sleep 0.1 s, 100 at a time (jobs/s; 1,000 is ideal)"
LATENCY = "latency, p50 (ms)"
LATENCY_99 = "latency, p99 (ms)"
MEMORY = "memory of an idle worker (MB)"
REPEATED = "drain, runs of jobs that had run already"

MANY = 100


def enqueue(system: System, python: Path, scale: float) -> Figures:
    """Jobs a second that one thread, or one event loop, enqueues."""
    return {
        ONE_BY_ONE: _enqueue(system, python, "one_by_one", _jobs(2_000, scale)),
        IN_BULK: _enqueue(system, python, "in_bulk", _jobs(20_000 * max(system.part, 0.25), scale)),
    }


def drain(system: System, python: Path, scale: float) -> Figures:
    """Jobs a second that one worker runs, of jobs that do nothing."""
    rate, repeated = _drain(system, python, _jobs(40_000 * system.part, scale), processes=1)
    return {DRAIN: rate, REPEATED: repeated}


def drain_two(system: System, python: Path, scale: float) -> Figures:
    """The same with two workers."""
    rate, _ = _drain(system, python, _jobs(40_000 * system.part, scale), processes=2)
    return {DRAIN_TWO: rate}


def naps(system: System, python: Path, scale: float) -> Figures:
    """Jobs a second that one worker runs, of jobs that wait."""
    jobs = _jobs(4_000, scale)
    with _benches(system, python) as bench:
        bench.send("in_bulk", "nap", jobs - WARM_UP)
        with workers(bench, MANY) as running:
            drained = until_all_have_run(bench, running, jobs)
    return {NAPS: jobs / (drained.seconds + marks.NAP_SECONDS)}  # the first mark is that of a job's end


def idle(system: System, python: Path, scale: float) -> Figures:
    """Of an idle worker: how long a job waits for its start, by its task's mark; the memory after that."""
    with _benches(system, python) as bench, workers(bench, system.concurrency) as running:
        waits = sorted(1000 * wait for wait in bench.send("latency", "mark", _jobs(200, scale)))
        until_all_have_run(bench, running, len(waits) + WARM_UP)
        return {
            LATENCY: statistics.median(waits),
            LATENCY_99: waits[int(len(waits) * 0.99) - 1],
            MEMORY: running.memory() / 1e6,
        }


WORKLOADS: dict[str, Workload] = {
    "enqueue": enqueue, "drain": drain, "two": drain_two, "naps": naps, "idle": idle,
}  # fmt: skip


class Drained(NamedTuple):
    """`seconds` go from the first mark until all jobs have left theirs and the system says so, too;
    `repeated` counts the runs of jobs that had run already."""

    seconds: float
    repeated: int


def until_all_have_run(bench: Bench, running: Workers, jobs: int) -> Drained:
    """Waits for that. Raises Refused if it does not come."""

    def missing() -> int:
        return jobs - len({mark.number for mark in marks.read(bench.marks)})

    what = f"not all of {jobs} jobs have run"
    bench.until(lambda: marks.count(bench.marks) >= jobs and not missing(), running, what)
    bench.until(lambda: bench.place.unfinished() == 0, running, "all jobs have run, and some have not ended")
    ended = time.monotonic()
    left = marks.read(bench.marks)
    return Drained(ended - min(mark.at for mark in left), len(left) - jobs)


def _jobs(number: float, scale: float) -> int:
    return max(int(number * scale), 100)


def _enqueue(system: System, python: Path, how: str, jobs: int) -> float:
    with _benches(system, python) as bench:
        seconds: float = bench.send(how, "mark", jobs)
        _check_all_are_there(bench, jobs + WARM_UP)
        return jobs / seconds


def _drain(system: System, python: Path, jobs: int, processes: int) -> tuple[float, int]:
    with _benches(system, python) as bench:
        bench.send("in_bulk", "mark", jobs - WARM_UP)
        _check_all_are_there(bench, jobs)
        with workers(bench, system.concurrency, processes) as running:
            drained = until_all_have_run(bench, running, jobs)
            return jobs / drained.seconds, drained.repeated


def _check_all_are_there(bench: Bench, jobs: int) -> None:
    there = bench.place.unfinished()
    if there != jobs:
        raise Refused(f"of {jobs} jobs that were enqueued, {there} are there")


@contextlib.contextmanager
def _benches(system: System, python: Path) -> Iterator[Bench]:
    """The system with an empty place. Marks are left in memory where that can be: no disk is waited for."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with (
        tempfile.TemporaryDirectory(prefix="mrq-bench-", ignore_cleanup_errors=True) as folder,
        tempfile.TemporaryDirectory(prefix="mrq-bench-", dir=memory) as noted,
        system.opened(Path(folder)) as place,
    ):
        yield Bench(system, python, place, Path(folder), Path(noted) / "marks")
