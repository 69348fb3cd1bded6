"""How many records there are of what kind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from mrq_core.contract.messages import QueueCounts, Totals
from mrq_core.contract.record import JobRecord, Status


def group_of(record: JobRecord, group_by: str | None) -> str | None:
    """The value that the record is counted under; None where it has none."""
    if group_by is None:
        return ""
    value = getattr(record, group_by)
    return None if value is None else str(value)


def totals(records: Sequence[JobRecord]) -> Totals:
    """See `Broker.totals`. The model counts, which every other driver must not do."""
    by_queue: dict[str, dict[Status, int]] = {}
    by_path: dict[str, dict[Status, int]] = {}
    for record in records:
        for table, name in ((by_queue, record.queue), (by_path, record.path)):
            row = table.setdefault(name, {})
            row[record.status] = row.get(record.status, 0) + 1
    return Totals(by_queue=by_queue, by_path=by_path)


def counts(queue: str, entries: Iterable[JobRecord], now: datetime) -> QueueCounts:
    """What the queue holds. A job whose lease has run out is not held by a worker any more: it waits."""
    waiting: list[datetime | None] = []
    claimed = 0
    for record in entries:
        if record.status is Status.STARTED and record.due_at is not None and record.due_at > now:
            claimed += 1
        else:
            waiting.append(record.due_at)
    due = sorted(due_at for due_at in waiting if due_at is not None and due_at <= now)
    return QueueCounts(
        queue=queue,
        waiting=len(waiting),
        due=min(len(due), 10_000),
        claimed=claimed,
        oldest_due=due[0] if due else None,
    )
