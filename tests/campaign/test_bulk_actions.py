"""A bulk action changes 1,000,000 jobs at 5,000 a second or more, and outlives `kill -9` of its dashboard."""

from __future__ import annotations

import json
import os
import re
import signal
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mrq_core.clock import SystemClock, from_ms
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import CHUNK, NewJob
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord
from mrq_core.ids import new_id
from tests import brokers
from tests.mongo import servers as mongo_servers
from tests.redis import servers as redis_servers
from tests.support import Process, Project, open_project, until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(0)]

JOBS = int(os.environ.get("MRQ_TEST_MILLION", 1_000_000))
RATE = float(os.environ.get("MRQ_TEST_BULK_RATE", 5000))
"""Jobs a second that a bulk action changes at least, on a machine that does nothing else. 0: the machine is
busy, so that a step may also exceed the time of the broker, and its counts are minimums."""
QUEUES = 200
LONG = 3600.0


class Dashboard:
    """A dashboard as a process."""

    def __init__(self, project: Project) -> None:
        self.process: Process = project.start("dashboard", "--port", "0")
        self.process.until_output("The dashboard is at ")
        found = re.search(r"The dashboard is at (http://\S+)/", self.process.output)
        assert found is not None
        self.address = found[1]

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.address + path, timeout=60) as answer:
            return json.load(answer)

    def post(self, path: str, value: object) -> Any:
        headers = {"content-type": "application/json", "sec-fetch-site": "same-origin"}
        request = urllib.request.Request(self.address + path, json.dumps(value).encode(), headers)
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def handled(self, bulk_id: str) -> int:
        """The number of jobs that a bulk action has answered."""
        return int(self.get(f"/api/jobs/bulk/{bulk_id}")["handled"])

    def until_end(self, bulk_id: str) -> Any:
        """The bulk action when it has ended."""

        def ended() -> Any:
            time.sleep(0.2)
            found = self.get(f"/api/jobs/bulk/{bulk_id}")
            return found if found["status"] != "running" else None

        return until(ended, patience=LONG)


@contextmanager
def opened(name: str, folder: Path) -> Iterator[Project]:
    """A project on servers that only this test uses."""
    redis = redis_servers.Server() if "redis" in name else None
    mongo = mongo_servers.Server() if "mongo" in name else None
    urls = [server.url for server in (redis, mongo) if server is not None]
    try:
        with open_project(folder, *(urls or [f"sqlite:///{folder}/jobs.sqlite3"])) as project:
            project.client.broker.prepare()
            yield project
    finally:
        for server in (redis, mongo):
            if server is not None:
                server.stop()


def fill(project: Project) -> None:
    """Enqueues all jobs in 200 queues."""
    broker = project.client.broker
    for start in range(0, JOBS, CHUNK):
        broker.enqueue([NewJob(record=record_of(number)) for number in range(start, start + CHUNK)])


def record_of(number: int) -> JobRecord:
    now = from_ms(SystemClock().now_ms())
    path, queue = f"shop.Task{number % 10}", f"q{number % QUEUES:03}"
    params: JsonObject = {"order": number}
    return JobRecord(id=new_id(), path=path, params=params, queue=queue, queued_at=now, updated_at=now)


def numbers(project: Project) -> dict[str, int]:
    """The numbers of jobs by status, each job counted."""
    found: Counter[str] = Counter()
    cursor: str | None = None
    while True:  # without totals, which count jobs that a crash may have left out
        counted = project.client.broker.count(JobFilter(since=from_ms(0)), "status", cursor=cursor)
        found.update(counted.numbers)
        cursor = counted.cursor
        if cursor is None:
            return dict(found)


@pytest.mark.parametrize("name", brokers.NAMES)
def test_a_million_jobs_are_changed_once_each_whatever_happens_to_the_dashboard(
    name: str, tmp_path: Path
) -> None:
    with opened(name, tmp_path) as project:
        fill(project)
        dashboard = Dashboard(project)
        begun = dashboard.post("/api/jobs/bulk", {"action": "cancel", "filter": {"status": "queued"}})
        cancel = begun["bulk"]["id"]
        began = time.monotonic()
        until(lambda: dashboard.handled(cancel) >= 0.4 * JOBS, patience=LONG)
        killed_at, killed_after = dashboard.handled(cancel), time.monotonic() - began
        dashboard.process.send(signal.SIGKILL)
        dashboard.process.wait()
        dashboard = Dashboard(project)
        ended = dashboard.until_end(cancel)
        rate = killed_at / killed_after
        print(f"{name}: killed at {killed_at:,} after {killed_after:.0f} s ({rate:,.0f}/s)")
        print(f"{name}: ended as {ended['status']} with {ended['changes']}, {ended['unsure']} unsure")
        assert numbers(project) == {"cancel": JOBS}
        assert ended["status"] == "done"
        assert set(ended["changes"]) == {"done"}
        assert ended["changes"]["done"] + ended["unsure"] == JOBS == ended["expected"]
        assert not RATE or ended["unsure"] <= CHUNK

        begun = dashboard.post("/api/jobs/bulk", {"action": "requeue", "query": "status:cancel"})
        requeue = dashboard.until_end(begun["bulk"]["id"])
        seconds = (_moment(requeue["ended_at"]) - _moment(requeue["begun_at"])) or 1.0
        print(f"{name}: {JOBS:,} jobs requeued in {seconds:.0f} s: {JOBS / seconds:,.0f}/s")
        assert requeue["changes"]["done"] + requeue["unsure"] == JOBS
        assert not RATE or requeue["is_exact"]
        assert numbers(project) == {"queued": JOBS}
        assert JOBS / seconds >= RATE


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
