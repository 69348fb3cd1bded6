"""Counts anew what the MongoDB broker keeps counted, straight from the documents of the jobs."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from typing import Any

from pymongo.database import Database

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.jobs import recounting
from mrq_broker_mongo.jobs.records import of_doc
from mrq_broker_mongo.jobs.totals import KINDS
from mrq_broker_mongo.jobs.uniques import is_done_with
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.store import MongoStore
from mrq_core.contract.record import WAITING
from mrq_core.contract.terms import terms_of

Doc = dict[str, Any]

_RENEWED = timedelta(seconds=5)
"""By how much a slot may end before its job's lease: it is prolonged after it."""


def repair(broker: MongoBroker | MongoStore) -> int:
    """Does what a worker's housekeeping does once a minute: corrects numbers that a crash has left wrong."""
    connection: Connection = broker._connection
    return recounting.recount(connection)


def differences(connection: Connection) -> dict[tuple[str, str], tuple[int, int]]:
    """The numbers that a count does not confirm, each with the count; for collections at rest."""
    told = recounting._told(connection, None)
    counted = recounting._counted(connection, KINDS.values(), None)
    return {
        cell: (told.get(cell, 0), counted.get(cell, 0))
        for cell in {*told, *counted}
        if told.get(cell, 0) != counted.get(cell, 0)
    }


def check_collections(broker: MongoBroker) -> None:
    """Places, numbers, slots, keys and logs are what the documents of the jobs say; so are the records.

    Numbers are mended first: that they are exact without it holds only where nobody died.
    """
    repair(broker)
    connection: Connection = broker._connection
    everything: dict[str, list[Doc]] = connection.on_database(lambda database: _all(database, connection))
    jobs: dict[Any, Doc] = {doc["_id"]: doc for doc in everything["jobs"]}
    for doc in jobs.values():
        _check_place(doc)
        _check_terms(doc, connection)
    _check_numbers(everything["totals"], jobs)
    _check_slots(everything["limits"], jobs)
    _check_unique_keys(everything["keys"], jobs)
    heads = {doc["_id"][:12] for doc in everything["logs"]}
    assert heads <= {job.binary for job in jobs}, "a job that is gone has left a log"
    _check_records(broker, jobs)


def check_store(store: MongoStore) -> None:
    """The same of a store, which has neither places nor slots nor keys."""
    repair(store)
    connection: Connection = store._connection
    everything = connection.on_database(lambda database: _all(database, connection))
    jobs = {doc["_id"]: doc for doc in everything["jobs"]}
    for doc in jobs.values():
        _check_terms(doc, connection)
    _check_numbers(everything["totals"], jobs)
    assert not everything["limits"]
    assert not everything["keys"]
    heads = {doc["_id"][:12] for doc in everything["logs"]}
    assert heads <= {job.binary for job in jobs}, "a job that is gone has left a log"


def _all(database: Database[Doc], connection: Connection) -> dict[str, list[Doc]]:
    names = ("jobs", "totals", "limits", "keys", "logs")
    return {name: list(database[connection.name(name)].find()) for name in names}


def _check_place(doc: Doc) -> None:
    """A waiting job has a due time or is parked, a started one a lease, one that has ended neither."""
    is_waiting = doc["status"] in WAITING and doc.get("ended_at") is None
    assert ("due_at" in doc) + ("parked" in doc) == is_waiting, doc
    assert ("lease_until" in doc) == (doc["status"] == "started"), doc
    assert isinstance(doc["v"], int), doc
    assert ("root" in doc) == ("/" in doc["queue"]), doc


def _check_terms(doc: Doc, connection: Connection) -> None:
    """A job has exactly the terms of its record. A job without terms has no array."""
    terms = {f"{term.name}\0{term.value}" for term in terms_of(of_doc(doc, connection.arrangement))}
    assert set(doc.get("terms", ())) == terms, doc
    assert "terms" not in doc or len(doc["terms"]) == len(terms) > 0, doc


def _check_numbers(found: list[Doc], jobs: dict[Any, Doc]) -> None:
    counted: Counter[tuple[str, str]] = Counter()
    for doc in jobs.values():
        is_ended_interrupt = doc["status"] == "interrupt" and doc.get("ended_at") is not None
        cell = "interrupt ended" if is_ended_interrupt else doc["status"]
        counted[f"q {doc['queue']}", cell] += 1
        counted[f"p {doc['path']}", cell] += 1
        if "error_group" in doc:
            counted[f"g {doc['error_group']}", cell] += 1
        if "exception_type" in doc:
            counted[f"t {doc['exception_type']}", cell] += 1
    told = {(doc["_id"], cell): n for doc in found for cell, n in doc.get("n", {}).items() if n}
    assert told == counted


def _check_slots(found: list[Doc], jobs: dict[Any, Doc]) -> None:
    """Each running job has its slots, as long as its lease."""
    held = {(slot["job"], doc["_id"]): slot["until"] for doc in found for slot in doc.get("held", ())}
    for job, doc in jobs.items():
        for key in set(doc.get("limit_keys", ())) if doc["status"] == "started" else ():
            if any(one["_id"] == key and "held" in one for one in found):
                assert held[job, key] >= doc["lease_until"] - _RENEWED, doc


def _check_unique_keys(found: list[Doc], jobs: dict[Any, Doc]) -> None:
    """Each job that needs its key has it. Keys until `record` are in no collection."""
    holders = {doc["_id"]: doc["job"] for doc in found}
    assert not any(jobs.get(job, {}).get("unique_until") == "record" for job in holders.values())
    for job, doc in jobs.items():
        if doc.get("unique_until") in ("queued", "done") and not is_done_with(doc):
            assert holders[doc["unique_key"]] == job, doc


def _check_records(broker: MongoBroker, jobs: dict[Any, Doc]) -> None:
    ids = [str(job) for job in jobs]
    for start in range(0, len(ids), 500):
        part = ids[start : start + 500]
        for doc, record in zip(list(jobs.values())[start : start + 500], broker.get(part), strict=True):
            if record is not None:
                assert (record.status.value, record.queue) == (doc["status"], doc["queue"])
                assert (record.path, record.token) == (doc["path"], doc.get("token"))
