"""The MongoDB broker, put beside the in-memory model."""

from __future__ import annotations

from functools import partial

import pytest

from mrq_broker_mongo.broker import MongoBroker
from mrq_core.clock import Clock
from mrq_core.testing.conformance import BrokerFactory
from mrq_core.testing.conformance.against_model import MachineContract
from tests.mongo.kit import Place, open_broker


def open_empty(place: Place, clock: Clock) -> MongoBroker:
    """A broker there, after what another one has left was deleted."""
    place.clear()
    return open_broker(place, clock)


@pytest.mark.timeout(600)
class TestMongoAgainstModel(MachineContract):
    examples = 8  # of 40 steps, each of several round trips

    @pytest.fixture
    def empty_broker_factory(self, place: Place) -> BrokerFactory:
        return partial(open_empty, place)


@pytest.mark.campaign
class TestMongoAgainstModelInFull(TestMongoAgainstModel):
    examples = MachineContract.examples
