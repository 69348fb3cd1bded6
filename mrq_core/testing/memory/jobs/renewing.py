"""Renewing: extends leases and writes progress, guarded by the token."""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.messages import ClaimRef, Note
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.jobs.records import is_held


def renew(data: MemoryData, claim: ClaimRef, lease: float, now: datetime) -> bool:
    """See `Broker.renew`."""
    record = data.get(claim.id)
    if record is None or not is_held(record, claim.token):
        return False
    until = after(now, lease)
    data.put(replace(record, lease_until=until, due_at=until), now)
    return True


def annotate(data: MemoryData, note: Note, now: datetime) -> bool:
    """See `Broker.annotate`."""
    record = data.get(note.id)
    if record is None or not is_held(record, note.token):
        return False
    data.put(replace(record, progress=note.progress, updated_at=now), now)
    return True
