"""Five schedulers in processes, of which some are killed and some are stopped, make one job of each fire."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.contract.queries import JobFilter, Order
from mrq_core.scheduler.policies import fire_id
from tests import brokers
from tests.scheduler.conftest import MINUTE, NOON, Scene
from tests.support import Process, until

ROOT = Path(__file__).parents[2]
FIRES = 1000
FACTOR = 4000.0
"""The clock of the schedulers runs this much faster: a fire each 15 ms."""
SCENES = [
    name if name == brokers.PER_COMMIT[-1] else pytest.param(name, marks=pytest.mark.campaign)
    for name in brokers.NAMES
]
"""The brokers, of which the usual run takes one: the processes compute for ten seconds."""


class Schedulers:
    """Five processes. `trouble` kills one and starts another, or stops one for a while."""

    def __init__(self, scene: Scene, began: float) -> None:
        self._scene, self._began = scene, began
        self._numbers = iter(range(1000))
        self.processes = [self._start() for _ in range(5)]
        self._random = random.Random(17)
        self.killed = self.stopped = 0

    def _start(self) -> Process:
        address = self._scene.address
        return Process(
            [
                *(sys.executable, "-m", "tests.scheduler.child", address.broker, address.store),
                *(str(self._began), str(NOON), str(FACTOR)),
            ],
            cwd=ROOT,
            env=dict(os.environ),
            output=self._scene.folder / f"scheduler-{next(self._numbers)}",
        )

    def until_started(self) -> None:
        for process in self.processes:
            process.until_output("started")

    def trouble(self) -> None:
        index = self._random.randrange(5)
        if self._random.random() < 0.5:
            self.processes[index].end()
            self.processes[index] = self._start()
            self.killed += 1
        else:
            process = self.processes[index]
            process.send(signal.SIGSTOP)
            time.sleep(self._random.choice((0.05, 0.3, 1.3)))
            process.send(signal.SIGCONT)
            self.stopped += 1

    def end(self) -> None:
        for process in self.processes:
            process.end()


@pytest.fixture
def five(scene: Scene) -> Iterator[Schedulers]:
    started = Schedulers(scene, time.time() + 2)
    yield started
    started.end()


@pytest.mark.parametrize("scene", SCENES, indirect=True)
@pytest.mark.parametrize("overlap", ["allow", pytest.param("buffer_one", marks=pytest.mark.campaign)])
def test_five_schedulers_make_one_job_of_each_of_a_thousand_fires(
    scene: Scene, five: Schedulers, overlap: str
) -> None:
    start, end = NOON + MINUTE, NOON + FIRES * MINUTE
    name = scene.schedule(
        cron="* * * * *", missed="all", missed_limit=1000, end=_text(end), overlap="allow", start=_text(start)
    ).name
    skipping = scene.schedule(
        cron="* * * * *", missed="all", missed_limit=1000, end=_text(end), overlap=overlap
    ).name
    five.until_started()

    def is_over() -> bool:
        return scene.stored(name).next_fire is None and scene.stored(skipping).next_fire is None

    while not is_over():
        five.trouble()
        assert five.killed + five.stopped < 500, [process.output for process in five.processes]
    assert five.killed > 3
    assert five.stopped > 3
    # Another scheduler counts the fires that a killed one had chosen, some seconds later.
    until(lambda: not scene.stored(name).pending and not scene.stored(skipping).pending)
    ids = []
    cursor = None
    while True:
        page = scene.broker.find(
            JobFilter(schedules=(name,)), order=Order.OLDEST_FIRST, cursor=cursor, limit=500
        )
        ids += [job.id for job in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    assert sorted(ids) == sorted(fire_id(name, at) for at in range(start, end + 1, MINUTE))
    assert len(ids) == FIRES
    stored = scene.stored(name)
    assert (stored.fired, stored.missed, stored.dropped, stored.overlapped) == (FIRES, 0, 0, 0)
    other = scene.stored(skipping)
    assert other.fired + other.overlapped == FIRES
    assert other.missed == other.dropped == 0
    if overlap == "buffer_one":
        assert len(scene.jobs(skipping)) == 1


def _text(moment_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment_ms / 1000))
