"""Takes the images of the documentation: python -m tests.dashboard.images [FOLDER]

Needs playwright, pillow and a chromium. pytest does not run this file.
"""

from __future__ import annotations

import importlib
import io
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from tests import browsers
from tests.dashboard import shop
from tests.dashboard.screenshots import served

_FOLDER = Path(__file__).parents[2] / "docs" / "images"
_QUALITY = 82


class Image(NamedTuple):
    """An image: its name, the page of the scene, and how it is taken."""

    name: str
    page: str
    scheme: str = "light"
    width: int = 1280
    height: int = 800
    scale: float = 1.0


_IMAGES = (
    Image("overview", "overview", height=880),
    Image("job", "job", "dark", height=880),
    Image("jobs", "jobs", height=680),
    Image("queue", "queue", height=880),
    Image("exception", "exception", "dark", height=760),
    Image("phone", "overview", width=400, height=820, scale=1.5),
)


def main(folder: Path) -> None:
    """Takes all images."""
    api: Any = importlib.import_module("playwright.sync_api")
    pillow: Any = importlib.import_module("PIL.Image")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as data, api.sync_playwright() as playwright:
        config = load_config({"broker": f"sqlite:///{data}/jobs.sqlite3"}, environ={})
        client = Client(config)
        pages = shop.fill(client)
        browser = playwright.chromium.launch(executable_path=browsers.installed(), args=["--no-sandbox"])
        with served(config) as address:
            for one in _IMAGES:
                page = browser.new_page(
                    viewport={"width": one.width, "height": one.height},
                    color_scheme=one.scheme,
                    device_scale_factor=one.scale,
                )
                page.goto(address + pages[one.page])
                page.wait_for_timeout(1500)  # charts
                picture = pillow.open(io.BytesIO(page.screenshot()))
                picture.save(folder / f"{one.name}.webp", quality=_QUALITY, method=6)
                page.close()  # its stream would keep the server
                print(one.name, (folder / f"{one.name}.webp").stat().st_size)
        browser.close()
        client.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else _FOLDER)
