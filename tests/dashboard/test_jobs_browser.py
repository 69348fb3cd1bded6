"""Each action on jobs in a real browser, on each broker: dialogs, selections, two tabs, 100,000 jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from mrq_core.contract.messages import CHUNK, Cancel, NewJob, Requeue
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_id
from mrq_core.operations.auditing import read_audit
from mrq_core.operations.bulk.bulk_actions import list_bulks
from tests import brokers
from tests.dashboard import scenes
from tests.dashboard.browsing import Stage, Tab, confirm, notice, staged
from tests.support import until

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(900)]

MANY = int(os.environ.get("MRQ_TEST_MANY", 100_000))


@pytest.fixture(scope="module", params=brokers.NAMES)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(request.param, tmp_path_factory.mktemp("jobs")) as made:
        yield made


@pytest.fixture
def tab(stage: Stage) -> Iterator[Tab]:
    made = stage.tab()
    yield made
    made.close()


@pytest.fixture
def queue() -> str:
    """Each test has a separate queue."""
    return f"q{new_id()}"


def failed(stage: Stage, queue: str, number: int = 1) -> list[str]:
    broker = stage.client.broker
    ids = [scenes.put(broker, queue) for _ in range(number)]
    scenes.fail(broker, scenes.take(broker, queue, number))
    return ids


def statuses(stage: Stage, queue: str) -> dict[str, int]:
    found = stage.client.broker.count(JobFilter(queues=(queue,)), "status").numbers
    return {status: number for status, number in found.items() if number}


def box(tab: Tab, job_id: str) -> Any:
    return tab.page.locator(f'input[name="ids"][value="{job_id}"]')


# --- one job ------------------------------------------------------------------------------------------


def test_each_action_on_a_job(tab: Tab, stage: Stage, queue: str) -> None:
    [job_id] = failed(stage, queue)
    steps: list[tuple[str, dict[str, str], str]] = [
        ("Requeue", {}, "is queued again"),
        ("Move", {"queue": f"{queue}x"}, "is moved to"),
        ("Priority", {"priority": "3"}, "has the priority 3"),
        ("Edit", {"params": '{"n": 9007199254740993}', "delay": "1h"}, "is edited: params, due time"),
        ("Cancel", {}, "is cancelled"),
    ]
    for words, fields, told in steps:
        tab.open(f"/jobs/{job_id}")
        tab.page.locator("main .head").get_by_role("link", name=words, exact=True).click()
        confirm(tab, **fields)
        notice(tab, told)
    record = stage.client.fetch(job_id)
    assert (record.status, record.queue, record.priority) == (Status.CANCEL, f"{queue}x", 3)
    assert record.params == {"n": 2**53 + 1}
    tab.page.locator("main .head").get_by_role("link", name="Run again", exact=True).click()
    confirm(tab, params='{"n": 2}')
    notice(tab, "is queued")
    new = tab.page.locator("#job-id").inner_text()
    assert (stage.client.fetch(new).params, new == job_id) == ({"n": 2}, False)
    tab.page.locator("main .head").get_by_role("link", name="Delete", exact=True).click()
    confirm(tab)
    notice(tab, "is removed")
    assert stage.client.broker.get([new]) == [None]
    assert tab.problems == []


def test_a_running_job_is_interrupted(tab: Tab, stage: Stage, queue: str) -> None:
    job_id = scenes.put(stage.client.broker, queue)
    scenes.take(stage.client.broker, queue)
    tab.open(f"/jobs/{job_id}")
    tab.page.get_by_role("link", name="Cancel", exact=True).click()
    confirm(tab)
    notice(tab, "its worker is asked to stop it")
    assert stage.client.fetch(job_id).cancel_requested


def test_a_button_that_is_pressed_twice_acts_once(tab: Tab, stage: Stage, queue: str) -> None:
    [job_id] = failed(stage, queue)
    tab.open(f"/jobs/{job_id}")
    tab.page.get_by_role("link", name="Run again", exact=True).click()
    tab.page.locator("dialog#act[open] button.primary").dblclick()
    notice(tab, "is queued")
    assert statuses(stage, queue) == {"failed": 1, "queued": 1}


def test_of_two_tabs_the_second_is_told(tab: Tab, stage: Stage, queue: str) -> None:
    [job_id] = failed(stage, queue)
    other = stage.tab()
    for one in (tab, other):
        one.open(f"/jobs/{job_id}")
        one.page.get_by_role("link", name="Requeue", exact=True).click()
        one.page.locator("dialog#act[open]").wait_for()
    confirm(tab)
    notice(tab, "is queued again")
    confirm(other)
    other.page.locator("dialog#act .problem", has_text="its status is queued").wait_for()
    other.page.keyboard.press("Escape")
    other.until(lambda: other.page.locator("dialog#act[open]").count() == 0)
    other.until_text("queued again")
    other.close()
    done = read_audit(stage.client.broker, wanted_text=job_id)[0]
    assert [entry.action for entry in done] == ["requeue"]


# --- many jobs ----------------------------------------------------------------------------------------


def test_rows_and_ranges_are_selected(tab: Tab, stage: Stage, queue: str) -> None:
    ids = failed(stage, queue, 8)[::-1]  # as the list has them
    tab.open(f"/jobs?q=queue:{queue}")
    box(tab, ids[1]).click()
    box(tab, ids[4]).click(modifiers=["Shift"])
    box(tab, ids[2]).click()
    tab.page.get_by_text("3 selected").wait_for()
    tab.page.get_by_role("button", name="Requeue", exact=True).click()
    tab.page.locator("dialog#act").get_by_text("Requeue 3 jobs").first.wait_for()
    confirm(tab)
    notice(tab, "3 jobs requeued")
    queued = {one.id for one in stage.client.broker.get(ids) if one and one.status is Status.QUEUED}
    assert queued == {ids[1], ids[3], ids[4]}
    assert "queue%3A" in tab.page.url
    assert "_done" not in tab.page.url
    tab.page.locator("input[data-page]").click()
    tab.page.get_by_text("8 selected").wait_for()
    assert tab.problems == []


def test_a_selection_outlives_what_a_live_page_shows(tab: Tab, stage: Stage, queue: str) -> None:
    ids = failed(stage, queue, 3)
    tab.open(f"/jobs?q=queue:{queue}")
    box(tab, ids[0]).click()
    box(tab, ids[1]).click()
    stage.client.broker.requeue([ids[2]], Requeue())
    tab.page.locator(f"#row-{ids[2]} .status[data-status=queued]").wait_for()
    assert [box(tab, one).is_checked() for one in ids] == [True, True, False]
    for _ in range(50):
        scenes.put(stage.client.broker, queue)
    tab.page.get_by_text("2 selected, 2 of them not on this page").wait_for()
    assert box(tab, ids[0]).count() == 0 or not box(tab, ids[0]).is_visible()
    tab.page.get_by_role("button", name="Cancel", exact=True).click()
    confirm(tab)
    notice(tab, "2 jobs cancelled")
    assert statuses(stage, queue) == {"cancel": 2, "queued": 51}
    assert tab.problems == []


def test_each_bulk_action(tab: Tab, stage: Stage, queue: str) -> None:
    failed(stage, queue, 3)
    steps: list[tuple[str, dict[str, str], str]] = [
        ("Requeue", {}, "3 jobs requeued"),
        ("Priority", {"priority": "-2"}, "3 jobs given the priority -2"),
        ("Move", {"queue": f"{queue}y"}, "3 jobs moved"),
        ("Cancel", {}, "3 jobs cancelled"),
        ("Delete", {}, "3 jobs removed"),
    ]
    for words, fields, told in steps:
        tab.open(f"/jobs?q=queue:{queue},{queue}y")
        tab.page.locator("input[data-all]").check()
        tab.page.locator(".bulk-bar").get_by_role("button", name=words, exact=True).click()
        confirm(tab, **fields)
        notice(tab, told)
    assert statuses(stage, queue) == {}
    assert tab.problems == []


def test_jobs_are_exported(tab: Tab, stage: Stage, queue: str) -> None:
    ids = failed(stage, queue, 3)
    tab.open(f"/jobs?q=queue:{queue}")
    box(tab, ids[0]).check()
    for button, name, lines in (("Export JSON", "jobs.jsonl", 1), ("Export CSV", "jobs.csv", 2)):
        with tab.page.expect_download() as got:
            tab.page.get_by_role("button", name=button).click()
        assert got.value.path().read_text().count("\n") == lines
        assert got.value.suggested_filename == name


def test_the_keyboard_suffices_in_a_small_window(stage: Stage, queue: str) -> None:
    ids = failed(stage, queue, 3)
    tab = stage.tab(width=400)
    tab.open(f"/jobs?q=queue:{queue}")
    assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box(tab, ids[0]).focus()
    tab.page.keyboard.press("Space")
    tab.page.get_by_text("1 selected").wait_for()
    tab.page.locator(".bulk-bar").get_by_role("button", name="Requeue", exact=True).focus()
    tab.page.keyboard.press("Enter")
    tab.page.locator("dialog#act[open]").wait_for()
    assert tab.page.evaluate("document.activeElement.closest('dialog') !== null")
    assert tab.page.evaluate("document.querySelector('dialog[open]').scrollWidth <= innerWidth")
    tab.page.locator("dialog#act[open] button.primary").focus()
    tab.page.keyboard.press("Enter")
    notice(tab, "1 job requeued")
    assert tab.violations() == []
    tab.close()


def test_yesterdays_failed_jobs_of_a_task_with_an_error_are_requeued_in_three_clicks(
    tab: Tab, stage: Stage, queue: str
) -> None:
    broker, path = stage.client.broker, f"shop.{queue}"
    yesterday = broker.now() - timedelta(days=1)
    wanted = [scenes.put(broker, queue, path, queued_at=yesterday) for _ in range(3)]
    today = [scenes.put(broker, queue, path) for _ in range(2)]
    scenes.fail(broker, scenes.take(broker, queue, 5))
    clicks = 0

    def click(one: Any) -> None:
        nonlocal clicks
        clicks += 1
        one.click()

    tab.open("/")
    tab.page.keyboard.press("/")
    tab.page.keyboard.type(f"status:failed path:{path} error:Refused since:36h until:12h")
    tab.page.keyboard.press("Enter")
    click(tab.page.locator("label", has_text="All 3 that match"))
    click(tab.page.locator(".bulk-bar").get_by_role("button", name="Requeue", exact=True))
    click(tab.page.get_by_role("button", name="Requeue 3 jobs"))
    notice(tab, "3 jobs requeued")
    assert clicks < 5
    assert {stage.client.fetch(one).status for one in wanted} == {Status.QUEUED}
    assert {stage.client.fetch(one).status for one in today} == {Status.FAILED}


def test_without_scripts_the_same_is_possible(stage: Stage, queue: str) -> None:
    [job_id] = failed(stage, queue)
    tab = stage.tab(java_script_enabled=False)
    tab.page.goto(f"/jobs?q=queue:{queue}")
    tab.page.locator('input[name="all"]').check()
    tab.page.get_by_role("button", name="Requeue", exact=True).click()
    tab.page.get_by_role("button", name="Requeue 1 job").click()
    notice(tab, "1 job requeued")
    tab.page.goto(f"/jobs/{job_id}")
    tab.page.get_by_role("link", name="Cancel", exact=True).click()
    tab.page.get_by_role("button", name="Cancel the job").click()
    notice(tab, "is cancelled")
    tab.close()


def test_many_jobs_are_requeued_while_two_tabs_look(tab: Tab, stage: Stage, queue: str) -> None:
    broker = stage.client.broker
    for _ in range(0, MANY, CHUNK):
        now = broker.now()
        values: dict[str, Any] = {"path": "a.B", "params": {}, "queued_at": now, "updated_at": now}
        jobs = [NewJob(record=JobRecord(id=new_id(), queue=queue, **values)) for _ in range(CHUNK)]
        broker.cancel([answer.id for answer in broker.enqueue(jobs)], Cancel())
    other = stage.tab()
    other.open("/jobs/bulk")
    tab.open(f"/jobs?q=queue:{queue}")
    tab.page.locator("input[data-all]").check()
    tab.page.locator(".bulk-bar").get_by_role("button", name="Requeue", exact=True).click()
    tab.page.locator("dialog#act").get_by_text(f"Requeue {MANY:,} jobs").first.wait_for()
    confirm(tab)
    notice(tab, "has begun")
    for one in (tab, other):
        row = one.page.locator(".bulk-list li", has_text=queue)
        row.get_by_text(f"{MANY:,} of {MANY:,}").wait_for(timeout=300_000)
    until(lambda: not any(bulk.is_running for bulk in list_bulks(broker)))
    assert statuses(stage, queue) == {"queued": MANY}
    assert tab.problems == other.problems == []
    other.close()


# --- looks --------------------------------------------------------------------------------------------

MEASURE = """
() => [...document.querySelectorAll("table.cards thead th")].map((cell) => {
  const text = [...cell.childNodes].at(-1);
  const range = document.createRange();
  range.selectNodeContents(text.lastChild ?? text);
  return [cell.innerText.trim(), cell.getBoundingClientRect().width, range.getBoundingClientRect().top];
})
"""


def test_the_heads_of_the_list_stand_in_a_line_and_an_empty_column_is_narrow(
    tab: Tab, stage: Stage, queue: str
) -> None:
    scenes.put(stage.client.broker, queue, params={"address": "anna@example.com " * 5})
    scenes.end(stage.client.broker, scenes.take(stage.client.broker, queue), Status.SUCCESS)
    tab.open(f"/jobs?q=queue:{queue}")
    cells = tab.page.evaluate(MEASURE)
    widths = {name: width for name, width, _ in cells}
    tops = [top for _, _, top in cells]
    assert max(tops) - min(tops) < 1
    assert widths["Reason"] < 150 < widths["Task"]
