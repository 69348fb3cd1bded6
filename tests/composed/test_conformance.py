"""The pair of Redis and MongoDB keeps the contract.

The usual run takes the parts in which both servers act in one call. Each half has its own contract, and the
composition is tested on the whole contract with both halves in memory. The campaign runs all of it.
"""

from __future__ import annotations

from functools import partial

import pytest

from mrq_core.clock import Clock
from mrq_core.composed import ComposedBroker
from mrq_core.testing.conformance import (
    ApplyContract,
    BrokerContract,
    BrokerFactory,
    BulkContract,
    ChangeContract,
    ClaimContract,
    EditContract,
    EnqueueContract,
    GreenletContract,
    LeaseContract,
    ModelContract,
    ProcessContract,
    PruneContract,
    RawArgumentContract,
    RawContract,
    SettleContract,
    ThreadContract,
    UniqueContract,
    WaitContract,
)
from mrq_core.testing.conformance.against_model import MachineContract
from tests.composed.kit import Place, open_broker


class TestRedisAndMongo(
    EnqueueContract,
    UniqueContract,
    ClaimContract,
    LeaseContract,
    SettleContract,
    ChangeContract,
    EditContract,
    ApplyContract,
    RawArgumentContract,
    RawContract,
    WaitContract,
    PruneContract,
    BulkContract,
    ThreadContract,
    ProcessContract,
    GreenletContract,
    ModelContract,
):
    @pytest.fixture
    def broker_factory(self, place: Place) -> BrokerFactory:
        return partial(open_broker, place)

    @pytest.fixture
    def process_factory(self, broker_factory: BrokerFactory) -> BrokerFactory:
        return broker_factory


@pytest.mark.campaign
class TestRedisAndMongoInFull(BrokerContract):
    broker_factory = TestRedisAndMongo.broker_factory
    process_factory = TestRedisAndMongo.process_factory


def open_empty(place: Place, clock: Clock) -> ComposedBroker:
    """A broker there, after what another one has left was deleted."""
    place.clear()
    return open_broker(place, clock)


@pytest.mark.timeout(900)
class TestRedisAndMongoAgainstModel(MachineContract):
    examples = 8  # of 40 steps, each of several round trips

    @pytest.fixture
    def empty_broker_factory(self, place: Place) -> BrokerFactory:
        return partial(open_empty, place)


@pytest.mark.campaign
class TestRedisAndMongoAgainstModelInFull(TestRedisAndMongoAgainstModel):
    examples = MachineContract.examples
