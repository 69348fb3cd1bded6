"""Jobs whose document cannot be read: each is set aside by one guarded update.

See `mrq_core.drivers.damage`."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar

from bson import ObjectId, json_util

from mrq_broker_mongo.jobs import limits, parking, trees, uniques
from mrq_broker_mongo.jobs.records import (
    RANKS,
    cell_of,
    cell_of_record,
    check_whole,
    object_ids,
    of_doc,
    readable_fields,
    to_doc,
)
from mrq_broker_mongo.jobs.totals import Deltas
from mrq_broker_mongo.server import layout
from mrq_broker_mongo.server.arrangement import Arrangement
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import to_ms
from mrq_core.contract.messages import ClaimRef, ClaimRequest, Note, Settlement
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers import damage
from mrq_core.drivers.answers import UNREADABLE
from mrq_core.errors import BrokerError, BrokerUnavailable, JobDamaged

ATTEMPTS = 10
"""How often a job is read again after another process changed it first."""
MOST_MET = 200
"""How many entries of each queue are examined after a claim has failed."""
LOST_PARAMS = "lost"
"""In place of params that are gone: no dict, so that the job never runs with other params."""

FAILURES = (*UNREADABLE, BrokerError)
"""What a call may raise that meets a damaged job."""
_TIMES = ("due_at", "lease_until", "ended_at", "expires_at")
_UNKNOWN = "unknown"
_log = logging.getLogger("mrq.mongo")
_Answer = TypeVar("_Answer")


def past_damage(connection: Connection, call: Callable[[], _Answer]) -> _Answer:
    """The answer of a call, after all damaged jobs that it meets are set aside."""
    return damage.past_damage(call, lambda error: set_aside(connection, object_ids([error.job_id])) > 0)


def is_mended(error: Exception, set_aside: Callable[[], bool]) -> bool:
    """Whether a call that failed in another way than by JobDamaged has met damaged jobs, which are set aside
    now: a field of another type fails in the driver, or in an update on the server."""
    try:
        return not isinstance(error, JobDamaged | BrokerUnavailable) and set_aside()
    except FAILURES:  # the first error says more
        return False


def set_aside_all(connection: Connection, items: Sequence[ClaimRef | Note | Settlement]) -> bool:
    """Sets the damaged ones of these jobs aside. Whether there were any."""
    return set_aside(connection, object_ids([one.id for one in items])) > 0


def set_aside_met(
    connection: Connection, documents: Iterable[Doc], token: str | None = None
) -> BrokerError | None:
    """Sets the jobs aside that a claim has met, or has started under the token. Returns an error of the
    broker, which the caller raises unless the claim has other jobs: these must not be lost."""
    try:
        for doc in documents:
            is_mine = token is not None and doc.get("token") == token
            set_aside(connection, [doc["_id"]], is_over=True if is_mine else None)
    except BrokerError as error:
        _log.error("claim.damaged error=%s", error)
        return error
    return None


def set_aside_due(connection: Connection, request: ClaimRequest) -> bool:
    """Sets damaged jobs aside that a claim of these queues may meet. Whether there were any."""
    now = connection.now()
    ids: dict[ObjectId, None] = {}
    for wanted in request.wanted:
        found = trees.due(connection, wanted, "", now, MOST_MET)
        for queue in trees.queue_conditions(wanted):
            for query in (
                {"queue": queue, "status": "started", "lease_until": {"$lte": now}},
                {"queue": queue, "rank": {"$in": RANKS}, "due_at": _NO_TIME},
                {"queue": queue, "rank": {"$in": RANKS}, "lease_until": _NO_TIME},
            ):
                found += connection.run("jobs", _finder(query))
        ids.update((doc["_id"], None) for doc in found)
    return set_aside(connection, list(ids)) > 0


_NO_TIME: Doc = {"$exists": True, "$not": {"$type": "date"}}


def _finder(query: Doc) -> Callable[[Any], list[Doc]]:
    return lambda jobs: list(jobs.find(query).limit(MOST_MET))


def set_aside(connection: Connection, ids: Sequence[ObjectId], *, is_over: bool | None = None) -> int:
    """Sets damaged jobs aside; returns their number. `is_over`: as `damage.set_aside` takes it."""
    layout.recognize(connection)
    number = 0
    for job in ids:
        for _ in range(ATTEMPTS):
            doc = connection.run("jobs", _reader(job))
            error = None if doc is None else _damage_of(doc, connection.arrangement)
            if doc is None or error is None:
                break
            after = _after(connection, doc, error, is_over)
            written = _document_of(doc, after, connection)
            if connection.run("jobs", _replacer(_guard_of(doc), written)):
                _follow(connection, doc, written, after)
                _log.error("job.damaged id=%s status=%s error=%s", job, after.status, error)
                number += 1
                break
    return number


def _reader(job: ObjectId) -> Callable[[Any], Doc | None]:
    return lambda jobs: jobs.find_one({"_id": job})


def _replacer(guard: Doc, doc: Doc) -> Callable[[Any], bool]:
    return lambda jobs: bool(jobs.replace_one(guard, doc).matched_count)


def _guard_of(doc: Doc) -> Doc:
    """Finds the document if it is as it was read. Its version may be damaged."""
    fields = ("v", "by", "status", "token", "queued_at", "lease_until", "due_at")
    return {"_id": doc["_id"], **{name: doc.get(name, {"$exists": False}) for name in fields}}


def _damage_of(doc: Doc, arrangement: Arrangement) -> JobDamaged | None:
    try:
        check_whole(doc)
        of_doc(doc, arrangement)
    except JobDamaged as error:
        return error
    for name in _TIMES:
        if not isinstance(doc.get(arrangement.name(name)), datetime | None):
            return damage.damaged(str(doc["_id"]), f"field {name}", None)
    return None


def _after(connection: Connection, doc: Doc, error: JobDamaged, is_over: bool | None) -> JobRecord:
    now, form = connection.now(), connection.arrangement
    values = {
        "queue": _UNKNOWN,
        "path": _UNKNOWN,
        "queued_at": doc["_id"].generation_time,
        "updated_at": now,
        "at_most_once": "at_most_once" in doc,
        **readable_fields(doc, form),
        "params": {},
    }
    for name in _TIMES:
        if not isinstance(doc.get(form.name(name)), datetime):
            values.pop(name, None)
    known = JobRecord(**values)
    if is_over is None and not form.has_queue:
        is_over = False  # the queue alone knows the end of the lease
    if known.status is Status.STARTED and known.lease_until is None:
        is_over = True
    return damage.set_aside(known, now, error, {"document": json_util.dumps(doc)}, is_over=is_over)


def _document_of(doc: Doc, after: JobRecord, connection: Connection) -> Doc:
    """The new document. Params, keys and follow-ups stay as they are stored."""
    written = to_doc(after, connection.arrangement)
    for name in ("unique_until", "unique_period", "followups"):
        if name in doc:
            written[name] = doc[name]
    written["params"] = doc.get("params", LOST_PARAMS)
    if "params" in (doc.get("renamed") or ()):
        written["renamed"] = sorted({"params", *written.get("renamed", ())})
    version = doc.get("v")
    # A version that is lost may have been any number; the queue of a pair compares it.
    written["v"] = version + 1 if isinstance(version, int) else to_ms(after.updated_at)
    return written


def _follow(connection: Connection, doc: Doc, written: Doc, after: JobRecord) -> None:
    """Totals, the slots of limits and the unique key."""
    deltas = Deltas()
    try:
        check_whole({**doc, "v": 1, "queued_at": after.queued_at})
        before = cell_of(doc)
        if before in set(Status):
            deltas.add(doc["queue"], doc["path"], before, None)
            if isinstance(doc.get("exception_type"), str):
                deltas.add_error(doc["exception_type"], doc.get("error_group"), before, -1)
    except JobDamaged:
        pass  # a recount corrects the totals
    deltas.add(after.queue, after.path, None, cell_of_record(after))
    if after.exception_type is not None:
        deltas.add_error(after.exception_type, after.error_group, cell_of_record(after), 1)
    deltas.write(connection)
    if not connection.arrangement.has_queue or not after.is_ended:
        return
    if after.unique_key is not None and uniques.is_done_with(written):
        uniques.release(connection, [(after.unique_key, doc["_id"])])
    if doc.get("status") == "started" and after.limit_keys:
        slots = {key: [limits.Claim(doc["_id"], None)] for key in after.limit_keys}
        for key, number in limits.give_back(connection, slots, after.updated_at).items():
            parking.let_go(connection, key, number)
