"""Settling: ends claims with their outcomes, guarded by the token."""

from __future__ import annotations

from datetime import datetime

from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Settlement
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.jobs import enqueueing
from mrq_core.testing.memory.jobs.records import is_held


def settle(data: MemoryData, settlement: Settlement, now: datetime) -> bool:
    """See `Broker.settle`."""
    record = data.get(settlement.id)
    if record is None:
        return False
    if not is_held(record, settlement.token):
        return lifecycle.was_settled_by(record, settlement.token)
    after = lifecycle.settled(record, settlement.outcome, now)
    data.put(after, now)
    if after.status is settlement.outcome.status:  # a job that is cancelled instead has no follow-ups
        for followup in settlement.outcome.followups:
            enqueueing.enqueue(data, followup, now)
    return True
