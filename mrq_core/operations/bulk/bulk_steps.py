"""The steps of a bulk action, with progress that outlives the process.

Up to CHUNK jobs are changed at once. More are a `Bulk` in shared state, which one process at a time owns and
advances, under a lease. Another process takes over a bulk whose lease has run out.

No job is changed twice in a way that matters, whatever dies when:

- A bulk changes jobs that were queued before it began, oldest first, and each step continues behind the last.
  A requeue gives a job a new `queued_at`, so that a job which was requeued, by this bulk or by a person, no
  longer matches, even if it has failed again. The broker compares at the moment of the change.
- Before a step, the owner stores the end and the size of the step by compare-and-set. An owner that has lost
  its bulk finds another version and stops. A step that was stored and not counted is repeated, up to its end
  only.
- A repeated step counts what it changes. The rest of its size may have been changed before: `unsure`. So the
  counts are exact where `unsure` is 0, and otherwise minimums.

What a repeated step can undo is the move or priority that a person gave a job between the death of an owner
and the takeover, about LEASE seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import CHUNK, ChangeResult
from mrq_core.contract.queries import Order
from mrq_core.errors import BrokerUnavailable, MrqError
from mrq_core.operations.bulk.bulk_actions import (
    ATTEMPTS,
    BULK_NAMESPACE,
    Bulk,
    BulkStatus,
    Held,
    held_in,
    write_bulk,
)
from mrq_core.operations.bulk.bulk_changes import change_records
from mrq_core.operations.queries.search import SearchPage, search

LEASE = 10.0
"""Seconds after which another process may take over a bulk that its owner has not advanced."""
_SECONDS = 1.0
"""The longest search of one step, where the query has conditions that no index serves."""


class Lost(MrqError):
    """Another process owns the bulk, or it has ended."""


def take_over(broker: Broker, owner: str, known: Sequence[str] = ()) -> list[Held]:
    """Makes `owner` the owner of all running bulks that no process has advanced for LEASE seconds, but those
    with the ids `known`. `owner` is a text that no other process has, and no later one. One read, and one
    write for each."""
    taken = []
    now = None
    for held in map(held_in, broker.state.list(BULK_NAMESPACE)):
        if held is None or not held.bulk.is_running or held.bulk.id in known:
            continue
        now = now or broker.now()
        # One that `owner` has without knowing: the answer of an earlier call was lost.
        if held.bulk.owner not in ("", owner) and held.bulk.lease_until > now:
            continue
        mine = replace(held.bulk, owner=owner, lease_until=after(now, LEASE))
        version = write_bulk(broker, mine, held.version)
        if version is not None:
            taken.append(Held(bulk=mine, version=version))
    return taken


OnEnd = Callable[[Bulk], None]
"""Called with a bulk that has ended, before its end is stored. A crash in between repeats the call."""


def advance(broker: Broker, held: Held, on_end: OnEnd = lambda bulk: None) -> Held:
    """Does one step of a bulk that this process owns. Afterwards the bulk has ended, or another step follows.

    Raises Lost if another process owns it by now. After an error of the broker, `reread` tells how to go on.
    """
    bulk = held.bulk
    if bulk.query is None:
        raise Lost(f"the bulk action {bulk.id} has ended")
    query, is_repeated = bulk.query, bulk.step > 0
    page = search(broker, query, cursor=bulk.cursor, limit=CHUNK, order=Order.OLDEST_FIRST, seconds=_SECONDS)
    if is_repeated:
        page = _until(page, bulk.step_end or "")
    elif page.records:
        bulk = replace(bulk, step=len(page.records), step_end=page.records[-1].id)
    begun = _kept(broker, Held(bulk=bulk, version=held.version))
    bulk = begun.bulk
    if bulk.stop_by is not None:
        possible = bulk.step if is_repeated else 0
        return _ended(broker, begun, BulkStatus.STOPPED, on_end, unsure=bulk.unsure + possible)
    answers = change_records(broker, query, bulk.change.change, page.records)
    step = unsure = 0
    if is_repeated:  # a job that is left now may be one that the first run has changed
        for left in (ChangeResult.REFUSED, ChangeResult.UNCHANGED):
            answers.pop(left, None)
        rest = max(0, bulk.step - answers.total())
        step, unsure = (0, rest) if page.cursor == bulk.step_end else (rest, 0)
    counted = Held(
        bulk=replace(
            bulk,
            changes=dict(Counter(bulk.changes) + Counter({str(name): n for name, n in answers.items()})),
            unsure=bulk.unsure + unsure,
            step=step,
            step_end=bulk.step_end if step else None,
            cursor=page.cursor,
        ),
        version=begun.version,
    )
    return counted if page.cursor is not None else _ended(broker, counted, BulkStatus.DONE, on_end)


def release(broker: Broker, held: Held) -> None:
    """Gives a bulk back after a step, with its counts: another process may go on at once."""
    if held.bulk.is_running:
        now = broker.now()
        _kept(broker, held, owner="", lease_until=now)


def fail(broker: Broker, held: Held, error: str, on_end: OnEnd = lambda bulk: None) -> Held:
    """Ends a bulk after an error that would come again."""
    unsure = held.bulk.unsure + held.bulk.step
    return _ended(broker, held, BulkStatus.FAILED, on_end, unsure=unsure, error=error[:500])


def reread(broker: Broker, held: Held) -> Held:
    """The stored bulk, after an error of the broker. Raises Lost."""
    item = broker.state.get(BULK_NAMESPACE, held.bulk.id)
    stored = None if item is None else held_in(item)
    if stored is None or not stored.bulk.is_running or stored.bulk.owner != held.bulk.owner:
        raise Lost(f"the bulk action {held.bulk.id} has another owner, or has ended")
    return stored


def _until(page: SearchPage, end: str) -> SearchPage:
    """The page up to the job `end`. Its cursor is `end`, unless the search has not come so far."""
    inside = tuple(record for record in page.records if record.id <= end)
    return SearchPage(records=inside, cursor=min(page.cursor or end, end))


def _kept(broker: Broker, held: Held, **values: Any) -> Held:
    """Stores the bulk under a new lease, unless another process owns it. Raises Lost."""
    now = broker.now()
    bulk = replace(held.bulk, updated_at=now, **{"lease_until": after(now, LEASE), **values})
    for _ in range(ATTEMPTS):
        version = write_bulk(broker, bulk, held.version)
        if version is not None:
            return Held(bulk=bulk, version=version)
        stored = reread(broker, held)  # a request to stop, or a write whose answer was lost
        held = Held(bulk=held.bulk, version=stored.version)
        bulk = replace(bulk, stop_by=stored.bulk.stop_by)
    raise BrokerUnavailable("the bulk action changed each time: try again")


def _ended(broker: Broker, held: Held, status: BulkStatus, on_end: OnEnd, **values: Any) -> Held:
    now = broker.now()
    values |= {"status": status, "ended_at": now, "lease_until": now, "owner": "", "query": None}
    values |= {"cursor": None, "step": 0, "step_end": None}
    on_end(replace(held.bulk, **values))
    return _kept(broker, held, **values)
