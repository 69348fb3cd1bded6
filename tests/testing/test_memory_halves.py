"""The halves in memory keep their contracts."""

from __future__ import annotations

import pytest

from mrq_core.testing.conformance import QueueContract, QueueFactory, StoreContract, StoreFactory
from mrq_core.testing.memory import MemoryQueue, MemoryStore, QueueData, StoreData


class TestMemoryQueue(QueueContract):
    @pytest.fixture
    def queue_factory(self) -> QueueFactory:
        data = QueueData()
        return lambda clock: MemoryQueue(clock=clock, data=data)


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        data = StoreData()
        return lambda clock: MemoryStore(clock=clock, data=data)
