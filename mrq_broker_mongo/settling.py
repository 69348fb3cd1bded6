"""What a worker says of its claims: renew, annotate, settle. All are guarded by the token."""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeVar

from bson import ObjectId
from pymongo import UpdateOne

from mrq_broker_mongo import limiting
from mrq_broker_mongo.changes import Records
from mrq_broker_mongo.connection import Connection
from mrq_broker_mongo.location import Doc
from mrq_broker_mongo.successes import successes
from mrq_broker_mongo.totals import Deltas
from mrq_core.clock import after
from mrq_core.contract.messages import ClaimRef, Note, Outcome, Settlement
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import encoding, replacing
from mrq_core.ids import is_id

_MOST_HELD = 10_000
_Item = TypeVar("_Item", ClaimRef, Note)


class Place(NamedTuple):
    """What is to be known of a running job to end it without reading it."""

    queue: str
    path: str
    is_plain: bool


class Held:
    """Queue and path of the jobs that were claimed here, which do not change before they are settled. What is
    not in it is looked up."""

    def __init__(self) -> None:
        self._places: OrderedDict[tuple[str, str], Place] = OrderedDict()

    def add(self, record: JobRecord, *, is_plain: bool) -> None:
        """This job was claimed. `is_plain`: its success concerns nothing but its document."""
        place = Place(record.queue, record.path, is_plain)
        self._places[record.id, record.token or ""] = place
        if len(self._places) > _MOST_HELD:
            self._places.popitem(last=False)

    def get(self, job_id: str, token: str) -> Place | None:
        return self._places.get((job_id, token))

    def drop(self, job_id: str, token: str) -> None:
        """This claim is over."""
        self._places.pop((job_id, token), None)


def renew(connection: Connection, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
    """See `Broker.renew`."""
    until = after(connection.now(), lease)
    # Slots first: a job may have its slot for longer than its lease, and never the other way round.
    limiting.prolong(connection, [ref for ref in claims if is_id(ref.id)], until)
    change: Doc = {"$set": {"lease_until": until}, "$inc": {"v": 1}}
    return change_running(connection, claims, lambda ref: change)


def annotate(connection: Connection, notes: Sequence[Note]) -> list[bool]:
    """See `Broker.annotate`."""
    now = connection.now()
    return change_running(
        connection,
        notes,
        lambda note: {"$set": {"progress": note.progress, "updated_at": now}, "$inc": {"v": 1}},
    )


def change_running(
    connection: Connection, items: Sequence[_Item], change: Callable[[_Item], Doc]
) -> list[bool]:
    """Changes running attempts, each guarded by its token."""
    valid = [(place, item) for place, item in enumerate(items) if is_id(item.id)]
    updates = [
        UpdateOne({"_id": ObjectId(item.id), "status": "started", "token": item.token}, change(item))
        for _, item in valid
    ]
    answers = [False] * len(items)
    if not updates:
        return answers
    done = connection.run("jobs", lambda jobs: jobs.bulk_write(updates, ordered=True)).matched_count
    held: set[tuple[str, str]] | None = None
    if done < len(updates):
        query = {"_id": {"$in": [ObjectId(item.id) for _, item in valid]}, "status": "started"}
        found = connection.run("jobs", lambda jobs: list(jobs.find(query, {"token": 1})))
        held = {(str(doc["_id"]), doc["token"]) for doc in found}
    for place, item in valid:
        answers[place] = held is None or (item.id, item.token) in held
    return answers


def settle(connection: Connection, settlements: Sequence[Settlement], held: Held) -> list[bool]:
    """See `Broker.settle`. Successes of plain jobs in one bulk write; the others are read and written."""
    answers = [True] * len(settlements)
    simple, others = sort(connection, settlements, held)
    if simple:
        written = write_successes(connection, settlements, simple, connection.now())
        others += simple.keys() - written
    if others:
        others.sort()
        settled = replacing.settle(Records(connection), [settlements[place] for place in others])
        for place, accepted in zip(others, settled, strict=True):
            answers[place] = accepted
    for settlement in settlements:
        held.drop(settlement.id, settlement.token)
    return answers


def sort(
    connection: Connection, settlements: Sequence[Settlement], held: Held
) -> tuple[dict[int, Place], list[int]]:
    """Which are successes that concern the job's own document only, with the job's place; and the others."""
    simple: dict[int, Place] = {}
    others: list[int] = []
    unknown: list[int] = []
    seen: set[str] = set()
    for number, settlement in enumerate(settlements):
        if not _is_simple(settlement.outcome) or settlement.id in seen or not is_id(settlement.id):
            others.append(number)
            continue
        seen.add(settlement.id)
        place = held.get(settlement.id, settlement.token)
        if place is None:
            unknown.append(number)
        elif place.is_plain:
            simple[number] = place
        else:
            others.append(number)
    if unknown:
        ids = [ObjectId(settlements[number].id) for number in unknown]
        fields = {"queue": 1, "path": 1, "special": 1}
        found = connection.run("jobs", lambda jobs: list(jobs.find({"_id": {"$in": ids}}, fields)))
        places = {str(doc["_id"]): Place(doc["queue"], doc["path"], "special" not in doc) for doc in found}
        for number in unknown:
            place = places.get(settlements[number].id)
            if place is not None and place.is_plain:
                simple[number] = place
            else:
                others.append(number)
    return simple, others


def _is_simple(outcome: Outcome) -> bool:
    return (
        encoding.is_plain_success(outcome)
        and not outcome.followups
        and not outcome.is_retry
        and outcome.traceback is None
        and outcome.original_traceback is None
    )


def write_successes(
    connection: Connection, settlements: Sequence[Settlement], simple: dict[int, Place], now: datetime
) -> set[int]:
    """Ends those claims that are the latest, of jobs for which the place is known; answers which it has
    ended."""
    number = secrets.randbits(62)
    lease = connection.arrangement.name("lease_until")
    updates = successes([settlements[place] for place in simple], now, number, lease)
    result = connection.run("jobs", lambda jobs: jobs.bulk_write(updates, ordered=False))
    written = set(simple)
    if result.matched_count < len(simple):
        ids = [ObjectId(settlements[place].id) for place in simple]
        query = {"_id": {"$in": ids}, "by": number}
        found = connection.run("jobs", lambda jobs: list(jobs.find(query, {"_id": 1})))
        mine = {str(doc["_id"]) for doc in found}
        written = {place for place in simple if settlements[place].id in mine}
    deltas = Deltas()
    for place in written:
        deltas.add(simple[place].queue, simple[place].path, "started", "success")
    deltas.write(connection)
    return written
