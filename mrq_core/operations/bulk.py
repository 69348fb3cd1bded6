"""Bulk actions: one change of all jobs that a query finds, in steps, with progress that outlives the process.

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

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from enum import StrEnum
from functools import partial
from typing import Any

import msgspec
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.messages import CHUNK, Action, Cancel, ChangeResult, Edit, Move, Remove, Requeue
from mrq_core.contract.queries import Order
from mrq_core.contract.record import JobRecord
from mrq_core.contract.shared_state import StateItem
from mrq_core.errors import BrokerUnavailable, InvalidValue, MrqError
from mrq_core.ids import new_id
from mrq_core.operations.actions import (
    Change,
    SetPriority,
    apply_to_still_matching,
    cancels_of,
    summary,
)
from mrq_core.operations.query import SearchQuery
from mrq_core.operations.search import SearchPage, search
from mrq_core.operations.views import iso

BULK_NAMESPACE = "bulk"
LEASE = 10.0
"""Seconds after which another process may take over a bulk that its owner has not advanced."""
KEPT = 7 * 86_400.0
"""Seconds for which an ended bulk is kept."""
MOST_RUNNING = 20
MOST_ENDED = 100
"""Ended bulks that are kept when another one begins."""
MOST_QUERY = 16_384
"""Bytes of a query that is stored."""
_SECONDS = 1.0
"""The longest search of one step, where the query has conditions that no index serves."""
_ATTEMPTS = 20
_SMALL = 100
"""Jobs that are changed in one call."""


class BulkStatus(StrEnum):
    """The state of a bulk."""

    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"


class StoredChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change as shared state has it. `verb`: ``requeue``, ``cancel``, ``move``, ``remove``,
    ``priority``."""

    verb: str
    queue: str | None = None
    priority: int = 0
    interrupt: bool = False
    ttl: float = 86_400.0

    @classmethod
    def of(cls, change: Change) -> StoredChange:
        """The stored form of a change."""
        match change:
            case Requeue():
                return cls(verb="requeue", queue=change.queue)
            case Cancel():
                return cls(verb="cancel", interrupt=change.interrupt, ttl=change.ttl)
            case Move():
                return cls(verb="move", queue=change.queue)
            case Remove():
                return cls(verb="remove")
            case SetPriority():
                return cls(verb="priority", priority=change.priority)

    @property
    def change(self) -> Change:
        """The change."""
        match self.verb:
            case "requeue":
                return Requeue(queue=self.queue)
            case "cancel":
                return Cancel(interrupt=self.interrupt, ttl=self.ttl)
            case "move":
                return Move(queue=self.queue or "")
            case "remove":
                return Remove()
            case "priority":
                return SetPriority(priority=self.priority)
        raise InvalidValue(
            f"the bulk action has the verb {self.verb}, which a newer version of mrq knows", path="action"
        )


class Bulk(msgspec.Struct, frozen=True, kw_only=True):
    """A bulk action, and how far it is.

    `text` is the query, and `expected` the number of jobs that matched when it began (a minimum unless
    `is_counted`). `changes` has the numbers of answers by ChangeResult. `unsure`: the number of jobs that may
    have been changed beyond those, in steps that a crash or an outage interrupted.
    """

    id: str
    who: str
    change: StoredChange
    text: str
    begun_at: datetime
    expected: int
    is_counted: bool = True
    status: BulkStatus = BulkStatus.RUNNING
    changes: Mapping[str, int] = {}
    unsure: int = 0
    updated_at: datetime
    ended_at: datetime | None = None
    stop_by: str | None = None
    """Who has asked to stop it."""
    error: str | None = None

    query: SearchQuery | None = None
    """None: it has ended."""
    cursor: str | None = None
    """The id behind which the next step begins."""
    step: int = 0
    """The size of a step that was begun and is not counted. 0: none."""
    step_end: str | None = None
    """The id of the last job of that step."""
    owner: str = ""
    lease_until: datetime

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self.status is BulkStatus.RUNNING

    @property
    def handled(self) -> int:
        """The number of jobs that it has answered."""
        return sum(self.changes.values()) + self.unsure

    @property
    def counts(self) -> Counter[ChangeResult]:
        """The answers."""
        return Counter({ChangeResult(name): number for name, number in self.changes.items()})

    @property
    def share(self) -> float:
        """How far it is, from 0 to 1."""
        if not self.is_running and self.status is BulkStatus.DONE:
            return 1.0
        return min(1.0, self.handled / self.expected) if self.expected else 0.0


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """A bulk that this process owns, as far as it knows, with its version in shared state."""

    bulk: Bulk
    version: int


class Lost(MrqError):
    """Another process owns the bulk, or it has ended."""


# --- small ones -------------------------------------------------------------------------------------


def bounded(broker: Broker, query: SearchQuery) -> SearchQuery:
    """The query for jobs that were queued until now, by the broker's clock. Returns when that moment has
    passed, so that no change from now on gives a job a `queued_at` that matches."""
    until = after(broker.now(), 0.001)
    deadline = time.monotonic() + 1.0
    while broker.now() < until and time.monotonic() < deadline:
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
    return _change(broker, query, change, page.records)


def _change(
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
            answers[ChangeResult.DONE] += 1
        else:
            edits.append(Edit(id=record.id, claims=record.claims, edits=record.edits, priority=priority))
    answers.update(broker.edit(edits) if edits else ())
    return answers


# --- large ones -------------------------------------------------------------------------------------


def begin_bulk(
    broker: Broker,
    query: SearchQuery,
    change: Change,
    who: str,
    *,
    expected: int,
    is_counted: bool,
    bulk_id: str | None = None,
) -> Bulk:
    """Stores a bulk for a query that `bounded` has returned. A process that calls `take_over` does it. A call
    without an answer can be repeated with the same `bulk_id`: then it returns the bulk that there is.

    Raises InvalidValue for a query that is too large to store, and for more than MOST_RUNNING running ones.
    """
    size = len(msgspec.json.encode(query))
    if size > MOST_QUERY:
        raise InvalidValue(
            f"the query stands for {size:,} bytes of names: expected at most {MOST_QUERY:,}; name fewer, or "
            "a tree such as main/",
            path="query",
        )
    known = list_bulks(broker)
    earlier = next((bulk for bulk in known if bulk.id == bulk_id), None)
    if earlier is not None:
        return earlier
    if sum(bulk.is_running for bulk in known) >= MOST_RUNNING:
        raise InvalidValue(
            f"{MOST_RUNNING} bulk actions are running: wait until one has ended, or stop one", path="action"
        )
    old = [bulk.id for bulk in known if not bulk.is_running][MOST_ENDED - 1 :]
    if old:
        broker.state.delete(BULK_NAMESPACE, old)
    now = broker.now()
    bulk = Bulk(
        id=bulk_id or new_id(), who=who[:200], change=StoredChange.of(change), text=query.text,
        begun_at=now, updated_at=now, expected=expected, is_counted=is_counted, query=query, lease_until=now,
    )  # fmt: skip
    if broker.state.compare_and_set(BULK_NAMESPACE, bulk.id, _stored(bulk), version=0) is None:
        return read_bulk(broker, bulk.id) or bulk  # the same call, at the same time
    return bulk


def read_bulk(broker: Broker, bulk_id: str) -> Bulk | None:
    """The bulk with this id. None: there is none, or it was forgotten after its end. One read."""
    item = broker.state.get(BULK_NAMESPACE, bulk_id)
    held = None if item is None else _held(item)
    return None if held is None else held.bulk


def list_bulks(broker: Broker) -> list[Bulk]:
    """The running bulks and those that ended within a week, newest first. One read."""
    found = [held.bulk for held in map(_held, broker.state.list(BULK_NAMESPACE)) if held is not None]
    return sorted(found, key=lambda bulk: (bulk.begun_at, bulk.id), reverse=True)


def stop_bulk(broker: Broker, bulk_id: str, who: str) -> Bulk | None:
    """Asks the owner to stop after its step, within about a second; a bulk without an owner stops when a
    process takes it over. What was changed stays changed. None: there is no such bulk. An ended one is
    unchanged."""
    for _ in range(_ATTEMPTS):
        item = broker.state.get(BULK_NAMESPACE, bulk_id)
        held = None if item is None else _held(item)
        if held is None or not held.bulk.is_running or held.bulk.stop_by is not None:
            return None if held is None else held.bulk
        stopping = replace(held.bulk, stop_by=who)
        if _write(broker, stopping, held.version) is not None:
            return stopping
    raise BrokerUnavailable("the bulk action changed each time: try again")


def take_over(broker: Broker, owner: str, known: Sequence[str] = ()) -> list[Held]:
    """Makes `owner` the owner of all running bulks that no process has advanced for LEASE seconds, but those
    with the ids `known`. `owner` is a text that no other process has, and no later one. One read, and one
    write for each."""
    taken = []
    now = None
    for held in map(_held, broker.state.list(BULK_NAMESPACE)):
        if held is None or not held.bulk.is_running or held.bulk.id in known:
            continue
        now = now or broker.now()
        # One that `owner` has without knowing: the answer of an earlier call was lost.
        if held.bulk.owner not in ("", owner) and held.bulk.lease_until > now:
            continue
        mine = replace(held.bulk, owner=owner, lease_until=after(now, LEASE))
        version = _write(broker, mine, held.version)
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
    answers = _change(broker, query, bulk.change.change, page.records)
    step = unsure = 0
    if is_repeated:  # a job that is refused now may be one that the first run has changed
        answers.pop(ChangeResult.REFUSED, None)
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
    stored = None if item is None else _held(item)
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
    for _ in range(_ATTEMPTS):
        version = _write(broker, bulk, held.version)
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


def _write(broker: Broker, bulk: Bulk, version: int) -> int | None:
    ttl = None if bulk.is_running else KEPT
    item = broker.state.compare_and_set(BULK_NAMESPACE, bulk.id, _stored(bulk), version=version, ttl=ttl)
    return None if item is None else item.version


def _stored(bulk: Bulk) -> JsonValue:
    value: JsonValue = msgspec.json.decode(msgspec.json.encode(bulk))
    return value


def _held(item: StateItem) -> Held | None:
    """None: a newer version of mrq has stored it."""
    try:
        return Held(bulk=msgspec.convert(item.value, Bulk), version=item.version)
    except msgspec.ValidationError:
        return None


# --- as data ----------------------------------------------------------------------------------------


def bulk_view(bulk: Bulk) -> JsonObject:
    """A bulk as JSON. Without `is_exact`, `unsure` jobs may have been changed beyond `changes`."""
    return {
        "id": bulk.id,
        "who": bulk.who,
        "action": bulk.change.verb,
        "queue": bulk.change.queue,
        "query": bulk.text,
        "status": str(bulk.status),
        "begun_at": iso(bulk.begun_at),
        "updated_at": iso(bulk.updated_at),
        "ended_at": iso(bulk.ended_at),
        "expected": bulk.expected,
        "is_counted": bulk.is_counted,
        "handled": bulk.handled,
        "share": round(bulk.share, 4),
        "changes": dict(bulk.changes),
        "unsure": bulk.unsure,
        "is_exact": bulk.unsure == 0,
        "stop_requested_by": bulk.stop_by,
        "error": bulk.error,
    }


def bulk_words(bulk: Bulk) -> str:
    """What a bulk has done so far: ``at least 900,000 jobs requeued (1,000 more may be)``."""
    words = summary(bulk.counts, bulk.change.change)
    if not bulk.unsure:
        return words
    return f"at least {words}; a step was interrupted, and up to {bulk.unsure:,} more may have been changed"
