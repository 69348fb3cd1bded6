"""A real browser for tests of pages: Debian's chromium, driven by Playwright (`pip install playwright`)."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from tests import brokers, browsers
from tests.dashboard.test_live import Served
from tests.support import Project, open_project, until

AXE = Path(__file__).with_name("vendor") / "axe.min.js"
_FIND_VIOLATIONS = """async (part) => {
  const { violations } = await axe.run(part ? { include: part } : document, { resultTypes: ["violations"] });
  return violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes[0].html.slice(0, 300)}`);
}"""


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright. Skips the test, with the reason, where there is none."""
    path = browsers.installed()
    if path is None:
        pytest.skip("no browser: chromium is not installed; `python -m tests.browsers FOLDER` gets one")
    try:
        api = importlib.import_module("playwright.sync_api")
    except ImportError:
        pytest.skip("no driver for a browser: playwright is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


class Tab:
    """One tab with its own cookies, and what it reported: errors, and requests to other machines."""

    def __init__(self, browser: Any, address: str, *, width: int = 1400, **context: Any) -> None:
        viewport = {"width": width, "height": 900}
        self.context = browser.new_context(
            viewport=viewport, base_url=f"http://{address}", locale="en-US", **context
        )
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.problems: list[str] = []
        self.reads = 0
        self._address = address
        self.page.on("console", lambda message: self.problems.append(f"console: {message.text}"))
        self.page.on("pageerror", lambda error: self.problems.append(f"error: {error}"))
        self.page.on("request", self._note)

    def _note(self, request: Any) -> None:
        if urlsplit(request.url).netloc != self._address:
            self.problems.append(f"request: {request.url}")
        self.reads += "x-fragment" in request.headers

    def open(self, path: str) -> None:
        """Opens a page, and waits until it follows changes."""
        before = self.reads
        self.page.goto(path)
        self.page.evaluate("window.isSamePage = true")
        self.until(lambda: self.reads > before)

    def until(self, condition: Any) -> None:
        """Waits while the browser works on."""
        until(lambda: self.page.wait_for_timeout(20) or condition(), patience=20)

    def until_text(self, text: str) -> None:
        """Waits until the page shows the text, without having been loaded again."""
        self.page.get_by_text(text).first.wait_for()
        assert self.page.evaluate("window.isSamePage") is True

    def violations(self, part: str = "") -> list[str]:
        """What axe-core finds on the page, or in the part that a selector names."""
        if not self.page.evaluate("window.axe !== undefined"):
            self.page.evaluate(AXE.read_text())
        found: list[str] = self.page.evaluate(_FIND_VIOLATIONS, part)
        return found

    def close(self) -> None:
        self.context.close()


class Stage(NamedTuple):
    """A browser, a dashboard, and a project with the same broker."""

    browser: Any
    address: str
    project: Project

    @property
    def client(self) -> Client:
        return self.project.client

    def tab(self, **options: Any) -> Tab:
        return Tab(self.browser, self.address, **options)


@contextmanager
def staged(name: str, folder: Path, *, tasks: str = "") -> Iterator[Stage]:
    """A stage on the broker of this name, with the code of the project's tasks."""
    address = brokers.address_of(name, folder)
    config = load_config({"broker": address.broker, "store": address.store}, environ={})
    with chromium() as browser, open_project(folder, *address) as project:
        project.write("tasks.py", tasks)
        project.client.broker.prepare()
        with Served(config) as served:
            yield Stage(browser, served.address, project)


def press(tab: Tab, button: str) -> None:
    """Presses a button or link of the page."""
    tab.page.locator(f'main .row :is(a, button):has-text("{button}")').first.click()


def dialog_of(tab: Tab) -> Any:
    """The open dialog of an action."""
    dialog = tab.page.locator("dialog#act[open]")
    dialog.wait_for()
    return dialog


def fill(tab: Tab, **fields: str) -> Any:
    """Fills in fields of the dialog, which it returns. A checkbox is checked by any text but an empty one."""
    dialog = dialog_of(tab)
    for name, value in fields.items():
        field = dialog.locator(f'[name="{name}"]')
        if field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(value)
        elif field.get_attribute("type") == "checkbox":
            field.set_checked(bool(value))
        else:
            field.fill(value)
    return dialog


def confirm(tab: Tab, **fields: str) -> None:
    """Fills in fields of the dialog, and presses its button."""
    fill(tab, **fields).locator("button.primary, button.danger").click()


def notice(tab: Tab, text: str) -> None:
    """Waits for the notice of the next page."""
    tab.page.locator(".notice", has_text=text).wait_for()
