"""The due jobs of queues and trees, in the order of a claim, and the next due time.

The index (queue, rank, due_at, _id) is read for each rank up to now, so that jobs that are not due are never
scanned. A tree is a range of queue names, and its due jobs come subqueue by subqueue from the same index.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson import ObjectId

from mrq_broker_mongo.jobs.records import RANKS
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.layout import DUE, LEASES, TREE_LEASES, TREES, Index
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract.messages import Wanted
from mrq_core.contract.naming import is_covered, is_tree

MAX_SUBQUEUES = 32
EVER = datetime(1, 1, 1, tzinfo=UTC)
ORDER = [("queue", 1), ("rank", 1), ("due_at", 1), ("_id", 1)]
_FEW = 200
_NAMES_A_LOOK = 20
"""The number of queues, at nine ranks, that the server still merges by their due times."""


@dataclass(frozen=True, slots=True)
class Range:
    """Names of subqueues between two others."""

    low: str
    high: str
    with_low: bool = False
    with_high: bool = False

    @property
    def condition(self) -> Doc:
        """The same for a query."""
        return {
            "$gte" if self.with_low else "$gt": self.low,
            "$lte" if self.with_high else "$lt": self.high,
        }


def end_of(tree: str) -> str:
    """The first name behind all that begin with the tree's."""
    return tree[:-1] + "0"


def ranges_of(wanted: Wanted, last: str = "") -> list[Range]:
    """The ranges of a tree's subqueues without the excluded names, starting after the subqueue `last`."""
    tree = wanted.name
    if is_covered(tree, wanted.exclude):
        return []
    left_out = sorted(name for name in wanted.exclude if name.startswith(tree))
    parts: list[Range] = []
    low, with_low = tree, True
    for name in left_out:
        if name < low:
            continue  # inside a tree that is left out
        parts.append(Range(low, name, with_low))
        low, with_low = (end_of(name), True) if is_tree(name) else (name, False)
    parts.append(Range(low, end_of(tree), with_low))
    if not tree <= last < end_of(tree):
        return parts
    behind = [
        Range(max(part.low, last), part.high, part.with_low and part.low > last)
        for part in parts
        if part.high > last
    ]
    before = [
        Range(part.low, min(part.high, last), part.with_low, part.high > last)
        for part in parts
        if part.low < last or (part.with_low and part.low == last)
    ]
    return behind + before


def queue_conditions(wanted: Wanted, last: str = "") -> list[Any]:
    """Conditions on the name of a queue, for one query each."""
    if is_tree(wanted.name):
        return [part.condition for part in ranges_of(wanted, last)]
    return [] if is_covered(wanted.name, wanted.exclude) else [wanted.name]


def due_query(queue: Any, now: datetime) -> Doc:
    """Finds the due jobs of these queues through the index."""
    return {"queue": queue, "rank": {"$in": RANKS}, "due_at": {"$lte": now}}


def due(connection: Connection, wanted: Wanted, last: str, now: datetime, limit: int) -> list[Doc]:
    """Up to `limit` due jobs in the order of a claim, of at most 32 queues after `last`."""
    found: list[Doc] = []
    queues: dict[str, None] = {}
    conditions = queue_conditions(wanted, last)
    if is_tree(wanted.name) and conditions:
        conditions = _with_something_due(connection, wanted, last, now, conditions)
    for queue in conditions:
        room = limit - len(found)
        if room <= 0 or len(queues) >= MAX_SUBQUEUES:
            break
        look = _look_reversed if wanted.reverse else _look
        for doc in look(connection, queue, now, room):
            if doc["queue"] not in queues and len(queues) >= MAX_SUBQUEUES:
                return found
            queues[doc["queue"]] = None
            found.append(doc)
    return found


def _with_something_due(
    connection: Connection, wanted: Wanted, last: str, now: datetime, parts: list[Any]
) -> list[Any]:
    """The subqueues that have due jobs, as long as these are few; else all parts of the tree.

    So thousands of subqueues with delayed jobs only are never read.
    """
    query = {**_of_tree(wanted, parts), "due_at": {"$lte": now}}
    seen = connection.run(
        "jobs",
        lambda jobs: [
            doc["queue"]
            for doc in jobs.find(query, {"queue": 1, "_id": 0}, hint=TREES.name).sort("due_at").limit(_FEW)
        ],
    )
    if len(seen) == _FEW:
        return parts
    names = sorted(set(seen))
    behind = [name for name in names if name > last][:MAX_SUBQUEUES]
    before = [name for name in names if name <= last][: MAX_SUBQUEUES - len(behind)]
    return [{"$in": some} for some in (behind, before) if some]


def _of_tree(wanted: Wanted, parts: list[Any]) -> Doc:
    """Finds what is in these parts of a tree, by its root."""
    root = wanted.name.partition("/")[0] + "/"
    any_of = [{"queue": part} for part in parts]
    return {"root": root, **(any_of[0] if len(any_of) == 1 else {"$or": any_of})}


def _look(connection: Connection, queue: Any, now: datetime, limit: int) -> list[Doc]:
    order = ORDER if isinstance(queue, dict) else ORDER[1:]
    query = due_query(queue, now)
    return connection.run("jobs", lambda jobs: list(jobs.find(query, hint=DUE.name).sort(order).limit(limit)))


def _look_reversed(connection: Connection, queue: Any, now: datetime, limit: int) -> list[Doc]:
    """Reads rank by rank from the end; of a tree only the next subqueue."""
    if isinstance(queue, dict):
        [*first] = _look(connection, queue, now, 1)
        if not first:
            return []
        queue = first[0]["queue"]
    found: list[Doc] = []
    for rank in RANKS:
        query = {"queue": queue, "rank": rank, "due_at": {"$lte": now}}
        room = limit - len(found)
        if room <= 0:
            break
        found += connection.run("jobs", _backwards(query, room))
    return found


def _backwards(query: Doc, limit: int) -> Any:
    order = [("due_at", -1), ("_id", -1)]
    return lambda jobs: list(jobs.find(query, hint=DUE.name).sort(order).limit(limit))


# --- what comes next --------------------------------------------------------------------------------


def next_waiting(connection: Connection, wanted: Sequence[Wanted]) -> datetime | None:
    """The earliest time at which a waiting job of the queues is due; None: there is none."""
    times: list[datetime] = []
    for waits, _ in _questions(wanted):
        times += connection.run("jobs", _first(waits, "due_at", TREES if "root" in waits else DUE))
    return min(times, default=None)


def next_lease(connection: Connection, wanted: Sequence[Wanted], after: datetime) -> datetime | None:
    """The earliest time at which a lease of the queues ends; None: nothing is claimed.

    Leases that ended up to `after` are left out, because the caller knows them.
    """
    times: list[datetime] = []
    for _, lease in _questions(wanted):
        runs = {**lease, "lease_until": {"$gt": after}}
        times += connection.run(
            "jobs", _first(runs, "lease_until", TREE_LEASES if "root" in lease else LEASES)
        )
    return min(times, default=None)


def first_leases(
    connection: Connection, wanted: Sequence[Wanted], limit: int, left_out: Sequence[ObjectId] = ()
) -> list[Doc]:
    """The claimed jobs of the queues whose leases end first, with the end of each."""
    found: list[Doc] = []
    for _, lease in _questions(wanted):
        query = {**lease, "lease_until": {"$gt": EVER}}
        if left_out:
            query["_id"] = {"$nin": list(left_out)}
        index = TREE_LEASES if "root" in lease else LEASES
        found += connection.run(
            "jobs",
            lambda jobs, query=query, index=index: list(  # type: ignore[misc]
                jobs.find(query, {"lease_until": 1}, hint=index.name)
                .sort([("lease_until", 1), ("_id", 1)])
                .limit(limit)
            ),
        )
    found.sort(key=lambda doc: (doc["lease_until"], doc["_id"]))
    return found


def _questions(wanted: Sequence[Wanted]) -> list[tuple[Doc, Doc]]:
    """Pairs of queries: for waiting jobs, and for claimed ones."""
    plain = [one.name for one in wanted if not is_tree(one.name) and not is_covered(one.name, one.exclude)]
    names = list(dict.fromkeys(plain))
    pairs: list[tuple[Doc, Doc]] = []
    for start in range(0, len(names), _NAMES_A_LOOK):
        queue = {"queue": {"$in": names[start : start + _NAMES_A_LOOK]}}
        pairs.append(({**queue, "rank": {"$in": RANKS}, "due_at": {"$gt": EVER}}, queue))
    for one in wanted:
        parts = queue_conditions(one) if is_tree(one.name) else []
        if parts:
            inside = _of_tree(one, parts)
            pairs.append(({**inside, "due_at": {"$gt": EVER}}, inside))
    return pairs


def _first(query: Doc, field: str, index: Index) -> Any:
    def look(jobs: Any) -> list[datetime]:
        cursor = jobs.find(query, {field: 1, "_id": 0}, hint=index.name).sort(field, 1).limit(1)
        return [doc[field] for doc in cursor]

    return look
