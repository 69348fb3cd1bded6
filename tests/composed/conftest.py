"""The servers that tests share. Each test finds nothing on them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator

import pytest

from tests import brokers
from tests.composed.kit import Place
from tests.mongo.kit import Place as MongoPlace
from tests.redis.kit import Place as RedisPlace

_numbers = itertools.count()


@pytest.fixture
def place() -> Iterator[Place]:
    """An empty place on both servers."""
    redis = RedisPlace(brokers.server_url("redis"), f"composed-{os.getpid()}-{next(_numbers)}")
    place = Place(redis, MongoPlace(brokers.server_url("mongo"), f"composed-{os.getpid()}"))
    yield place
    place.clear()
