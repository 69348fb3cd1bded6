"""Bulk actions: one change of all jobs that a query finds, as shared state keeps it.

`bulk_changes` changes the jobs. `bulk_steps` does it in steps, in the process that owns the bulk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.messages import Cancel, ChangeResult, Move, Remove, Requeue
from mrq_core.contract.shared_state import StateItem
from mrq_core.errors import BrokerUnavailable, InvalidValue
from mrq_core.ids import new_id
from mrq_core.operations.actions import Change, SetPriority, summary
from mrq_core.operations.queries.query import SearchQuery
from mrq_core.operations.views import iso

BULK_NAMESPACE = "bulk"
KEPT = 7 * 86_400.0
"""Seconds for which an ended bulk is kept."""
MOST_RUNNING = 20
MOST_ENDED = 100
"""Ended bulks that are kept when another one begins."""
MOST_QUERY = 16_384
"""Bytes of a query that is stored."""
ATTEMPTS = 20
"""Attempts to change a stored bulk that other processes change too."""


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


# --- begin, read, stop -------------------------------------------------------------------------------


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
    held = None if item is None else held_in(item)
    return None if held is None else held.bulk


def list_bulks(broker: Broker) -> list[Bulk]:
    """The running bulks and those that ended within a week, newest first. One read."""
    found = [held.bulk for held in map(held_in, broker.state.list(BULK_NAMESPACE)) if held is not None]
    return sorted(found, key=lambda bulk: (bulk.begun_at, bulk.id), reverse=True)


def stop_bulk(broker: Broker, bulk_id: str, who: str) -> Bulk | None:
    """Asks the owner to stop after its step, within about a second; a bulk without an owner stops when a
    process takes it over. What was changed stays changed. None: there is no such bulk. An ended one is
    unchanged."""
    for _ in range(ATTEMPTS):
        item = broker.state.get(BULK_NAMESPACE, bulk_id)
        held = None if item is None else held_in(item)
        if held is None or not held.bulk.is_running or held.bulk.stop_by is not None:
            return None if held is None else held.bulk
        stopping = replace(held.bulk, stop_by=who)
        if write_bulk(broker, stopping, held.version) is not None:
            return stopping
    raise BrokerUnavailable("the bulk action changed each time: try again")


# --- shared state -----------------------------------------------------------------------------------


def write_bulk(broker: Broker, bulk: Bulk, version: int) -> int | None:
    """Stores the bulk if this is its version in shared state. Returns the new version, or None."""
    ttl = None if bulk.is_running else KEPT
    item = broker.state.compare_and_set(BULK_NAMESPACE, bulk.id, _stored(bulk), version=version, ttl=ttl)
    return None if item is None else item.version


def _stored(bulk: Bulk) -> JsonValue:
    value: JsonValue = msgspec.json.decode(msgspec.json.encode(bulk))
    return value


def held_in(item: StateItem) -> Held | None:
    """The bulk in a value. None: a newer version of mrq has stored it."""
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
