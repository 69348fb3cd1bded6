"""Lost claims: started jobs whose lease has expired."""

from __future__ import annotations

from datetime import datetime

from mrq_core.contract import lifecycle
from mrq_core.contract.messages import ClaimRequest
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.jobs import trees


def lost(data: MemoryData, request: ClaimRequest, now: datetime) -> list[JobRecord]:
    """The started jobs of the wanted queues whose lease has expired, in the order of `wanted` and of their
    leases. Each once, even if its queue is wanted twice."""
    found: dict[str, JobRecord] = {}
    for wanted in request.wanted:
        lost_ones = [
            record
            for record in trees.entries(data, wanted)
            if record.status is Status.STARTED and trees.is_due(record, now)
        ]
        for record in sorted(lost_ones, key=lambda record: (record.due_at, record.id)):
            found.setdefault(record.id, record)
    return list(found.values())


def end(data: MemoryData, request: ClaimRequest, now: datetime) -> tuple[list[JobRecord], list[JobRecord]]:
    """Ends the lost jobs that must not run again. Returns the ended jobs, and the others."""
    ended: list[JobRecord] = []
    suspects: list[JobRecord] = []
    for record in lost(data, request, now):
        after = lifecycle.after_lost_claim(record, request, now)
        if after is None:
            suspects.append(record)
        else:
            data.put(after, now)
            ended.append(after)
    return ended, suspects
