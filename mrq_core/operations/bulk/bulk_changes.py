"""Changes the jobs of a query whose number is small, and those of one step of a large bulk."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from msgspec.structs import replace

from mrq_core.clock import after, monotonic
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, Action, Cancel, ChangeResult, Edit
from mrq_core.contract.queries import Order
from mrq_core.contract.record import JobRecord
from mrq_core.operations.actions import Change, SetPriority, apply_to_still_matching, cancels_of
from mrq_core.operations.queries.query import SearchQuery
from mrq_core.operations.queries.search import search

_SMALL = 100
"""Jobs that are changed in one call."""


def bounded(broker: Broker, query: SearchQuery) -> SearchQuery:
    """The query for jobs that were queued until now, by the broker's clock. Returns when that moment has
    passed, so that no change from now on gives a job a `queued_at` that matches."""
    until = after(broker.now(), 0.001)
    deadline = monotonic() + 1.0
    while broker.now() < until and monotonic() < deadline:
        time.sleep(0.001)
    earlier = query.filter.until
    if earlier is not None and earlier <= until:
        return query
    return replace(query, filter=replace(query.filter, until=until))


def change_if_few(broker: Broker, query: SearchQuery, change: Change) -> Counter[ChangeResult] | None:
    """Changes all jobs of a query that `bounded` has returned, and counts the answers. None: there may be
    more than CHUNK, and none was changed."""
    page = search(broker, query, limit=CHUNK, order=Order.OLDEST_FIRST)
    if page.cursor is not None:
        return None
    return change_records(broker, query, change, page.records)


def change_records(
    broker: Broker, query: SearchQuery, change: Change, records: Sequence[JobRecord]
) -> Counter[ChangeResult]:
    """Changes those of the jobs that still match the filter. Two halves at once: a server works on one while
    this process prepares the other. After an error, returns when both halves have ended."""
    if not records:
        return Counter()
    if isinstance(change, SetPriority):
        return _prioritize(broker, change.priority, records)
    if not isinstance(change, Cancel):
        return _apply(broker, query, change, [record.id for record in records])
    answers: Counter[ChangeResult] = Counter()
    for cancel, ids in cancels_of(broker, records, change):
        answers += _apply(broker, query, cancel, ids)
    return answers


def _apply(broker: Broker, query: SearchQuery, change: Action, ids: Sequence[str]) -> Counter[ChangeResult]:
    apply = partial(apply_to_still_matching, broker, query.filter, change)
    if len(ids) <= _SMALL:
        return apply(ids)
    middle = len(ids) // 2
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(apply, (ids[:middle], ids[middle:]))
    return first + second


def _prioritize(broker: Broker, priority: int, records: Sequence[JobRecord]) -> Counter[ChangeResult]:
    answers: Counter[ChangeResult] = Counter()
    edits = []
    for record in records:
        if not record.status.is_waiting or record.is_ended:
            answers[ChangeResult.REFUSED] += 1
        elif record.priority == priority:
            answers[ChangeResult.UNCHANGED] += 1
        else:
            edits.append(Edit(id=record.id, claims=record.claims, edits=record.edits, priority=priority))
    answers.update(broker.edit(edits) if edits else ())
    return answers
