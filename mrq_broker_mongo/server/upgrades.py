"""Upgrades of the data of earlier versions. See `mrq_core.drivers.versions`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pymongo import UpdateOne
from pymongo.errors import OperationFailure

from mrq_broker_mongo.jobs import recounting
from mrq_broker_mongo.jobs.records import of_doc, text_of
from mrq_broker_mongo.server.connection import Connection, Jobs
from mrq_broker_mongo.server.failures import NO_COLLECTION, NO_INDEX
from mrq_broker_mongo.server.location import Doc
from mrq_broker_mongo.shared.state import MongoState
from mrq_core.contract import rules
from mrq_core.contract.terms import terms_of
from mrq_core.failpoints import reach

BATCH = 500
"""The number of jobs that one call reads or writes."""
_FIELDS = ("path", "queue", "status", "queued_at", "updated_at", "exception_type", "rank")
"""The fields from which version 1 makes terms, and the fields that every record needs."""


def add_terms(connection: Connection) -> None:
    """The upgrade to version 2: jobs with an exception get terms, which have an index, and are counted by
    the type of the exception. Metrics have tags; those of version 1, whose workers recorded none, are
    deleted. Pauses move into shared state.

    The index of exception types is dropped. A worker of version 1 would store no terms.
    """
    connection.run("metrics", lambda metrics: metrics.delete_many({"old_at": {"$exists": False}}))
    after: Any = None
    while found := connection.run("jobs", _reader(after)):
        after = found[-1]["_id"]
        updates = [_update(connection, doc) for doc in found if "terms" not in doc]
        reach("upgrade.terms")
        if updates:
            connection.run("jobs", _writer(updates))
    recounting.recount(connection)
    reach("upgrade.indexes")
    connection.run("jobs", _drop_index)
    _move_pauses(connection)


def _move_pauses(connection: Connection) -> None:
    """Moves the pauses of version 1 into shared state. Repeating the move after a crash is harmless."""
    found = connection.run("meta", lambda meta: meta.find_one({"_id": "pauses"}))
    for name in (found or {}).get("names", ()):
        MongoState(connection).put(rules.PAUSED_QUEUES, name, {})
    connection.run("meta", lambda meta: meta.delete_one({"_id": "pauses"}))


def _reader(after: Any) -> Callable[[Jobs], list[Doc]]:
    """Reads the next jobs with an exception, in the order of ids."""
    wanted: Doc = {"exception_type": {"$exists": True}}
    if after is not None:
        wanted["_id"] = {"$gt": after}
    fields = dict.fromkeys((*_FIELDS, "terms"), 1)
    return lambda jobs: list(jobs.find(wanted, fields, hint="_id_").sort("_id", 1).limit(BATCH))


def _writer(updates: list[UpdateOne]) -> Callable[[Jobs], object]:
    return lambda jobs: jobs.bulk_write(updates, ordered=False)


def _update(connection: Connection, doc: Doc) -> UpdateOne:
    """Adds the terms, unless the exception of the job has changed."""
    record = of_doc({**doc, "params": {}}, connection.arrangement)
    same = {"_id": doc["_id"], "exception_type": doc["exception_type"], "terms": {"$exists": False}}
    return UpdateOne(same, {"$set": {"terms": sorted(map(text_of, terms_of(record)))}})


def _drop_index(jobs: Jobs) -> None:
    try:
        jobs.drop_index("exception_type")
    except OperationFailure as error:
        if error.code not in (NO_INDEX, NO_COLLECTION):
            raise
