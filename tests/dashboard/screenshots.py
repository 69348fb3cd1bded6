"""Takes screenshots of all pages: python -m tests.dashboard.screenshots FOLDER [SCENE...]

Needs playwright (`pip install playwright`) and Debian's chromium. Scenes: bad (a bad day), demo (the data of
`mrq demo`), shop (an afternoon), empty. Each page is taken at 1400 and 400 px, light and dark. pytest does
not run this file.
"""

from __future__ import annotations

import contextlib
import importlib
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.contract.terms import error_group
from mrq_dashboard import create_dashboard
from tests.dashboard import scenes, shop
from tests.support import until

_MENU = ("/", "/queues", "/jobs", "/exceptions", "/tasks", "/schedules", "/workers", "/limits", "/system")
_WIDTHS = (1400, 400)


def pages_of(scene: str, client: Client) -> dict[str, str]:
    """Makes the data of a scene. Returns the paths of its pages by name."""
    pages = {path.strip("/") or "overview": path for path in _MENU}
    if scene == "demo":
        broker = client.config.broker
        subprocess.run([sys.executable, "-m", "mrq_core.cli", "demo", "--broker", broker], check=True)
        failed = client.broker.find(JobFilter(statuses=(Status.FAILED,)), limit=1).records[0]
        return {**pages, "queue": "/queues?name=demo", "job": f"/jobs/{failed.id}"}
    if scene == "empty":
        return pages
    if scene == "shop":
        return {**pages, **shop.fill(client)}
    named = scenes.bad_day(client)
    group = error_group(scenes.MAIL, scenes.REFUSED, "shop.smtp:send") or ""
    more = {
        "queue-mail": "/queues?name=mail",
        "queue-paused": "/queues?name=reports/daily",
        "queue-timed": "/queues?name=crawl_timed_set",
        "jobs-failed": "/jobs?q=status:failed",
        "jobs-wrong": "/jobs?q=staus:failed",
        "exception": f"/exceptions?group={group.replace(' ', '+')}",
        "task": f"/tasks/{scenes.MAIL}",
        "schedule": "/schedules?name=carts",
        "worker": f"/workers/{scenes.WORKER}",
        "worker-dead": f"/workers/{scenes.DEAD_WORKER}",
        "gone": "/jobs/" + "0" * 24,
    }
    return {**pages, **more, **{f"job-{name}": f"/jobs/{job_id}" for name, job_id in named.items()}}


@contextlib.contextmanager
def served(config: Config) -> Iterator[str]:
    """Serves a dashboard. Yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    settings = uvicorn.Config(create_dashboard(config), log_level="warning", lifespan="off")
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    until(lambda: server.started)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()


def take(browser: Any, address: str, pages: dict[str, str], folder: Path) -> None:
    """Takes all pages, and prints what a browser reports: errors, and contents wider than the window."""
    for scheme in ("light", "dark"):
        for width in _WIDTHS:
            context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
            page = context.new_page()
            page.on("console", lambda message: print("  console:", message.text))
            for name, path in pages.items():
                page.goto(address + path)
                page.screenshot(path=folder / f"{name}-{width}-{scheme}.png", full_page=True)
                wide = page.evaluate("document.documentElement.scrollWidth") - width
                if wide > 0:
                    print(f"  {name} at {width}: {wide} px too wide")
            context.close()


def main(folder: Path, wanted: list[str]) -> None:
    """Takes the screenshots of these scenes."""
    api = importlib.import_module("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for scene in wanted:
            target = folder / scene
            target.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory() as data:
                settings = {"broker": f"sqlite:///{data}/jobs.sqlite3", "dashboard_name": "production"}
                config = load_config({**settings, "dashboard_color": "#c2255c"}, environ={})
                client = Client(config)
                client.broker.prepare()
                pages = pages_of(scene, client)
                with served(config) as address:
                    print(f"{scene}: {len(pages)} pages at {address}")
                    take(browser, address, pages, target)
                client.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:] or ["bad", "demo", "empty"])
