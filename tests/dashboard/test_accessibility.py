"""axe-core finds nothing on any page: on a bad day, without data, and with the jobs of the demo."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from tests.dashboard.browsing import Tab, chromium
from tests.dashboard.screenshots import pages_of
from tests.dashboard.test_live import Served

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]


@pytest.mark.parametrize("width", [1400, 400])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("scene", ["bad", "empty", "demo"])
def test_axe_finds_nothing(tmp_path: Path, scene: str, scheme: str, width: int) -> None:
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
        tab.page.goto("/")
        tab.page.keyboard.press("?")
        found |= {"keys": violations} if (violations := tab.violations()) else {}
    client.close()
    assert found == {}
