"""A composed broker keeps the contract: with both halves in memory, where a failure is easiest to read."""

from __future__ import annotations

import pytest

from mrq_core.clock import Clock
from mrq_core.composed import ComposedBroker
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance import BrokerContract, BrokerFactory
from mrq_core.testing.conformance.against_model import MachineContract
from mrq_core.testing.memory import MemoryQueue, MemoryStore, QueueData, StoreData


def open_pair(clock: Clock, queue: QueueData, store: StoreData) -> ComposedBroker:
    return ComposedBroker(MemoryQueue(clock=clock, data=queue), MemoryStore(clock=clock, data=store))


class TestComposedOfMemory(BrokerContract):
    lets_go_in_steps = False

    @pytest.fixture
    def broker_factory(self) -> BrokerFactory:
        queue, store = QueueData(), StoreData()
        return lambda clock: open_pair(clock, queue, store)


class TestComposedAgainstModel(MachineContract):
    examples = 100

    @pytest.fixture
    def empty_broker_factory(self) -> BrokerFactory:
        return lambda clock: open_pair(clock, QueueData(), StoreData())


@pytest.mark.campaign
class TestComposedAgainstModelInFull(TestComposedAgainstModel):
    examples = MachineContract.examples


def test_the_time_of_a_pair_is_that_of_the_clock_of_its_queue() -> None:
    queue_clock, store_clock = ManualClock(), ManualClock()
    store_clock.advance(60.0)
    broker = ComposedBroker(
        MemoryQueue(clock=queue_clock, data=QueueData()), MemoryStore(clock=store_clock, data=StoreData())
    )
    assert broker.now() == queue_clock.now()
    queue_clock.advance(5.0)
    assert broker.now() == queue_clock.now()
