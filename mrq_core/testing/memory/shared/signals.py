"""Rules, and requests to interrupt jobs: the answers that each process polls once a second."""

from __future__ import annotations

from mrq_core.contract import rules
from mrq_core.contract.record import Status
from mrq_core.contract.services import SharedState
from mrq_core.contract.shared_state import PollResult, Versions
from mrq_core.testing.memory.data import MemoryData


def poll(data: MemoryData, state: SharedState, worker: str, versions: Versions, now_ms: int) -> PollResult:
    """See `Broker.poll`."""
    asked = dict.fromkeys(data.signals[versions.signals :])
    records = [record for record in map(data.get, asked) if record is not None]
    present = rules.read(state.list)
    request = state.get(rules.REQUESTS, worker)
    return PollResult(
        versions=rules.versions_after(data.state.rules_version, len(data.signals), present),
        rules=present if rules.is_changed(versions, data.state.rules_version, now_ms) else None,
        interrupts=tuple(
            record.id
            for record in records
            if record.status is Status.STARTED and record.worker == worker and record.cancel_requested
        ),
        requests=() if request is None else rules.requests_in(request.value, now_ms),
    )
