"""Each action on queues, tasks, schedules, workers and limits in a real browser, on each broker."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from mrq_core.contract.record import Status
from mrq_core.operations.limits import find_limit, set_limit
from mrq_core.operations.queue_contents import what_waits
from mrq_core.operations.schedules import find_schedule, list_schedules
from mrq_core.operations.workers import list_workers
from tests import brokers
from tests.dashboard.browsing import Stage, Tab, confirm, notice, press, staged
from tests.support import until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]

_TASKS = """
import logging, time
from typing import Literal
from mrq_core import task

@task
def charge(user_id: int, mode: Literal["fast", "slow"] = "slow", note: str = "x"):
    logging.getLogger("shop").warning("charged %s", user_id)

@task
def nap(seconds: float):
    time.sleep(seconds)
"""
ODD = "a/pause <b>🦄</b> ?*"


@pytest.fixture(scope="module", params=brokers.NAMES)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(request.param, tmp_path_factory.mktemp("rooms"), tasks=_TASKS) as made:
        yield made


@pytest.fixture
def tab(stage: Stage) -> Iterator[Tab]:
    made = stage.tab()
    yield made
    made.close()


def queue_page(name: str) -> str:
    return f"/queues?name={quote(name, safe='')}"


def test_a_queue_is_paused_resumed_moved_and_purged(tab: Tab, stage: Stage) -> None:
    broker = stage.client.broker
    stage.client.queue_jobs("tasks.nap", [{"seconds": 0.0}] * 12, queue=ODD)
    tab.open(queue_page(ODD))
    press(tab, "Pause")
    confirm(tab, duration="15m")
    notice(tab, "is paused until")
    assert ODD in broker.rules().queues
    press(tab, "Resume")
    notice(tab, "is resumed")
    assert broker.rules().queues == {}
    press(tab, "Move jobs")
    confirm(tab, to="elsewhere")
    notice(tab, "12 jobs moved to queue elsewhere")
    assert what_waits(broker, "elsewhere").number == 12
    tab.open(queue_page("elsewhere"))
    press(tab, "Purge")
    dialog = tab.page.locator("#act[open]")
    dialog.wait_for()
    assert "Remove 12 jobs" in dialog.inner_text()
    assert tab.violations() == []
    confirm(tab)
    notice(tab, "12 jobs removed")
    assert what_waits(broker, "elsewhere").number == 0
    assert tab.problems == []


def test_many_jobs_of_a_queue_are_purged_with_their_progress(tab: Tab, stage: Stage) -> None:
    for _ in range(10):
        stage.client.queue_jobs("tasks.nap", [{"seconds": 0.0}] * 10_000, queue="large")
    tab.open(queue_page("large"))
    press(tab, "Purge")
    assert "Remove 100,000 jobs" in tab.page.locator("#act[open]").inner_text()
    confirm(tab)
    notice(tab, "bulk action on 100,000 jobs has begun")
    assert tab.page.url.partition("?")[0].endswith("/jobs/bulk")
    until(lambda: what_waits(stage.client.broker, "large").number == 0, patience=300)
    assert tab.problems == []


def test_two_people_pause_one_queue_at_once(stage: Stage) -> None:
    tabs = [stage.tab(), stage.tab(width=400)]
    for one in tabs:
        one.open(queue_page("both"))
        press(one, "Pause")
    for one, duration in zip(tabs, ("1h", "2h"), strict=True):
        confirm(one, duration=duration)
        notice(one, "is paused until")
    pause = stage.client.broker.rules().queues["both"]
    assert pause.until is not None
    assert pause.since is not None
    assert (pause.until - pause.since).total_seconds() > 3700
    tabs[0].page.locator(".facts", has_text="paused").wait_for()
    press(tabs[1], "Resume")
    notice(tabs[1], "is resumed")
    tabs[0].until(lambda: tabs[0].page.locator(".facts", has_text="paused").count() == 0)
    for one in tabs:
        assert one.problems == []
        one.close()


def test_a_job_is_queued_by_keyboard_from_the_form_of_its_task(tab: Tab, stage: Stage) -> None:
    worker = stage.project.worker("--burst", "publish")
    assert worker.wait() == 0
    stage.project.queue("tasks.charge", {"user_id": 1}, queue="publish")
    worker = stage.project.worker("--burst", "publish")
    assert worker.wait() == 0
    tab.open("/tasks/tasks.charge")
    link = tab.page.locator('main .row a:has-text("Queue a job")')
    link.focus()
    tab.page.keyboard.press("Enter")
    dialog = tab.page.locator("#act[open]")
    dialog.wait_for()
    focused = "document.activeElement.name"
    assert tab.page.evaluate(focused) == "argument.user_id"
    tab.page.keyboard.type("seven")
    tab.page.keyboard.press("Enter")
    dialog.locator(".field .problem", has_text="expected a number").wait_for()
    assert tab.page.evaluate(focused) == "argument.user_id"
    assert tab.page.evaluate("document.activeElement.value") == "seven"
    assert tab.violations() == []
    tab.page.keyboard.press("Control+a")
    tab.page.keyboard.type("7")
    assert dialog.locator(".problem:visible").count() == 0  # typing takes the error away
    dialog.locator('[name="argument.mode"]').select_option('"fast"')
    dialog.locator('[name="queue"]').fill("by-hand")
    dialog.locator('[name="queue"]').press("Enter")
    notice(tab, "A job of tasks.charge is queued")
    job_id = re.search(r"/jobs/([0-9a-f]{24})", tab.page.url)
    assert job_id is not None
    record = stage.client.fetch(job_id[1])
    assert (record.params, record.queue) == ({"user_id": 7, "mode": "fast"}, "by-hand")
    tab.problems = [one for one in tab.problems if "400 (Bad Request)" not in one]
    assert tab.problems == []


def test_a_task_is_paused_and_resumed(tab: Tab, stage: Stage) -> None:
    stage.project.queue("tasks.nap", {"seconds": 0.0}, queue="later")
    tab.open("/tasks/tasks.nap")
    press(tab, "Pause")
    confirm(tab)
    notice(tab, "is paused until it is resumed")
    assert "tasks.nap" in stage.client.broker.rules().tasks
    press(tab, "Resume")
    notice(tab, "is resumed")
    assert stage.client.broker.rules().tasks == {}
    assert tab.problems == []


def test_a_schedule_is_added_changed_run_paused_backfilled_and_deleted(tab: Tab, stage: Stage) -> None:
    broker = stage.client.broker
    tab.open("/schedules")
    press(tab, "Add a schedule")
    confirm(tab, path="tasks.nap", name="hourly", cron="0 * * * *", params='{"seconds": 0}')
    notice(tab, "The schedule hourly is added")
    press(tab, "Run now")
    notice(tab, "has queued the job")
    press(tab, "Pause")
    confirm(tab, why="stock-taking")
    notice(tab, "is paused")
    assert find_schedule(broker, "hourly").pause_reason == "stock-taking"
    press(tab, "Resume")
    notice(tab, "is resumed")
    press(tab, "Backfill")
    confirm(tab, start="3h")
    notice(tab, "has queued 3 jobs")
    press(tab, "Change")
    confirm(tab, cron="", interval="15m", queue="slow")
    notice(tab, "is changed")
    definition = find_schedule(broker, "hourly").definition
    assert (definition.interval, definition.cron, definition.queue) == (900.0, None, "slow")
    press(tab, "Delete")
    confirm(tab)
    notice(tab, "is deleted")
    assert list_schedules(broker) == []
    # The page of the schedule may be read once more between its deletion and the next page.
    assert [one for one in tab.problems if "404 (Not Found)" not in one] == []


def test_a_worker_shows_its_log_drains_and_stops(tab: Tab, stage: Stage) -> None:
    def at_work() -> str | None:
        return next((one.name for one in list_workers(stage.client.broker) if one.is_at_work), None)

    worker = stage.project.worker("served")
    name = until(at_work, what="a report of the worker")
    job_id = stage.project.queue("tasks.charge", {"user_id": 4711}, queue="served")
    stage.project.ended(job_id)
    tab.open(f"/workers/{name}")
    press(tab, "Log")
    tab.page.get_by_text("charged 4711").wait_for()
    assert tab.violations() == []
    tab.page.get_by_role("link", name=name).click()
    press(tab, "Stacks")
    tab.page.get_by_text("no job is running").wait_for()
    assert tab.violations() == []
    tab.open(f"/workers/{name}")
    press(tab, "Drain")
    confirm(tab)
    notice(tab, "finishes its running jobs, and ends")
    assert worker.wait() == 0

    worker = stage.project.worker("served", "--stop-grace", "1000")
    name = until(at_work, what="a report of the worker")
    job_id = stage.project.queue("tasks.nap", {"seconds": 1000}, queue="served")
    until(lambda: stage.client.fetch(job_id).status is Status.STARTED)
    tab.open(f"/workers/{name}")
    press(tab, "Stop")
    confirm(tab, now="true")
    notice(tab, "interrupts its running jobs now")
    assert worker.wait() == 0
    assert stage.client.fetch(job_id).status is Status.INTERRUPT
    assert tab.problems == []


def test_a_limit_is_set_changed_and_removed(tab: Tab, stage: Stage) -> None:
    set_limit(stage.client.broker, "partner", concurrency=2)
    tab.open("/limits")
    press(tab, "Set a limit")
    confirm(tab, name="api", concurrency="5")
    notice(tab, "The limit api is 5 at once")
    tab.page.locator('tr:has-text("partner") a:has-text("Change")').click()
    confirm(tab, concurrency="3", rate="1.5", per="1m")
    notice(tab, "The limit partner is 3 at once, 1.5 per minute")
    tab.page.locator('tr:has-text("partner") a:has-text("Remove")').click()
    confirm(tab)
    notice(tab, "is removed")
    assert find_limit(stage.client.broker, "partner") is None
    assert tab.problems == []


@pytest.mark.parametrize("width", [1400, 400])
def test_actions_work_without_scripts(stage: Stage, width: int) -> None:
    tab = stage.tab(width=width, java_script_enabled=False)
    page = tab.page
    page.goto(queue_page("plain"))
    page.locator('main .row a:has-text("Pause")').click()
    page.locator('[name="duration"]').fill("soon")
    page.locator("button.primary").click()
    page.get_by_text("expected a duration").wait_for()
    assert page.locator('[name="duration"]').input_value() == "soon"
    page.locator('[name="duration"]').fill("15m")
    page.locator("button.primary").click()
    page.locator(".notice", has_text="is paused until").wait_for()
    page.locator('main .row button:has-text("Resume")').click()
    page.locator(".notice", has_text="is resumed").wait_for()
    assert stage.client.broker.rules().queues == {}
    tab.close()


@pytest.mark.parametrize("width", [1400, 400])
def test_forms_are_accessible_and_fit_a_small_window(stage: Stage, width: int) -> None:
    tab = stage.tab(width=width)
    for path in (
        "/schedule/add",
        "/limit/set",
        "/queue/pause?name=x",
        "/queue/move?name=x",
        "/task/queue?path=a.B",
    ):
        tab.page.goto(path)
        assert tab.violations() == [], path
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    tab.close()
