"""The queue half on Redis keeps its contract, and what it costs."""

from __future__ import annotations

from functools import partial

import pytest

from mrq_core.testing.conformance import QueueContract, QueueFactory
from tests.redis.kit import Place, open_queue


class TestRedisQueue(QueueContract):
    @pytest.fixture
    def queue_factory(self, place: Place) -> QueueFactory:
        return partial(open_queue, place)
