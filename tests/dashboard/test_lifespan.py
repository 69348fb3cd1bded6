"""An application that starts again, or that several event loops serve."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

from httpx2 import ASGITransport, AsyncClient
from starlette.testclient import TestClient

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_dashboard import create_dashboard


def dashboard(folder: Path) -> Config:
    config = Config(broker=f"sqlite:///{folder}/jobs.sqlite3")
    client = Client(config)
    client.queue_job("some.Task", {})
    client.close()
    return config


def test_an_application_that_has_ended_may_start_again(tmp_path: Path) -> None:
    """As where each test of a program starts it: ``with TestClient(app)``."""
    app = create_dashboard(dashboard(tmp_path))
    for _ in range(3):
        with TestClient(app, base_url="http://localhost", client=("127.0.0.1", 5)) as site:
            assert site.get("/api/jobs").json()["jobs"][0]["path"] == "some.Task"
            assert app.state.live.is_stopped is False


def test_several_event_loops_share_an_application(tmp_path: Path) -> None:
    app = create_dashboard(dashboard(tmp_path))
    statuses: list[int] = []

    async def ask() -> None:
        transport = ASGITransport(app, client=("127.0.0.1", 5))
        async with AsyncClient(transport=transport, base_url="http://localhost") as site:
            answers = await asyncio.gather(*(site.get("/api/jobs") for _ in range(40)))
            statuses.extend(answer.status_code for answer in answers)

    threads = [threading.Thread(target=asyncio.run, args=(ask(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 160
