"""Pruning: deletes expired jobs, expired shared state and old metrics, and forgets names of queues.

`MemoryData.delete` removes a job, for `jobs/changing` too.
"""

from __future__ import annotations

from datetime import datetime

from mrq_core.contract import lifecycle
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.shared import metrics


def prune(data: MemoryData, now: datetime, limit: int) -> int:
    """See `Broker.prune`. A unique key that is held for a period outlives its job."""
    data.state.drop_expired(now)
    metrics.prune(data, now, limit)
    expired = [record.id for record in data.all() if lifecycle.has_expired(record, now)][:limit]
    for job_id in expired:
        data.delete(job_id, keep_period=True)
    data.forget_queues()
    return len(expired)
