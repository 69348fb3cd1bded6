"""The embedded broker keeps the contract."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from mrq_core.clock import Clock
from mrq_core.contract.broker import Broker
from mrq_core.testing.conformance import BrokerContract, BrokerFactory
from tests.embedded.kit import open_broker


def open_at(path: Path, clock: Clock) -> Broker:
    """A broker on the file, in whichever process."""
    return open_broker(path, clock=clock)


class TestEmbeddedBroker(BrokerContract):
    @pytest.fixture
    def broker_factory(self, tmp_path: Path) -> BrokerFactory:
        return partial(open_at, tmp_path / "mrq.sqlite3")

    @pytest.fixture
    def process_factory(self, broker_factory: BrokerFactory) -> BrokerFactory:
        return broker_factory
