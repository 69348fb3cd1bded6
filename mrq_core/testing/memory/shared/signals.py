"""Pauses of queues and requests to interrupt jobs: the answers that each process polls once a second."""

from __future__ import annotations

from mrq_core.contract.messages import PollResult, Versions
from mrq_core.contract.record import Status
from mrq_core.testing.memory.data import MemoryData


def poll(data: MemoryData, worker: str, versions: Versions) -> PollResult:
    """See `Broker.poll`."""
    asked = dict.fromkeys(data.signals[versions.signals :])
    records = [record for record in map(data.get, asked) if record is not None]
    return PollResult(
        versions=Versions(pauses=data.pauses_version, signals=len(data.signals)),
        paused=data.paused if versions.pauses != data.pauses_version else None,
        interrupts=tuple(
            record.id
            for record in records
            if record.status is Status.STARTED and record.worker == worker and record.cancel_requested
        ),
    )


def set_paused(data: MemoryData, paused: frozenset[str]) -> None:
    """Replaces the set of paused queues. Its version grows with each change."""
    if paused != data.paused:
        data.paused = paused
        data.pauses_version += 1
