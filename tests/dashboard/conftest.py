"""Each test gets an empty broker, and a dashboard of it that Starlette's test client asks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.testing import MemoryBroker
from mrq_dashboard import create_dashboard
from tests import brokers

MakeSite = Callable[..., TestClient]


def local_client(app: ASGIApp, **options: Any) -> TestClient:
    """A visitor from this machine, which needs no login."""
    settings = {"base_url": "http://localhost", "client": ("127.0.0.1", 50_000), **options}
    return TestClient(app, **settings)


@pytest.fixture(params=brokers.PARAMS)
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Config:
    """The configuration of an empty broker."""
    address = brokers.address_of(request.param, tmp_path)
    return load_config({"broker": address.broker, "store": address.store}, environ={})


@pytest.fixture
def client(config: Config) -> Iterator[Client]:
    """A client of the broker that the dashboard shows."""
    made = Client(config)
    yield made
    made.close()


@pytest.fixture
def site(config: Config) -> Iterator[TestClient]:
    """A dashboard in which each visitor has all rights."""
    with local_client(create_dashboard(config)) as made:
        yield made


@pytest.fixture
def make_site() -> Iterator[MakeSite]:
    """Makes dashboards of a broker in memory, with these settings; other names are for create_dashboard."""
    made: list[TestClient] = []

    def make(*, broker: MemoryBroker | None = None, **options: Any) -> TestClient:
        settings = {name: options.pop(name) for name in list(options) if name.startswith("dashboard_")}
        config = replace(Config(), **settings)
        client = Client(config, broker=broker or MemoryBroker())
        app = create_dashboard(config, client=client, **options)
        made.append(local_client(app, raise_server_exceptions=False))
        return made[-1]

    yield make
    for one in made:
        one.app.state.site.backend.runner.stop()  # type: ignore[attr-defined]
        one.close()
