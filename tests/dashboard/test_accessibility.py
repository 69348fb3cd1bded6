"""axe-core finds nothing on any page, and in no state of any dialog."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_dashboard.app import ENDPOINTS
from mrq_dashboard.auth import Role
from tests.dashboard import scenes
from tests.dashboard.browsing import Tab, chromium
from tests.dashboard.dialogs import DIALOGS, HOSTILE, PLACES, Dialog, Scene
from tests.dashboard.screenshots import pages_of
from tests.dashboard.test_live import Served

_WIDTHS = (1400, 400)
_OPEN = "dialog[open]"
_WIDE = """() => [...document.querySelectorAll("dialog[open], dialog[open] *")]
  .filter((one) => !one.matches(".unseen, svg *") && one.getBoundingClientRect().right > innerWidth + 1)
  .map((one) => one.outerHTML.slice(0, 200))"""


@pytest.mark.campaign
@pytest.mark.timeout(600)
@pytest.mark.parametrize("width", _WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("scene", ["bad", "empty", "demo"])
def test_axe_finds_nothing_on_pages(tmp_path: Path, scene: str, scheme: str, width: int) -> None:
    config = load_config({"broker": f"sqlite:///{tmp_path}/jobs.sqlite3"}, environ={})
    client = Client(config)
    client.broker.prepare()
    found: dict[str, list[str]] = {}
    with chromium() as browser, Served(config) as served:
        pages = pages_of(scene, client)
        tab = Tab(browser, served.address, width=width, color_scheme=scheme)
        for name, path in pages.items():
            tab.page.goto(path)
            tab.page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
            violations = tab.violations()
            if violations:
                found[name] = violations
    client.close()
    assert found == {}


def test_all_dialogs_are_walked() -> None:
    asking = {one.path for one in ENDPOINTS if not one.is_action and one.role > Role.READ}
    assert asking == {one.endpoint for one in DIALOGS}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Any, str, Scene]]:
    """A browser, and a dashboard of things with long and odd names."""
    config = load_config({"broker": f"sqlite:///{tmp_path}/jobs.sqlite3"}, environ={})
    client = Client(config)
    with chromium() as browser, Served(config) as served:
        scenes.bad_day(client, jobs=20)
        yield browser, served.address, Scene(client, HOSTILE)
    client.close()


@pytest.mark.campaign
@pytest.mark.timeout(900)
@pytest.mark.parametrize("width", _WIDTHS)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_in_dialogs(site: tuple[Any, str, Scene], scheme: str, width: int) -> None:
    """Each dialog, as it opens, refused, filled, while it waits for its answer, and the page that follows."""
    browser, address, scene = site
    found: dict[str, list[str]] = {}
    tab = Tab(browser, address, width=width, color_scheme=scheme, reduced_motion="reduce")

    def look(name: str, part: str = _OPEN) -> None:
        wrong = tab.violations(part) + (tab.page.evaluate(_WIDE) if part else [])
        found.update({name: wrong} if wrong else {})

    for dialog in DIALOGS:
        _walk(tab, dialog, scene, look)
    for place in PLACES:
        tab.page.goto(place.make(scene))
        place.open(tab)
        look(place.name, "")
    tab.close()
    assert not found, "\n".join(f"{name}: {wrong}" for name, wrong in found.items())


def _walk(tab: Tab, dialog: Dialog, scene: Scene, look: Any) -> None:
    opened = dialog.open(tab, scene)
    look(f"{dialog.name}: open")
    button = opened.locator("button.primary, button.danger")
    if not dialog.is_possible:
        assert button.count() == 0, dialog.name
        return
    if dialog.wrong:
        before = {name: opened.locator(f'[name="{name}"]').input_value() for name in dialog.wrong}
        dialog.fill(tab, dialog.wrong)
        button.click()
        opened.locator(".problem:visible").first.wait_for()
        look(f"{dialog.name}: refused")
        dialog.fill(tab, before)
    dialog.fill(tab, dialog.fields)
    held: list[Any] = []
    tab.page.route("**/*", lambda route: held.append(route) if _is_post(route) else route.fallback())
    button.click()
    opened.locator("button[aria-busy]").wait_for()
    tab.until(lambda: held)
    look(f"{dialog.name}: busy")
    held[0].continue_()
    tab.page.unroute("**/*")
    tab.page.locator(".notice").wait_for()
    look(f"{dialog.name}: done", "")


def _is_post(route: Any) -> bool:
    return bool(route.request.method == "POST")
