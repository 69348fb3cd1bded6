"""Queues as JSON."""

from __future__ import annotations

from mrq_core.contract.codec import JsonObject
from mrq_core.operations.queues import list_queues
from mrq_core.operations.views import queue_view
from mrq_dashboard.visit import Visit


def list_all(visit: Visit) -> JsonObject:
    """Lists the queues that hold jobs."""
    found = list_queues(visit.broker)
    return {"queues": [queue_view(counts, paused=found.paused) for counts in found.queues]}
