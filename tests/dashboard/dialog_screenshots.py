"""Takes screenshots of dialogs: python -m tests.dashboard.dialog_screenshots FOLDER [plain|hostile [WORD...]]

Each dialog as it opens, refused, filled, while it waits for its answer, and the page that follows; at 1400
and 400 px, light and dark. WORDs select dialogs by their names. Needs playwright and a chromium; pytest does
not run this file.
"""

from __future__ import annotations

import importlib
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from tests import browsers
from tests.dashboard import scenes
from tests.dashboard.browsing import Tab
from tests.dashboard.dialogs import DIALOGS, HOSTILE, PLACES, PLAIN, Dialog, Scene
from tests.dashboard.test_live import Served

_LOOKS = (("light", 1400), ("dark", 1400), ("light", 400), ("dark", 400))


def take(tab: Tab, dialog: Dialog, scene: Scene, name: str, folder: Path) -> None:
    """Takes one dialog in all its states."""

    def picture(state: str) -> None:
        tab.page.screenshot(path=folder / f"{dialog.name}-{state}-{name}.png")

    opened = dialog.open(tab, scene)
    picture("1open")
    button = opened.locator("button.primary, button.danger")
    if not dialog.is_possible:
        return
    if dialog.wrong:
        before = {one: opened.locator(f'[name="{one}"]').input_value() for one in dialog.wrong}
        dialog.fill(tab, dialog.wrong)
        button.click()
        opened.locator(".problem:visible").first.wait_for()
        picture("2refused")
        dialog.fill(tab, before)
    dialog.fill(tab, dialog.fields)
    picture("3filled")
    held: list[Any] = []
    tab.page.route(
        "**/*", lambda route: held.append(route) if route.request.method == "POST" else route.fallback()
    )
    button.click()
    opened.locator("button[aria-busy]").wait_for()
    tab.until(lambda: held)
    picture("4busy")
    held[0].continue_()
    tab.page.unroute("**/*")
    tab.page.locator(".notice").wait_for(timeout=5000)
    picture("5done")


def main(folder: Path, names: str, words: list[str]) -> None:
    """Takes the dialogs with these words in their names."""
    api: Any = importlib.import_module("playwright.sync_api")
    folder.mkdir(parents=True, exist_ok=True)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browsers.installed(), args=["--no-sandbox"])
        for scheme, width in _LOOKS:
            with tempfile.TemporaryDirectory() as data:
                config = load_config({"broker": f"sqlite:///{data}/jobs.sqlite3"}, environ={})
                client = Client(config)
                scenes.bad_day(client, jobs=20)
                scene = Scene(client, HOSTILE if names == "hostile" else PLAIN)
                with Served(config) as served:
                    tab = Tab(browser, served.address, width=width, color_scheme=scheme)
                    tab.page.set_default_timeout(8000)
                    take_all(tab, scene, f"{width}-{scheme}", folder, words)
                    tab.close()
                client.close()
        browser.close()


def take_all(tab: Tab, scene: Scene, name: str, folder: Path, words: list[str]) -> None:
    """Takes all dialogs and other forms."""
    for dialog in DIALOGS:
        if not words or any(word in dialog.name for word in words):
            try:
                take(tab, dialog, scene, name, folder)
            except Exception:  # the rest is worth a look, too
                print(dialog.name, name, traceback.format_exc().splitlines()[-4:])
                tab.page.screenshot(path=folder / f"{dialog.name}-broken-{name}.png")
                tab.page.unroute("**/*")
    for place in PLACES:
        if not words or any(word in place.name for word in words):
            tab.page.goto(place.make(scene))
            place.open(tab)
            tab.page.screenshot(path=folder / f"{place.name}-{name}.png", full_page=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "plain", sys.argv[3:])
