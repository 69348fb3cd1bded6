"""Enqueueing: stores the record with its entry, and reserves the unique key."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.messages import Enqueued, NewJob
from mrq_core.testing.memory.data import MemoryData


def enqueue(data: MemoryData, job: NewJob, now: datetime) -> Enqueued:
    """See `Broker.enqueue`."""
    record = job.record
    if data.visible(record.id, now) is not None:
        return Enqueued(id=record.id, created=False)
    if job.unique is not None:
        holder = data.uniques.reserve(job.unique, record.id, now)
        if holder != record.id:
            return Enqueued(id=holder, created=False)
        record = replace(record, unique_key=job.unique.key)
    due_at = after(now, job.delay) if job.delay is not None else record.due_at or now
    data.put(replace(record, due_at=due_at), now)
    return Enqueued(id=record.id, created=True)
