"""What drivers and users of mrq test with: a clock to set, the in-memory broker, the conformance suite.

The suite is in `mrq_core.testing.conformance` and needs pytest; the rest needs nothing more than mrq.
"""

from __future__ import annotations

from mrq_core.testing.clock import ManualClock
from mrq_core.testing.memory import MemoryBroker, MemoryData, open_memory_broker

__all__ = ["ManualClock", "MemoryBroker", "MemoryData", "open_memory_broker"]
