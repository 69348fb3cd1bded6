"""Storing new jobs with their entries: keys first, then the jobs, then a hint and the totals.

A key until `record` is stored with its job: the unique index `record_keys` refuses a second job with the key.

A crash before the jobs are stored leaves keys without a job, which other jobs may take after a minute. A
crash afterwards loses a hint, and leaves totals that a recount repairs.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from bson import ObjectId
from pymongo.errors import BulkWriteError

from mrq_broker_mongo.jobs import removing, sizes, uniques
from mrq_broker_mongo.jobs.records import cell_of, has_expired, to_doc
from mrq_broker_mongo.jobs.totals import Deltas
from mrq_broker_mongo.jobs.uniques import WantedKey
from mrq_broker_mongo.server import layout
from mrq_broker_mongo.server.connection import Connection, Jobs
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import after
from mrq_core.contract.messages import Enqueued, NewJob
from mrq_core.contract.record import Status
from mrq_core.errors import BrokerUnavailable

RECORD = "record"
"""Until when a key is held that belongs to its record; see `Unique`."""
_ATTEMPTS = 20


def enqueue(connection: Connection, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """See `Broker.enqueue`."""
    if not jobs:
        return []
    layout.ensure(connection)
    now = connection.now()
    documents: dict[str, Doc] = {}
    for job in jobs:
        if job.record.id not in documents:
            documents[job.record.id] = document_of(connection, job, now)
    holders, created = enqueue_documents(connection, documents, now)
    answers = []
    for job in jobs:
        job_id = job.record.id
        answers.append(Enqueued(id=holders.get(job_id, job_id), created=ObjectId(job_id) in created))
        created.discard(ObjectId(job_id))
    return answers


def enqueue_documents(
    connection: Connection, documents: dict[str, Doc], now: datetime
) -> tuple[dict[str, str], set[ObjectId]]:
    """Stores new jobs whose keys are free. Returns the holders of keys, and the created ids."""
    keyed = {
        job_id: WantedKey(doc["unique_key"], doc["_id"], doc.get("unique_period"))
        for job_id, doc in documents.items()
        if doc.get("unique_until") not in (None, RECORD)
    }
    holders = _reserve(connection, keyed, now)
    wanted = [doc for job_id, doc in documents.items() if holders.get(job_id, job_id) == job_id]
    created, others = store(connection, wanted, now)
    holders |= {str(job): str(holder) for job, holder in others.items()}
    uniques.confirm(connection, [one for one in keyed.values() if one.job in created])
    return holders, created


def _reserve(connection: Connection, keyed: dict[str, WantedKey], now: datetime) -> dict[str, str]:
    """The holders of the keys that these jobs request. A stored job gets no key: its id comes first."""
    if not keyed:
        return {}
    wanted = {"_id": {"$in": [one.job for one in keyed.values()]}}
    found = connection.run("jobs", lambda jobs: list(jobs.find(wanted, {"expires_at": 1})))
    there = {str(doc["_id"]) for doc in found if not has_expired(doc, now)}
    fresh = {job_id: one for job_id, one in keyed.items() if job_id not in there}
    holders = uniques.reserve(connection, list(fresh.values()), now)
    return {job_id: str(holder) for job_id, holder in zip(fresh, holders, strict=True)}


def document_of(connection: Connection, job: NewJob, now: datetime) -> Doc:
    """The document of a new job. Raises ValueError for a naive time, and ValueTooLarge."""
    doc = to_doc(job.record, connection.arrangement)
    # Only the claim of another version than 1 archives the attempt that raised the exception.
    doc["v"] = 1 if job.record.exception_type is None else 2
    if job.unique is not None:
        doc.update(unique_key=job.unique.key, unique_until=job.unique.until, special=True)
        if job.unique.until == "period":
            doc["unique_period"] = job.unique.period
    if job.record.status is not Status.STARTED:
        doc["due_at"] = after(now, job.delay) if job.delay is not None else job.record.due_at or now
    sizes.check_new(job.record, doc)
    return doc


def store(
    connection: Connection, documents: Iterable[Doc], now: datetime
) -> tuple[set[ObjectId], dict[ObjectId, ObjectId]]:
    """Inserts new jobs, and deletes expired jobs with the same ids or with the same keys until `record`.

    Returns the created ids, and the holders of keys by the ids of jobs that were not created.
    """
    rest = list(documents)
    number = secrets.randbits(62)
    for doc in rest:
        doc["by"] = number
    created = _insert(connection, rest, number)
    there = [doc["_id"] for doc in rest if doc["_id"] not in created]
    if there:
        expired = {"_id": {"$in": there}, "expires_at": {"$lte": now}}
        old = connection.run("jobs", lambda jobs: list(jobs.find(expired)))
        if old:
            removing.make_room(connection, old, now)
            free = {doc["_id"] for doc in old}
            created |= _insert(connection, [doc for doc in rest if doc["_id"] in free], number)
    keyed = [doc for doc in rest if doc["_id"] not in created and doc.get("unique_until") == RECORD]
    more, holders = _insert_keyed(connection, keyed, number, now) if keyed else (set(), {})
    created |= more
    added = [doc for doc in rest if doc["_id"] in created]
    deltas = Deltas()
    for doc in added:
        deltas.add(doc["queue"], doc["path"], None, cell_of(doc))
        if "exception_type" in doc:
            deltas.add_error(doc["exception_type"], doc.get("error_group"), cell_of(doc), 1)
    if connection.arrangement.has_queue:
        connection.wake([doc["queue"] for doc in added if "due_at" in doc])
    deltas.write(connection)
    return created, holders


def _insert_keyed(
    connection: Connection, documents: Sequence[Doc], number: int, now: datetime
) -> tuple[set[ObjectId], dict[ObjectId, ObjectId]]:
    """Inserts jobs that another job has kept out by its id or its key until `record`, where that job is gone
    or has expired.

    Returns the created ids, and the holders of keys by the ids of jobs that were not created. Raises
    BrokerUnavailable if keys change hands all the time.
    """
    created: set[ObjectId] = set()
    holders: dict[ObjectId, ObjectId] = {}
    left = list(documents)
    for _ in range(_ATTEMPTS):
        of_keys: Doc = {"unique_key": {"$in": [doc["unique_key"] for doc in left]}, "unique_until": RECORD}
        in_the_way = {"$or": [{"_id": {"$in": [doc["_id"] for doc in left]}}, of_keys]}
        found = connection.run("jobs", _finder(in_the_way))
        expired = [doc for doc in found if has_expired(doc, now)]
        valid = [doc for doc in found if not has_expired(doc, now)]
        ids = {doc["_id"] for doc in valid}
        of_key = {doc["unique_key"]: doc["_id"] for doc in valid if doc.get("unique_until") == RECORD}
        for doc in left:
            if doc["_id"] not in ids and doc["unique_key"] in of_key:
                holders[doc["_id"]] = of_key[doc["unique_key"]]
        left = [doc for doc in left if doc["_id"] not in ids and doc["_id"] not in holders]
        if not left:
            return created, holders
        if expired:
            removing.make_room(connection, expired, now)
        created |= _insert(connection, left, number)
        left = [doc for doc in left if doc["_id"] not in created]
        if not left:
            return created, holders
    raise BrokerUnavailable(
        f"{len(left)} idempotency keys were taken and released by other processes {_ATTEMPTS} times before "
        "this call could store its jobs: try again"
    )


def _finder(query: Doc) -> Callable[[Jobs], list[Doc]]:
    return lambda jobs: list(jobs.find(query, removing.FIELDS))


def _insert(connection: Connection, documents: Sequence[Doc], number: int) -> set[ObjectId]:
    if not documents:
        return set()
    ids = {doc["_id"] for doc in documents}
    try:
        # The ids make a repetition harmless.
        connection.run("jobs", lambda jobs: jobs.insert_many(documents, ordered=False))
    except BulkWriteError as error:
        there = {documents[problem["index"]]["_id"] for problem in (error.details or {})["writeErrors"]}
        # Those that bear this call's number were stored by an attempt whose reply was lost.
        mine = {"_id": {"$in": list(there)}, "by": number}
        found = connection.run("jobs", lambda jobs: list(jobs.find(mine, {"_id": 1})))
        return ids - there | {doc["_id"] for doc in found}
    return ids
