"""Queries and bulk changes: every query scans all records."""

from __future__ import annotations

from collections import Counter
from datetime import datetime

from mrq_core.contract import lifecycle
from mrq_core.contract.matching import check_group, matches
from mrq_core.contract.messages import Action, Applied
from mrq_core.contract.naming import check_page_cursor
from mrq_core.contract.queries import Counted, JobFilter, Order, Page
from mrq_core.contract.record import JobRecord
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.jobs import changing
from mrq_core.testing.memory.jobs.records import copy


def find(
    data: MemoryData, wanted: JobFilter, now: datetime, *, order: Order, cursor: str | None, limit: int
) -> Page:
    """See `Broker.find`."""
    check_page_cursor(cursor)
    found = _matching(data, wanted, now)
    newest = order is Order.NEWEST_FIRST
    if newest:
        found.reverse()
    if cursor is not None:
        found = [record for record in found if (record.id < cursor if newest else record.id > cursor)]
    shown = tuple(copy(record) for record in found[:limit])
    return Page(records=shown, cursor=shown[-1].id if shown and len(found) > limit else None)


def count(
    data: MemoryData, wanted: JobFilter, group_by: str | None, now: datetime, cursor: str | None
) -> Counted:
    """See `Broker.count`. Every count is complete."""
    check_group(group_by)
    check_page_cursor(cursor)
    found = [record for record in _matching(data, wanted, now) if record.id > (cursor or "")]
    if group_by is None:
        return Counted(numbers={"": len(found)})
    values = (getattr(record, group_by) for record in found)
    return Counted(numbers=dict(Counter(str(value) for value in values if value is not None)))


def apply(
    data: MemoryData, wanted: JobFilter, action: Action, now: datetime, *, limit: int, cursor: str | None
) -> Applied:
    """See `Broker.apply`."""
    page = find(data, wanted, now, order=Order.OLDEST_FIRST, cursor=cursor, limit=limit)
    changes = Counter(changing.change(data, record.id, action, now) for record in page.records)
    return Applied(matched=len(page.records), changes=dict(changes), cursor=page.cursor)


def _matching(data: MemoryData, wanted: JobFilter, now: datetime) -> list[JobRecord]:
    """Unexpired jobs that match, by id."""
    return [
        record for record in data.all() if not lifecycle.has_expired(record, now) and matches(record, wanted)
    ]
