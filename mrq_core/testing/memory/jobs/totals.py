"""Totals of jobs, counts of queues, and the names of queues.

The model counts its records in each call. Other drivers must keep totals up to date instead.
"""

from __future__ import annotations

from datetime import datetime

from mrq_core.contract.queries import QueueCounts, Totals
from mrq_core.contract.record import Status
from mrq_core.testing.memory.data import MemoryData

MAX_DUE = 10_000
"""The largest number of due jobs that `counts` reports."""


def totals(data: MemoryData) -> Totals:
    """See `Broker.totals`."""
    by_queue: dict[str, dict[Status, int]] = {}
    by_path: dict[str, dict[Status, int]] = {}
    by_error_group: dict[str, dict[Status, int]] = {}
    for record in data.all():
        named = [(by_queue, record.queue), (by_path, record.path)]
        if record.error_group is not None:
            named.append((by_error_group, record.error_group))
        for table, name in named:
            row = table.setdefault(name, {})
            row[record.status] = row.get(record.status, 0) + 1
    return Totals(by_queue=by_queue, by_path=by_path, by_error_group=by_error_group)


def counts(data: MemoryData, queue: str, now: datetime) -> QueueCounts:
    """See `Broker.counts`. A started job whose lease has expired counts as waiting."""
    waiting: list[datetime | None] = []
    claimed = 0
    for record in data.entries.get(queue, {}).values():
        if record.status is Status.STARTED and record.due_at is not None and record.due_at > now:
            claimed += 1
        else:
            waiting.append(record.due_at)
    due = sorted(due_at for due_at in waiting if due_at is not None and due_at <= now)
    return QueueCounts(
        queue=queue,
        waiting=len(waiting),
        due=min(len(due), MAX_DUE),
        claimed=claimed,
        oldest_due=due[0] if due else None,
    )


def queue_names(data: MemoryData, prefix: str, after: str, limit: int) -> list[str]:
    """See `Broker.queue_names`."""
    return sorted(name for name in data.queues if name.startswith(prefix) and name > after)[:limit]
