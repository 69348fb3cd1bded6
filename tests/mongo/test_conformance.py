"""The MongoDB broker keeps the contract."""

from __future__ import annotations

from functools import partial

import pytest

from mrq_core.testing.conformance import BrokerContract, BrokerFactory
from tests.mongo.kit import Place, open_broker


class TestMongoBroker(BrokerContract):
    @pytest.fixture
    def broker_factory(self, place: Place) -> BrokerFactory:
        return partial(open_broker, place)

    @pytest.fixture
    def process_factory(self, broker_factory: BrokerFactory) -> BrokerFactory:
        return broker_factory
