"""The server that tests share. Each test has another prefix on it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from mrq_broker_redis.broker import RedisBroker
from mrq_core.testing.clock import ManualClock
from tests.proxy import Proxy
from tests.redis.kit import Place, open_broker
from tests.redis.servers import Server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def server_url(request: pytest.FixtureRequest) -> str:
    """A server that is already there, if MRQ_TEST_REDIS_URL names one; otherwise ours."""
    url = os.environ.get("MRQ_TEST_REDIS_URL")
    if url:
        return url
    server: Server = request.getfixturevalue("server")
    return server.url


@pytest.fixture
def place(server_url: str) -> Iterator[Place]:
    """Empty keys on the server."""
    place = Place(server_url, f"test-{os.getpid()}-{next(_numbers)}")
    yield place
    place.clear()


@pytest.fixture
def proxy(place: Place, server: Server) -> Iterator[Proxy]:
    """Stands before the server, and can lose its replies."""
    if os.environ.get("MRQ_TEST_REDIS_URL"):
        pytest.skip("the proxy stands before a server that the tests have started")
    with Proxy(server.port) as proxy:
        yield proxy


@pytest.fixture
def clock() -> ManualClock:
    """A clock that tests advance."""
    return ManualClock()


@pytest.fixture
def broker(place: Place, clock: ManualClock) -> Iterator[RedisBroker]:
    """A broker with that clock. Other tests make theirs."""
    broker = open_broker(place, clock)
    broker.prepare()
    yield broker
    broker.close()
