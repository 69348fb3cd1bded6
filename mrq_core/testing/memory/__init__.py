"""The in-memory broker: the model that other drivers are compared with, and a broker for unit tests.

It is obviously correct rather than fast: plain dicts, one lock, linear scans. Its data live in one process
and end with it, so it is not registered as an entry point.
"""

from __future__ import annotations

from mrq_core.contract.broker import Broker
from mrq_core.contract.driver import Driver, Opening
from mrq_core.testing.memory.broker import MemoryBroker
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.queue import MemoryQueue, QueueData
from mrq_core.testing.memory.store import MemoryStore, StoreData

__all__ = [
    "DRIVER",
    "MemoryBroker",
    "MemoryData",
    "MemoryQueue",
    "MemoryStore",
    "QueueData",
    "StoreData",
    "open_memory_broker",
]


def open_memory_broker(opening: Opening) -> Broker:
    """A broker on new, empty data."""
    return MemoryBroker(clock=opening.clock)


DRIVER = Driver(
    name="memory",
    summary="In the memory of one process; for tests.",
    open_broker=open_memory_broker,
)
