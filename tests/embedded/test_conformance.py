"""The embedded broker keeps the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from mrq_core.broker import Opening
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.testing.conformance import BrokerContract, BrokerFactory


class TestEmbeddedBroker(BrokerContract):
    @pytest.fixture
    def broker_factory(self, tmp_path: Path) -> BrokerFactory:
        settings = {"SQLITE": str(tmp_path / "mrq.sqlite3")}
        return lambda clock: EmbeddedBroker(Opening(settings=settings, clock=clock))
