"""A busy page holds still: its layout shift in 60 live seconds, while 500 jobs a second come and go."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from tests import brokers
from tests.dashboard.browsing import Tab, chromium
from tests.dashboard.test_live import Served
from tests.support import Project, open_project

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]

_TASKS = """
from mrq_core import task

@task
def quick():
    pass
"""
_SECONDS = 60
_RATE = 500
_MOST_SHIFT = 0.05
_WATCH_SHIFTS = """() => {
  window.shift = 0;
  new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.shift += entry.value;
  }).observe({ type: "layout-shift" });
}"""


@pytest.fixture(params=brokers.NAMES)
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    with open_project(tmp_path, *brokers.address_of(request.param, tmp_path)) as opened:
        opened.write("tasks.py", _TASKS)
        yield opened


@pytest.mark.parametrize("path", ["/", "/queues", "/jobs"])
def test_a_busy_page_holds_still(project: Project, path: str) -> None:
    config = load_config({"broker": project.address.broker, "store": project.address.store}, environ={})
    ended = threading.Event()
    feeder = threading.Thread(target=_feed, args=(project.client, ended))
    with chromium() as browser, Served(config) as served:
        tab = Tab(browser, served.address)
        project.worker("busy", "--greenlets", "20").until_output("worker.started")
        feeder.start()
        try:
            tab.page.goto(path)
            tab.page.get_by_text("busy").first.wait_for()
            if path == "/":  # the first numbers, which workers report every 10 s, make the charts
                tab.until(lambda: tab.page.locator(".plot canvas:visible").count() == 3)
            tab.page.wait_for_timeout(2000)
            tab.page.evaluate(_WATCH_SHIFTS)
            reads = tab.reads
            tab.page.wait_for_timeout(_SECONDS * 1000)
            shift = tab.page.evaluate("window.shift")
            print(f"{path}: layout shift {shift:.4f} in {_SECONDS} s, {tab.reads - reads} reads")
            assert tab.reads - reads > 10
            assert shift < _MOST_SHIFT
            assert tab.problems == []
        finally:
            ended.set()
            feeder.join()


def _feed(client: Client, ended: threading.Event) -> None:
    while not ended.wait(0.2):
        client.queue_jobs("tasks.quick", ({} for _ in range(_RATE // 5)), queue="busy")
