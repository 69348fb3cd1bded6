"""A quick look at the dashboard in a real browser. The campaign looks closer: `test_browser.py`."""

from __future__ import annotations

from pathlib import Path

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from tests.dashboard import scenes
from tests.dashboard.browsing import Tab, chromium
from tests.dashboard.test_live import Served


def test_pages_are_live_searched_and_accessible_in_a_browser(tmp_path: Path) -> None:
    config = load_config({"broker": f"sqlite:///{tmp_path}/jobs.sqlite3"}, environ={})
    client = Client(config)
    with chromium() as browser, Served(config) as served:
        scenes.bad_day(client, jobs=20)
        tab = Tab(browser, served.address, width=400, color_scheme="dark", reduced_motion="reduce")
        tab.open("/")
        tab.until(lambda: tab.page.locator(".plot canvas:visible").count() == 3)
        assert tab.page.evaluate("document.documentElement.scrollWidth") <= 400
        assert tab.violations() == []
        tab.open("/jobs")
        client.queue_job("shop.new.One", queue="default")
        tab.until_text("shop.new.One")
        tab.page.keyboard.press("/")
        tab.page.keyboard.type("message:connections")
        tab.page.keyboard.press("Enter")
        tab.page.get_by_text("Refused: 451 too many connections").first.wait_for()
        tab.page.locator("tbody a[href^='/jobs/']").first.click()
        tab.page.get_by_role("heading", name="What happened?").wait_for()
        assert tab.violations() == []
        tab.page.go_back()
        assert tab.page.locator("#query").input_value() == "message:connections"
        tab.close()
        assert tab.problems == []
    client.close()
