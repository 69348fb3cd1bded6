"""Repairing totals while jobs go on, and forgetting the names of queues whose jobs are all gone.

A number is wrong for good where a process died between its write of jobs and that of their totals, and for a
moment between the two writes of any call. A look reads the numbers, counts the jobs, and reads the numbers
again, also a little later, when calls have written both. If a number is wrong by the same difference all the
time, each look gives an interval that contains the difference: from the count less the largest reading to the
count less the smallest. A number that rests gives the difference itself. The intersection of the intervals of
some looks excludes 0 where a number is wrong for good. The correction is the end of the intersection that is
closer to 0. Corrections are additions, so that no change of another process is lost.

A count is no snapshot: one that meets a job before it is claimed, and later those that are enqueued
meanwhile, is too large, and in a busy queue each one is. A difference that is no larger than the change of
the number within a look is therefore left until the number rests.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from pymongo.errors import DuplicateKeyError

from mrq_broker_mongo.jobs.records import ENDED_INTERRUPT
from mrq_broker_mongo.jobs.totals import KINDS, all_of
from mrq_broker_mongo.server.connection import Connection, Jobs
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import monotonic

RECOUNT_SECONDS = 45.0
_LEASE_MS = 60_000
_SHARE = 50
"""The pause after a recount, as a multiple of its duration."""
_LEAST_LOOKS, _MOST_LOOKS = 4, 30
_READINGS = 4
"""The readings of the numbers after a count."""
_BETWEEN = 0.005
"""Seconds between two readings."""
_PATIENCE = 10.0
"""Seconds after which a recount stops looking."""
_EMPTY = timedelta(seconds=30)
"""The time for which a queue is empty before its name is forgotten: longer than any call takes."""
_MOST_EMPTY = 1_000
"""The number of empty queues that one recount examines."""
_INDEXED = ("q", "p")

Cell = tuple[str, str]
"""The `_id` of a total, and the status under which it counts."""
Numbers = dict[Cell, int]


class Interval(NamedTuple):
    """The differences between the jobs and a number that a look leaves possible."""

    low: int
    high: int
    moved: int
    """The largest change of the number within a look."""

    def both(self, other: Interval) -> Interval:
        """The differences that both leave possible."""
        moved = max(self.moved, other.moved)
        return Interval(max(self.low, other.low), min(self.high, other.high), moved)

    @property
    def is_wrong(self) -> bool:
        """Whether the number differs for good, by more than it changes."""
        return self.low <= self.high and (self.low > self.moved or -self.high > self.moved)

    @property
    def correction(self) -> int:
        """The possible difference that is closest to 0."""
        return max(self.low, 0) + min(self.high, 0)


def recount_if_due(connection: Connection) -> bool:
    """Recounts once a minute, in one process, less often where it takes long; answers whether it did."""
    now = connection.now()
    wanted = {"_id": "recount", "$or": [{"due": {"$lte": now}}, {"due": {"$exists": False}}]}
    lease = {"$add": [now, {"$max": [_LEASE_MS, {"$multiply": [3000, {"$ifNull": ["$took", 0]}]}]}]}
    try:
        held = connection.run(
            "meta", lambda meta: meta.update_one(wanted, [{"$set": {"due": lease}}], upsert=True)
        )
    except DuplicateKeyError:
        return False
    if not held.matched_count and held.upserted_id is None:
        return False
    began = monotonic()
    recount(connection)
    _delete_empty(connection)
    _forget_queues(connection, now)
    took = monotonic() - began
    due = now + timedelta(seconds=max(RECOUNT_SECONDS, _SHARE * took))
    done = {"$set": {"due": due, "took": took}}
    connection.run("meta", lambda meta: meta.update_one({"_id": "recount"}, done))
    return True


def recount(connection: Connection) -> int:
    """Corrects the numbers that are wrong for good, beside working processes, and returns how many it
    corrected.

    Exact for a number that rests in all looks. In a number that changes, a difference may remain that is
    about as large as its changes within a look, until a later recount.
    """
    deadline = monotonic() + _PATIENCE
    wrong = _wrong(_look(connection, KINDS.values()))
    looks = 1
    while wrong and looks < _MOST_LOOKS and monotonic() < deadline:
        if looks >= _LEAST_LOOKS and all(interval.low == interval.high for interval in wrong.values()):
            break
        wrong = _wrong(_narrowed(connection, wrong))
        looks += 1
    if looks < _LEAST_LOOKS:
        return 0
    for (name, status), interval in wrong.items():
        connection.run_soft("totals", _adder(name, status, interval.correction))
    return len(wrong)


def _wrong(found: Mapping[Cell, Interval]) -> dict[Cell, Interval]:
    return {cell: interval for cell, interval in found.items() if interval.is_wrong}


def _narrowed(connection: Connection, wrong: Mapping[Cell, Interval]) -> dict[Cell, Interval]:
    """The intervals after one more look at these numbers."""
    found: dict[Cell, Interval] = {}
    for kind in KINDS.values():
        names = {name for name, _ in wrong if name.startswith(f"{kind} ")}
        if names:
            again = _look(connection, (kind,), names)
            found |= {
                cell: interval.both(again.get(cell, Interval(0, 0, 0)))
                for cell, interval in wrong.items()
                if cell[0] in names
            }
    return found


def _look(
    connection: Connection, kinds: Collection[str], names: Collection[str] | None = None
) -> dict[Cell, Interval]:
    """The intervals of all numbers, or of the numbers of one kind with these names."""
    readings = [_told(connection, names)]
    counted = _counted(connection, kinds, names)
    for _ in range(_READINGS):
        readings.append(_told(connection, names))
        time.sleep(_BETWEEN)
    intervals = {}
    for cell in {*counted, *(cell for told in readings for cell in told)}:
        told = [reading.get(cell, 0) for reading in readings]
        number = counted.get(cell, 0)
        intervals[cell] = Interval(number - max(told), number - min(told), max(told) - min(told))
    return intervals


def _told(connection: Connection, names: Collection[str] | None) -> Numbers:
    wanted: Doc = {} if names is None else {"_id": {"$in": [*names]}}
    found = connection.run("totals", lambda totals: list(totals.find(wanted)))
    return {
        (doc["_id"], status): number for doc in found for status, number in doc.get("n", {}).items() if number
    }


def _counted(connection: Connection, kinds: Collection[str], names: Collection[str] | None) -> Numbers:
    """Counts the jobs on the server: all jobs, or those with one of these names, which are of one kind."""
    fields = {field: kind for field, kind in KINDS.items() if kind in kinds}
    group: Doc = {kind: f"${field}" for field, kind in fields.items()}
    group |= {"s": "$status", "e": {"$gt": ["$ended_at", None]}}
    hint: dict[str, Any] = {}
    pipeline: list[Doc] = []
    if names is not None:
        [(field, kind)] = fields.items()
        pipeline.append({"$match": {field: {"$in": [name[2:] for name in names]}}})
        hint = {"hint": field} if kind in _INDEXED else {}
    pipeline += [
        {"$project": dict.fromkeys((*fields, "status", "ended_at"), 1)},
        {"$group": {"_id": group, "n": {"$sum": 1}}},
    ]
    numbers: Numbers = {}
    found = connection.run("jobs", lambda jobs: list(jobs.aggregate(pipeline, allowDiskUse=True, **hint)))
    for row in found:
        of = row["_id"]
        status = ENDED_INTERRUPT if of["s"] == "interrupt" and of["e"] else of["s"]
        for kind in fields.values():
            if of.get(kind) is not None:
                cell = (f"{kind} {of[kind]}", status)
                numbers[cell] = numbers.get(cell, 0) + row["n"]
    return numbers


def _adder(name: str, status: str, number: int) -> Callable[[Jobs], Any]:
    return lambda totals: totals.update_one({"_id": name}, {"$inc": {f"n.{status}": number}}, upsert=True)


# --- numbers that are 0 -------------------------------------------------------------------------------


def _delete_empty(connection: Connection) -> None:
    """Deletes the numbers of error groups and types of exceptions without jobs, because new ones appear as
    long as code changes."""
    wanted = {"$or": [{"_id": all_of("g")}, {"_id": all_of("t")}]}
    for doc in connection.run("totals", lambda totals: list(totals.find(wanted))):
        if not any(doc["n"].values()):
            connection.run_soft("totals", _deleter(doc))


def _forget_queues(connection: Connection, now: datetime) -> None:
    """Deletes the numbers of queues, and with them the names, that are empty since an earlier recount.

    A job or a parameter that is added meanwhile stays known: its call writes the number after the job, and
    creates it again, or writes the name at least 30 s before the parameter.
    """
    found = connection.run("totals", lambda totals: list(totals.find({"_id": all_of("q")})))
    empty = [doc for doc in found if not any(doc["n"].values())]
    for doc in random.sample(empty, min(len(empty), _MOST_EMPTY)):
        if _holds_something(connection, doc["_id"][2:]):
            continue
        empty_at = doc.get("empty_at")
        if empty_at is None:
            connection.run_soft("totals", _marker(doc, now))
        elif empty_at <= now - _EMPTY:
            connection.run_soft("totals", _deleter(doc))


def _holds_something(connection: Connection, queue: str) -> bool:
    """Whether the queue has a job, or a parameter that is not settled."""
    wanted = {"queue": queue}
    if connection.run("jobs", lambda jobs: jobs.find_one(wanted, {"_id": 1}, hint="queue")) is not None:
        return True
    if not connection.arrangement.has_queue:
        return False
    parts = ({**wanted, "score": {"$exists": True}}, {**wanted, "until": {"$exists": True}})
    return any(
        connection.run("raw", lambda raw: raw.find_one(part, {"_id": 1})) is not None  # noqa: B023
        for part in parts
    )


def _deleter(unchanged: Doc) -> Callable[[Jobs], Any]:
    return lambda totals: totals.delete_one(unchanged)


def _marker(unchanged: Doc, now: datetime) -> Callable[[Jobs], Any]:
    return lambda totals: totals.update_one(unchanged, {"$set": {"empty_at": now}})
