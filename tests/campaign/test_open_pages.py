"""Fifty open pages cost the dashboard less than half a core, while 500 jobs a second run."""

from __future__ import annotations

import http.client
import os
import statistics
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests import brokers
from tests.campaign.test_bulk_actions import Dashboard, opened
from tests.support import Project

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]

TABS = 50
SECONDS = 15.0
GAP, SHARE = 1.0, 4
"""As in live.js: seconds between two readings of a page, and the multiple of a reading for which it rests."""
TASKS = """
from mrq_core import task

@task
def quick(n):
    if n % 50 == 0:
        raise ValueError(f"bad {n % 7}")
"""


class Tab:
    """A visible tab on the Overview: it has a stream, and reads the page as live.js does."""

    def __init__(self, address: str) -> None:
        self.seconds: list[float] = []
        """What each reading took."""
        self._address = address
        self._due, self._closing = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=function) for function in (self._listen, self._read)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the tab after the next event of the stream."""
        self._closing.set()
        self._due.set()
        for thread in self._threads:
            thread.join()

    def _listen(self) -> None:
        with closing(http.client.HTTPConnection(self._address)) as connection:
            connection.request("GET", "/events")
            with connection.getresponse() as answer:
                for line in answer:
                    if self._closing.is_set():
                        return
                    if line.startswith((b"event: changed", b"event: ready")):
                        self._due.set()

    def _read(self) -> None:
        with closing(http.client.HTTPConnection(self._address)) as connection:
            while self._due.wait() and not self._closing.is_set():
                self._due.clear()
                begin = time.monotonic()
                connection.request("GET", "/", headers={"X-Fragment": "1", "Accept-Encoding": "gzip"})
                answer = connection.getresponse()
                assert (answer.status, bool(answer.read())) == (200, True)
                taken = time.monotonic() - begin
                self.seconds.append(taken)
                self._closing.wait(max(GAP - taken, SHARE * taken))


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def queue_steadily(project: Project, stop: threading.Event) -> None:
    number = 0
    while not stop.wait(0.1):
        for name in range(5):
            params = [{"n": n} for n in range(number, number + 10)]
            project.client.queue_jobs("quick.quick", params, queue=f"q{name}")
            number += 10


@pytest.mark.parametrize("name", brokers.NAMES)
def test_fifty_open_pages_cost_less_than_half_a_core(name: str, tmp_path: Path) -> None:
    with opened(name, tmp_path) as project:
        project.write("quick.py", TASKS)
        worker = project.start("worker", *(f"q{number}" for number in range(5)), "-g", "20", "--quiet")
        stop = threading.Event()
        queueing = threading.Thread(target=queue_steadily, args=(project, stop))
        queueing.start()
        tabs: list[Tab] = []
        try:
            dashboard = Dashboard(project)
            tabs += [Tab(dashboard.address.removeprefix("http://")) for _ in range(TABS)]
            time.sleep(5)  # all are open, and the history is read
            for tab in tabs:
                tab.seconds.clear()
            begin, used = time.monotonic(), cpu_seconds(dashboard.process.pid)
            time.sleep(SECONDS)  # the time that is measured
            share = (cpu_seconds(dashboard.process.pid) - used) / (time.monotonic() - begin)
            readings = [taken for tab in tabs for taken in tab.seconds]
        finally:
            for tab in tabs:
                tab.close()
            stop.set()
            queueing.join()
        print(
            f"{name}: {share:.1%} of a core, {len(readings) / SECONDS:.0f} readings a second, median "
            f"{statistics.median(readings) * 1000:.0f} ms"
        )
        assert len(readings) > TABS
        assert share < 0.5
        assert worker.popen.poll() is None
