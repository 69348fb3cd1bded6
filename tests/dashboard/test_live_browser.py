"""A live page in a real browser: Debian's chromium, driven by Playwright (`pip install playwright`)."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.dashboard import scenes
from tests.dashboard.browsing import Stage, Tab, staged
from tests.support import Project

pytestmark = pytest.mark.campaign

_TASKS = """
import logging, pathlib, time
from mrq_core import task

@task
def talk(path):
    for number in range(3):
        logging.getLogger("talk").warning("line %s", number)
        while not pathlib.Path(path + str(number)).exists():
            time.sleep(0.02)

@task
def listen(ports):
    import socket
    for port in ports:
        socket.create_connection(("127.0.0.1", port)).recv(1)
"""


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged("sqlite", tmp_path, tasks=_TASKS) as made:
        yield made


@pytest.fixture
def project(stage: Stage) -> Project:
    return stage.project


@pytest.fixture
def tab(stage: Stage) -> Tab:
    return stage.tab()


def test_a_job_runs_and_its_log_line_appears(tab: Tab, project: Project, tmp_path: Path) -> None:
    job_id = project.queue("tasks.talk", {"path": f"{tmp_path}/go"})
    tab.open(f"/jobs/{job_id}")
    tab.until_text("Why is this not running?")
    project.worker("--greenlets", "1")
    for number in range(3):
        tab.until_text(f"line {number}")
        if number == 2:
            tab.page.evaluate("document.querySelector('.attempts details').open = false")
        (tmp_path / f"go{number}").touch()
    tab.until_text("What happened?")
    assert tab.page.locator(".head .status").first.inner_text() == "success"
    assert tab.page.locator(".log li").count() == 3
    assert tab.page.locator(".attempts details[open]").count() == 0
    assert tab.problems == []


def test_the_calls_of_a_running_job_change_and_become_stale(tab: Tab, project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as first, socket.create_server(("127.0.0.1", 0)) as second:
        ports = [server.getsockname()[1] for server in (first, second)]
        job_id = project.queue("tasks.listen", {"ports": ports})
        worker = project.worker("--trace-io")
        tab.open(f"/jobs/{job_id}")
        tab.until_text(f"socket recv from 127.0.0.1:{ports[0]}")
        with first.accept()[0] as connection:
            connection.sendall(b"x")
        tab.until_text(f"socket recv from 127.0.0.1:{ports[1]}")
        worker.send(signal.SIGKILL)
        tab.until_text("(stale)")
        tab.until_text(f"socket recv from 127.0.0.1:{ports[1]}")
        assert tab.problems == []


def test_a_page_keeps_what_its_reader_does(tab: Tab, project: Project) -> None:
    first = project.queue("tasks.first")
    tab.open("/jobs")
    tab.page.locator("#query").fill("status:queued")
    tab.page.locator("#query").evaluate("box => box.setSelectionRange(2, 5)")
    project.queue("tasks.second")
    tab.until_text("tasks.second")
    assert tab.page.evaluate("[document.activeElement.id, document.activeElement.selectionStart]") == [
        "query",
        2,
    ]
    assert tab.page.locator("#query").input_value() == "status:queued"

    tab.open(f"/jobs/{first}")
    tab.page.locator("h1 a").focus()
    reads = tab.reads
    tab.page.evaluate("getSelection().selectAllChildren(document.querySelector('.facts'))")
    project.client.broker.pause(["default"])
    tab.page.wait_for_timeout(1500)  # a page without a selected text reads itself within this time
    assert tab.reads == reads
    tab.page.evaluate("getSelection().removeAllRanges()")
    tab.until_text("has been paused for")
    assert tab.page.evaluate("document.activeElement.closest('h1') !== null")
    assert tab.problems == []


def test_a_paused_page_stays_paused(tab: Tab, project: Project) -> None:
    tab.open("/jobs")
    button = tab.page.get_by_role("button", name="Live")
    button.click()
    reads = tab.reads
    tab.page.reload()
    tab.page.get_by_role("button", name="Paused").wait_for()
    project.queue("tasks.first")
    tab.page.wait_for_timeout(1500)  # a live page reads itself within this time
    assert tab.reads == reads
    tab.page.get_by_role("button", name="Paused").click()
    tab.page.get_by_text("tasks.first").first.wait_for()
    assert tab.problems == []


def test_a_page_without_a_stream_reads_itself(tab: Tab, project: Project) -> None:
    tab.page.route("**/events*", lambda route: route.abort())
    tab.page.goto("/jobs")
    project.queue("tasks.first")
    tab.page.get_by_text("tasks.first").first.wait_for()
    assert all("ERR_FAILED" in problem for problem in tab.problems)


def test_charts_are_drawn(tab: Tab, project: Project) -> None:
    scenes.bad_day(project.client)
    for path, number in (("/", 3), ("/queues?name=mail", 2), (f"/tasks/{scenes.MAIL}", 2)):
        tab.open(path)
        tab.until(lambda number=number: tab.page.locator(".plot canvas:visible").count() == number)
        assert tab.page.locator(".plot + .chart:visible").count() == 0
    assert tab.problems == []
