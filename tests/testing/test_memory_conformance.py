"""The in-memory broker keeps the contract."""

from __future__ import annotations

import pytest

from mrq_core.testing import MemoryBroker, MemoryData
from mrq_core.testing.conformance import BrokerContract, BrokerFactory


class TestMemoryBroker(BrokerContract):
    @pytest.fixture
    def broker_factory(self) -> BrokerFactory:
        data = MemoryData()
        return lambda clock: MemoryBroker(clock=clock, data=data)
