"""The dashboard in a real browser, on each broker: with a worker, without a mouse, in a small window."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mrq_core.client.client import Client
from mrq_core.operations.limits import set_limit
from mrq_core.operations.schedules import add_schedule
from mrq_core.scheduler.definitions import Definition
from mrq_dashboard.rendering import MENU
from tests import brokers
from tests.dashboard import scenes
from tests.dashboard.browsing import Stage, Tab, confirm, dialog_of, notice, staged

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]

_TASKS = """
import logging, pathlib, time
from mrq_core import task

@task
def talk(path):
    for number in range(3):
        logging.getLogger("talk").warning("line %s", number)
        while not pathlib.Path(path + str(number)).exists():
            time.sleep(0.02)
    raise ValueError("the zebra 4711 has left its enclosure")
"""


@pytest.fixture(scope="module", params=brokers.NAMES)
def stage(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(request.param, tmp_path_factory.mktemp("browser"), tasks=_TASKS) as made:
        scenes.bad_day(made.client, jobs=20)
        yield made


@pytest.fixture
def tab(stage: Stage) -> Iterator[Tab]:
    """A tab, which must report nothing in the end."""
    made = stage.tab()
    yield made
    made.close()
    assert made.problems == []


def test_a_job_runs_fails_and_is_found_by_words_of_its_error(stage: Stage, tab: Tab, tmp_path: Path) -> None:
    job_id = stage.project.queue("tasks.talk", {"path": f"{tmp_path}/go"}, queue="zoo")
    tab.open(f"/jobs/{job_id}")
    tab.until_text("Why is this not running?")
    worker = stage.project.worker("zoo", "--greenlets", "1")
    for number in range(3):
        tab.until_text(f"line {number}")
        (tmp_path / f"go{number}").touch()
    tab.until_text("What happened?")
    assert tab.page.locator(".head .status").first.inner_text() == "failed"
    assert tab.page.locator(".log li").count() >= 3
    worker.end()
    tab.page.locator("#query").fill("zebra 4711")
    tab.page.locator("#query").press("Enter")
    row = tab.page.locator(f"#row-{job_id}")
    row.wait_for()
    assert "ValueError: the zebra 4711 has left its enclosure" in row.inner_text()
    row.get_by_role("link", name="tasks.talk").click()
    tab.page.get_by_text("raise ValueError").first.wait_for()


def test_filters_survive_a_reload_and_the_way_back(tab: Tab) -> None:
    tab.open("/jobs?q=queue:mail")
    tab.page.get_by_role("link", name=re.compile("^Failed")).click()
    tab.page.wait_for_url(re.compile(r"status%3Afailed"))
    for again in (lambda: None, tab.page.reload):
        again()
        assert tab.page.locator("#query").input_value() == "queue:mail status:failed"
        assert set(tab.page.locator("tbody tr td .status").all_inner_texts()) == {"failed"}
    tab.page.locator("tbody a[href^='/jobs/']").first.click()
    tab.page.get_by_role("heading", name="Timeline").wait_for()
    tab.page.go_back()
    tab.page.locator("tbody tr").first.wait_for()
    assert tab.page.locator("#query").input_value() == "queue:mail status:failed"
    tab.page.go_back()
    tab.page.wait_for_url(re.compile(r"q=queue:mail$"))


def test_a_keyboard_is_enough(tab: Tab) -> None:
    tab.open("/")
    keys = tab.page.keyboard
    keys.press("Tab")
    assert tab.page.evaluate("document.activeElement.className") == "skip"
    keys.press("Enter")
    keys.press("?")
    tab.page.get_by_role("dialog", name="Keyboard shortcuts").wait_for()
    keys.press("Escape")
    tab.page.get_by_role("dialog").wait_for(state="hidden")
    keys.press("g")
    keys.press("j")
    tab.page.wait_for_url("**/jobs")
    keys.press("/")
    assert tab.page.evaluate("document.activeElement.id") == "query"
    keys.type("status:failed ")
    keys.press("Enter")
    tab.page.wait_for_url("**/jobs?q=*")
    for _ in range(80):
        keys.press("Tab")
        focused = tab.page.evaluate(
            "(() => { const here = document.activeElement;"
            " return [here.getAttribute('href') || '', getComputedStyle(here).outlineStyle] })()"
        )
        assert focused[1] != "none", focused  # a reader sees where the focus is
        if re.match("/jobs/[0-9a-f]{24}$", focused[0]):
            break
    keys.press("Enter")
    tab.page.get_by_role("heading", name="What happened?").wait_for()


def test_the_page_keeps_scroll_focus_and_selection(stage: Stage, tab: Tab) -> None:
    tab.open("/jobs")
    link = tab.page.locator("tbody a[href^='/jobs/']").nth(20)
    link.focus()
    tab.page.evaluate("window.scrollTo(0, 500)")
    where = "[scrollY, document.activeElement.getAttribute('href')]"
    before = tab.page.evaluate(where)
    assert before[0] == 500
    reads = tab.reads
    stage.project.queue("shop.new.One", queue="default")
    tab.until_text("shop.new.One")
    assert tab.reads > reads
    assert tab.page.evaluate(where)[1] == before[1]
    tab.open("/queues?name=mail")
    tab.page.evaluate("getSelection().selectAllChildren(document.querySelector('h1'))")
    stage.project.queue("shop.new.Two", queue="mail")
    tab.page.wait_for_timeout(1500)  # a page without a selected text reads itself within this time
    assert tab.page.evaluate("getSelection().toString()") == "mail"


def row_of(tab: Tab, name: str) -> Any:
    return tab.page.locator("main tr", has=tab.page.get_by_text(name, exact=True))


def test_an_action_goes_to_the_queue_that_its_row_showed(stage: Stage, tab: Tab) -> None:
    """Rows change places while a dialog is open, and between the press of a button and its answer."""
    broker = stage.client.broker

    def grow(queue: str) -> None:
        """Adds jobs, so that the live page lists the queue first."""
        for _ in range(20):
            scenes.put(broker, queue)
        tab.until(lambda: listed()[0] == queue)

    def listed() -> list[str]:
        found: list[str] = tab.page.locator("main tbody td:first-child a").all_inner_texts()
        return found

    scenes.put(broker, "order/b")
    scenes.put(broker, "order/a")
    tab.open("/queues?find=order/&sort=waiting")
    assert listed() == ["order/a", "order/b"]
    row_of(tab, "order/b").get_by_role("link", name="Pause").click()
    dialog_of(tab)
    grow("order/b")
    confirm(tab)
    notice(tab, "The queue order/b is paused")
    assert {"order/a", "order/b"} & set(broker.paused()) == {"order/b"}

    broker.pause(["order/a"])
    tab.until(lambda: tab.page.get_by_role("button", name="Resume").count() >= 2)
    grow("order/a")  # both rows have a form now, which a live page does not change
    held: list[Any] = []
    tab.page.route("**/queue/resume", lambda route: held.append(route))
    button = row_of(tab, "order/b").get_by_role("button", name="Resume")
    button.evaluate("button => setTimeout(() => button.click())")
    tab.until(lambda: held)
    for _ in range(40):
        scenes.put(broker, "order/b")
    held[0].continue_()
    tab.page.unroute("**/queue/resume")
    notice(tab, "The queue order/b is resumed")
    assert {"order/a", "order/b"} & set(broker.paused()) == {"order/a"}
    tab.until(lambda: listed() == ["order/b", "order/a"])
    row_of(tab, "order/a").get_by_role("button", name="Resume").click()
    notice(tab, "The queue order/a is resumed")


def _insert_queue(client: Client) -> None:
    scenes.put(client.broker, "a first queue")


def _insert_schedule(client: Client) -> None:
    add_schedule(client.broker, Definition(name="a first schedule", path="a.B", interval=3600.0))


def _insert_error(client: Client) -> None:
    scenes.put(client.broker, "errors", "a.First")
    scenes.fail(client.broker, scenes.take(client.broker, "errors"), error_group="a.First E a:b")


def _insert_worker(client: Client) -> None:
    scenes.report(client.broker, "a-first.host.1")


def _insert_limit(client: Client) -> None:
    set_limit(client.broker, "a first limit", concurrency=1)


_CONTROLS = """() => Object.fromEntries([...document.querySelectorAll("main tbody tr")].map((row) => [
  row.querySelector("a, bdi").textContent,
  [...row.querySelectorAll("a[href], input[name=name]")].map((one) => one.value || one.getAttribute("href")),
]))"""
_ROW_OF_FOCUS = "() => document.activeElement.closest('tr')?.querySelector('a, bdi').textContent"


@pytest.mark.parametrize(
    ("path", "new", "insert"),
    [
        ("/queues", "a first queue", _insert_queue),
        ("/schedules", "a first schedule", _insert_schedule),
        ("/exceptions?sort=name", "a.First", _insert_error),
        ("/workers", "a-first.host.1", _insert_worker),
        ("/limits", "a first limit", _insert_limit),
    ],
)
def test_a_button_stays_with_its_row(
    stage: Stage, tab: Tab, path: str, new: str, insert: Callable[[Client], None]
) -> None:
    """A row that comes in before it moves all rows. The focused button stays in its row, and each button of
    the live page does what the button of a page does that is read anew."""
    scenes.report(stage.client.broker)
    for name in ("m", "z"):
        set_limit(stage.client.broker, name, concurrency=1)
    tab.open(path)
    last = tab.page.locator("main tbody tr :is(td:last-child :is(a, button))").last
    last.focus()
    before = tab.page.evaluate(_ROW_OF_FOCUS)
    assert before
    insert(stage.client)
    tab.until_text(new)
    assert tab.page.evaluate(_ROW_OF_FOCUS) == before
    live = tab.page.evaluate(_CONTROLS)
    tab.page.reload()
    assert tab.page.evaluate(_CONTROLS) == live


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_follow_the_scheme_of_the_system(stage: Stage, scheme: str) -> None:
    tab = stage.tab(color_scheme=scheme)
    tab.open("/")
    color = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
    red, green, blue = map(int, re.findall(r"\d+", color)[:3])
    assert (red + green + blue > 600) is (scheme == "light")
    tab.close()
    assert tab.problems == []


def test_pages_fit_into_400_pixels(stage: Stage) -> None:
    tab = stage.tab(width=400)
    long = stage.project.queue("shop.names.Long", {"name": "🦄" * 30}, queue="x" * 200)
    pages = (f"/tasks/{scenes.MAIL}", f"/workers/{scenes.WORKER}", "/queues?name=mail", f"/jobs/{long}")
    for path in (*(path for path, _, _ in MENU), *pages):
        tab.page.goto(path)
        tab.page.wait_for_timeout(50)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400, path
    tab.close()
    assert tab.problems == []


def test_nothing_moves_for_people_who_want_no_motion(stage: Stage) -> None:
    tab = stage.tab(reduced_motion="reduce")
    tab.open("/")
    tab.page.locator(".side a").nth(2).hover()
    tab.page.locator("[data-live]").hover()
    assert tab.page.evaluate("document.getAnimations().length") == 0
    assert tab.page.evaluate(
        "[...document.querySelectorAll('*')].every("
        "(one) => /^0s(, 0s)*$/.test(getComputedStyle(one).transitionDuration))"
    )
    tab.close()
