"""The server that tests share. Each test finds an empty prefix on it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.mongo.kit import Place
from tests.mongo.servers import Server
from tests.proxy import Proxy


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """A server that is already there, if MRQ_TEST_MONGO_URL names one; otherwise ours."""
    url = os.environ.get("MRQ_TEST_MONGO_URL")
    if url:
        return url
    server: Server = request.getfixturevalue("server")
    return server.url


@pytest.fixture
def place(server_url: str) -> Iterator[Place]:
    """Empty collections on the server."""
    place = Place(server_url, f"test-{os.getpid()}")
    yield place
    place.clear()


@pytest.fixture
def store_place(server_url: str) -> Iterator[Place]:
    """The same for a store whose queue is elsewhere: a prefix has one use."""
    place = Place(server_url, f"test-store-{os.getpid()}")
    yield place
    place.clear()


@pytest.fixture
def proxy(request: pytest.FixtureRequest) -> Iterator[Proxy]:
    """What loses replies of the server when it is told to."""
    if os.environ.get("MRQ_TEST_MONGO_URL"):
        pytest.skip("the proxy stands before a server that the tests have started")
    server: Server = request.getfixturevalue("server")
    with Proxy(server.port) as proxy:
        yield proxy
