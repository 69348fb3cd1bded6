"""Jobs that wait for room under a limit key: without a due time, found by their key through an index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne

from mrq_broker_mongo.jobs.limits import opens_at, room_to_let_go
from mrq_broker_mongo.jobs.rates import Limits
from mrq_broker_mongo.jobs.records import guard_of
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.layout import PARKED
from mrq_broker_mongo.server.location import Doc

MAX_KEYS = 20
"""The number of keys that one sweep examines."""
Order = tuple[int, datetime, ObjectId]
"""Rank, due time and id of a job."""
_SORT = [(name, direction) for name, direction in PARKED.keys if name != "parked.key"]


def park(connection: Connection, doc: Doc, key: str, due: datetime, now: datetime) -> bool:
    """Takes the due time of a job, which was due then, away; False: it has changed."""
    change = _parked(key, due, now)
    return connection.run("jobs", lambda jobs: jobs.update_one(guard_of(doc), change)).matched_count == 1


def park_all(connection: Connection, docs: Sequence[tuple[Doc, str]], now: datetime) -> None:
    """Parks due jobs under these keys, in one command, unless they have changed."""
    changes = [UpdateOne(guard_of(doc), _parked(key, doc["due_at"], now)) for doc, key in docs]
    if changes:
        connection.run("jobs", lambda jobs: jobs.bulk_write(changes, ordered=False))


def _parked(key: str, due: datetime, now: datetime) -> Doc:
    return {
        "$set": {"parked": {"key": key, "since": now, "due": due}},
        "$unset": {"due_at": ""},
        "$inc": {"v": 1},
    }


def first_under(connection: Connection, key: str) -> Order | None:
    """The job under the key that is let go first. None: no job is parked."""
    fields = {"rank": 1, "parked.due": 1}
    found = connection.run("jobs", lambda jobs: jobs.find_one({"parked.key": key}, fields, sort=_SORT))
    return None if found is None else (found["rank"], found["parked"]["due"], found["_id"])


def first_opening(
    connection: Connection, keys: Iterable[str], limits: Limits, now: datetime
) -> datetime | None:
    """The first time at which a rate lets a parked job of these keys go. None: no such time is known."""
    times = []
    for key in keys:
        opens = opens_at(connection, key, limits, now)
        if opens is not None and first_under(connection, key) is not None:
            times.append(opens)
    return min(times, default=None)


def let_go(connection: Connection, key: str, number: int) -> int:
    """Releases up to `number` jobs parked under the key, due again as before: larger priority first, then the
    longest parked."""
    if number <= 0:
        return 0
    found = connection.run(
        "jobs", lambda jobs: list(jobs.find({"parked.key": key}).sort(_SORT).limit(number))
    )
    changes = [
        UpdateOne(
            guard_of(doc),
            {"$set": {"due_at": doc["parked"]["due"]}, "$unset": {"parked": ""}, "$inc": {"v": 1}},
        )
        for doc in found
    ]
    if not changes:
        return 0
    gone = connection.run("jobs", lambda jobs: jobs.bulk_write(changes, ordered=False)).matched_count
    connection.wake([doc["queue"] for doc in found])
    return gone


def sweep(
    connection: Connection, limits: Limits, now: datetime, *, after: str | None, most: int
) -> tuple[int, list[str]]:
    """Lets parked jobs go that have room, by key from behind the last key that was examined.

    Returns how many, and the examined keys. This also finds the jobs that a crash between the end of a job
    and the release of the next has left behind.
    """
    keys: list[str] = []
    for _ in range(MAX_KEYS):
        behind = {"$gt": after} if after is not None else {"$gte": ""}
        found = connection.run("jobs", _first_key(behind))
        if found is None:
            break
        after = found["parked"]["key"]
        keys.append(after)
    gone = 0
    for key in keys:
        room = room_to_let_go(connection, key, limits, now)
        gone += let_go(connection, key, most - gone if room is None else min(room, most - gone))
    return gone, keys


def _first_key(behind: Doc) -> Any:
    order = [(name, direction) for name, direction in PARKED.keys]
    return lambda jobs: jobs.find_one({"parked.key": behind}, {"parked.key": 1}, sort=order)
