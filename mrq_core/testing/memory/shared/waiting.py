"""Waiting for due entries, by frequent polls."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime

from mrq_core.clock import monotonic
from mrq_core.contract.messages import Wanted
from mrq_core.testing.memory.data import Locked, MemoryData
from mrq_core.testing.memory.jobs import trees

POLL_SECONDS = 0.01
"""The time between two polls of a waiting thread."""


def wait(data: MemoryData, locked: Locked, wanted: Sequence[Wanted], timeout: float) -> bool:
    """See `Broker.wait`."""
    deadline = monotonic() + timeout
    while True:
        with locked() as now:
            if _has_due(data, wanted, now):
                return True
        left = deadline - monotonic()
        if left <= 0:
            return False
        # Polling, unlike waking, also notices entries that become due by time alone.
        time.sleep(min(left, POLL_SECONDS))


def _has_due(data: MemoryData, wanted: Sequence[Wanted], now: datetime) -> bool:
    return any(trees.is_due(record, now) for one in wanted for record in trees.entries(data, one)) or any(
        raw.has_due(now)
        for queue, raw in data.raw.items()
        if any(trees.is_wanted(queue, one) for one in wanted)
    )
