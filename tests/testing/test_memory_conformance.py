"""The in-memory broker keeps the contract, and a second one does what the first one does."""

from __future__ import annotations

import pytest

from mrq_core.testing import MemoryBroker, MemoryData
from mrq_core.testing.conformance import BrokerContract, BrokerFactory
from mrq_core.testing.conformance.against_model import MachineContract


class TestMemoryBroker(BrokerContract):
    lets_go_in_steps = False

    @pytest.fixture
    def broker_factory(self) -> BrokerFactory:
        data = MemoryData()
        return lambda clock: MemoryBroker(clock=clock, data=data)


class TestMemoryAgainstItself(MachineContract):
    examples = 20

    @pytest.fixture
    def empty_broker_factory(self) -> BrokerFactory:
        return lambda clock: MemoryBroker(clock=clock)
