"""The embedded broker, opened from several processes, and put beside the in-memory model."""

from __future__ import annotations

from functools import partial
from itertools import count
from pathlib import Path

import pytest

from mrq_core.broker import Broker, Opening
from mrq_core.clock import Clock
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.testing.conformance import BrokerFactory, GreenletContract, ProcessContract
from mrq_core.testing.conformance.against_model import MachineContract


def open_embedded(path: str, clock: Clock) -> Broker:
    return EmbeddedBroker(Opening(settings={"SQLITE": path}, clock=clock))


class TestEmbeddedProcesses(ProcessContract, GreenletContract):
    @pytest.fixture
    def broker_factory(self, tmp_path: Path) -> BrokerFactory:
        return partial(open_embedded, str(tmp_path / "mrq.sqlite3"))

    @pytest.fixture
    def process_factory(self, broker_factory: BrokerFactory) -> BrokerFactory:
        return broker_factory


class TestEmbeddedAgainstModel(MachineContract):
    @pytest.fixture
    def empty_broker_factory(self, tmp_path: Path) -> BrokerFactory:
        numbers = count()
        return lambda clock: open_embedded(str(tmp_path / f"{next(numbers)}.sqlite3"), clock)
