"""The embedded broker, put beside the in-memory model."""

from __future__ import annotations

from itertools import count
from pathlib import Path

import pytest

from mrq_core.contract.driver import Opening
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.testing.conformance import BrokerFactory
from mrq_core.testing.conformance.against_model import MachineContract


class TestEmbeddedAgainstModel(MachineContract):
    examples = 100

    @pytest.fixture
    def empty_broker_factory(self, tmp_path: Path) -> BrokerFactory:
        numbers = count()
        return lambda clock: EmbeddedBroker(
            Opening(settings={"SQLITE": str(tmp_path / f"{next(numbers)}.sqlite3")}, clock=clock)
        )


@pytest.mark.campaign
class TestEmbeddedAgainstModelInFull(TestEmbeddedAgainstModel):
    examples = MachineContract.examples
