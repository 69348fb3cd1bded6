"""Parameters of raw queues that are claimed: under a lease until they have a job, or visited where they
stay."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import UpdateOne

from mrq_broker_mongo.jobs import enqueueing, sizes
from mrq_broker_mongo.jobs.changing import Records
from mrq_broker_mongo.jobs.records import to_doc
from mrq_broker_mongo.raw.parameters import digest
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import after, to_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import RawClaim
from mrq_core.contract.naming import RawKind
from mrq_core.contract.record import JobRecord
from mrq_core.ids import new_id, new_nonce

ATTEMPTS = 20
"""How often a claim looks again because others were quicker."""
DAMAGED = "damaged_queue"
"""The field with the queue of a parameter that was taken out of the queue because it cannot be read."""
NOTED = "damaged parameters"
"""The document with the names of these queues, for `mrq check`."""
_SETTLED_KEPT = 10

_log = logging.getLogger("mrq.mongo")


class _Plan:
    """A claim to write: the document as it was read, and its update."""

    def __init__(self, doc: Doc, claim: RawClaim, guard: Doc, update: Doc) -> None:
        self.doc = doc
        self.claim = claim
        self.operation = UpdateOne({"_id": doc["_id"], **guard}, update)


def claim(
    connection: Connection, queue: str, kind: RawKind, limit: int, lease: float, pushback: float | None
) -> list[RawClaim]:
    """See `RawQueue.claim`."""
    now = connection.now()
    taken: list[RawClaim] = []
    for _ in range(ATTEMPTS):
        plans = _plan(connection, queue, kind, limit - len(taken), now, lease, pushback)
        won = _write(connection, plans)
        taken += won
        if len(won) == len(plans):
            break
    return taken


def _plan(
    connection: Connection,
    queue: str,
    kind: RawKind,
    limit: int,
    now: datetime,
    lease: float,
    pushback: float | None,
) -> list[_Plan]:
    """What could be taken now: expired leases first, then what is due."""
    if limit <= 0:
        return []
    over = {"queue": queue, "until": {"$lte": now}}
    found = connection.run("raw", lambda raw: list(raw.find(over).sort([("until", 1)]).limit(limit)))
    found = _without_jobs(connection, _whole(connection, found, ("param", "job", "token")))
    plans = [_again(doc, now, lease) for doc in found]
    score: Doc = {"$gte": float("-inf")}
    if kind is RawKind.TIMED_SET:
        score["$lte"] = to_ms(now) / 1000
    line = {"queue": queue, "score": score}
    room = limit - len(plans)
    if room > 0:
        order = [("score", 1), ("_id", 1)]
        waiting = connection.run("raw", lambda raw: list(raw.find(line).sort(order).limit(room)))
        has_scores = kind in (RawKind.SORTED_SET, RawKind.TIMED_SET)
        for doc in _whole(connection, waiting, ("param",)):
            shown = float(doc["score"]) if has_scores else None
            plans.append(
                _first(doc, shown, now, lease) if pushback is None else _visit(doc, shown, now, pushback)
            )
    return plans


def _whole(connection: Connection, documents: list[Doc], texts: tuple[str, ...]) -> list[Doc]:
    """The documents that have these texts. The others were changed by hand: they leave their queue, and keep
    its name under another field."""
    whole = [doc for doc in documents if all(isinstance(doc.get(name), str) for name in texts)]
    if len(whole) < len(documents):
        kept = {doc["_id"] for doc in whole}
        damaged = [doc["_id"] for doc in documents if doc["_id"] not in kept]
        leave: list[Doc] = [{"$set": {DAMAGED: "$queue"}}, {"$unset": "queue"}]
        connection.run("raw", lambda raw: raw.update_many({"_id": {"$in": damaged}}, leave))
        noted = {"$addToSet": {"queues": documents[0]["queue"]}}
        connection.run("meta", lambda meta: meta.update_one({"_id": NOTED}, noted, upsert=True))
        _log.error("raw.damaged documents=%s", damaged)
    return whole


def _without_jobs(connection: Connection, leases: list[Doc]) -> list[Doc]:
    """Leases whose parameter has a job after all, as a crash during its admission leaves them, are
    dropped."""
    doubtful = [doc for doc in leases if doc.get("is_admitted")]
    if not doubtful:
        return leases
    ids = {"_id": {"$in": [ObjectId(doc["job"]) for doc in doubtful]}}
    there = {str(doc["_id"]) for doc in connection.run("jobs", lambda jobs: list(jobs.find(ids, {"_id": 1})))}
    gone = [doc["_id"] for doc in doubtful if doc["job"] in there]
    if gone:
        connection.run("raw", lambda raw: raw.delete_many({"_id": {"$in": gone}, "is_admitted": True}))
    return [doc for doc in leases if doc["_id"] not in gone]


def _again(doc: Doc, now: datetime, lease: float) -> _Plan:
    token = lifecycle.make_token(lifecycle.claim_number(doc["token"]) + 1, new_nonce())
    shown = RawClaim(
        param=doc["param"], job_id=doc["job"], token=token, score=doc.get("claimed_score"), redelivered=True
    )
    update = {
        "$set": {"token": token, "until": after(now, lease)},
        "$unset": {"is_back": "", "is_admitted": ""},
    }
    return _Plan(doc, shown, {"token": doc["token"], "until": doc["until"]}, update)


def _first(doc: Doc, score: float | None, now: datetime, lease: float) -> _Plan:
    shown = RawClaim(
        param=doc["param"], job_id=new_id(), token=lifecycle.make_token(1, new_nonce()), score=score
    )
    fields: Doc = {"job": shown.job_id, "token": shown.token, "until": after(now, lease)}
    if score is not None:
        fields["claimed_score"] = score
    update = {"$set": fields, "$unset": {"h": "", "score": "", "visit": ""}}
    return _Plan(doc, shown, {"h": doc["h"], "score": doc["score"]}, update)


def _visit(doc: Doc, score: float | None, now: datetime, pushback: float) -> _Plan:
    before = doc.get("visit", {})
    number = before.get("number", 0) + 1
    token = lifecycle.make_token(number, new_nonce())
    shown = RawClaim(param=doc["param"], job_id=new_id(), token=token, score=score)
    visit = {"number": number, "job": shown.job_id, "token": token}
    guard = {"h": doc["h"], "score": doc["score"], "visit.number": before.get("number")}
    update = {"$set": {"visit": visit, "score": to_ms(after(now, pushback)) / 1000}}
    return _Plan(doc, shown, guard, update)


def _write(connection: Connection, plans: list[_Plan]) -> list[RawClaim]:
    """Writes what still can be; answers with the claims that were made."""
    if not plans:
        return []
    operations = [plan.operation for plan in plans]
    result = connection.run("raw", lambda raw: raw.bulk_write(operations, ordered=False), repeatable=False)
    if result.matched_count == len(plans):
        return [plan.claim for plan in plans]
    ids = {"_id": {"$in": [plan.doc["_id"] for plan in plans]}}
    now_held = {
        doc["_id"]: doc.get("token") or doc.get("visit", {}).get("token")
        for doc in connection.run("raw", lambda raw: list(raw.find(ids, {"token": 1, "visit": 1})))
    }
    return [plan.claim for plan in plans if now_held.get(plan.doc["_id"]) == plan.claim.token]


# --- ends of claims -----------------------------------------------------------------------------------


def _documents_of(connection: Connection, queue: str, claims: Sequence[RawClaim]) -> dict[str, list[Doc]]:
    """By job id: the documents that may be about the claims."""
    jobs = [one.job_id for one in claims]
    hashes = [digest(queue, one.param) for one in claims]
    query = {"$or": [{"job": {"$in": jobs}}, {"h": {"$in": hashes}}]}
    found = connection.run("raw", lambda raw: list(raw.find(query)))
    by_job = {doc["job"]: doc for doc in found if "job" in doc}
    by_hash = {bytes(doc["h"]): doc for doc in found if "h" in doc}
    return {
        one.job_id: [doc for doc in (by_job.get(one.job_id), by_hash.get(own)) if doc is not None]
        for one, own in zip(claims, hashes, strict=True)
    }


def _lease_guard(one: RawClaim) -> Doc:
    """Finds the parameter if this is its latest claim, neither settled nor admitted."""
    return {"job": one.job_id, "token": one.token, "until": {"$exists": True}, "is_back": {"$exists": False}}


def _visit_guard(queue: str, one: RawClaim) -> Doc:
    return {"h": digest(queue, one.param), "visit.job": one.job_id, "visit.token": one.token}


def _change(
    connection: Connection, queue: str, one: RawClaim, lease: Doc | list[Doc], visit: Doc | list[Doc]
) -> Doc | None:
    """Changes the document that the claim holds; answers with what it was before."""
    for guard, update in ((_lease_guard(one), lease), (_visit_guard(queue, one), visit)):
        found: Doc | None = connection.run("raw", _changer(guard, update), repeatable=False)
        if found is not None:
            return found
    return None


def _changer(guard: Doc, update: Doc | list[Doc]) -> Any:
    return lambda raw: raw.find_one_and_update(guard, update)


def renew(connection: Connection, queue: str, claims: Sequence[RawClaim], lease: float) -> list[bool]:
    """See `RawQueue.renew`."""
    until = after(connection.now(), lease)
    visit = {"$max": {"score": to_ms(until) / 1000}}
    return [_change(connection, queue, one, {"$set": {"until": until}}, visit) is not None for one in claims]


def settle(
    connection: Connection, queue: str, claims: Sequence[RawClaim], due_again: Sequence[float | None]
) -> list[bool]:
    """See `RawQueue.settle`."""
    now = connection.now()
    answers = []
    for one, delay in zip(claims, due_again, strict=True):
        note = {"settled": {"$each": [f"{one.job_id} {one.token}"], "$slice": -_SETTLED_KEPT}}
        if delay is None:
            kept: Doc = {"$set": {"settled_at": now}, "$push": note}
            lease = {**kept, "$unset": {"until": "", "is_admitted": ""}}
            visit = {
                "$set": {"settled_at": now, "job": one.job_id},
                "$push": note,
                "$unset": {"h": "", "score": "", "visit": ""},
            }
        else:
            due = after(now, delay)
            lease = {"$set": {"until": due, "is_back": True}, "$push": note}
            visit = {
                "$set": {"score": to_ms(due) / 1000},
                "$push": note,
                "$unset": {"visit.token": "", "visit.job": ""},
            }
        done = _change(connection, queue, one, lease, visit) is not None
        answers.append(done or _was_settled(connection, queue, one))
    return answers


def _was_settled(connection: Connection, queue: str, one: RawClaim) -> bool:
    proof = f"{one.job_id} {one.token}"
    return any(proof in doc.get("settled", ()) for doc in _documents_of(connection, queue, [one])[one.job_id])


def admit(
    connection: Connection, queue: str, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float
) -> list[bool]:
    """See `RawQueue.admit`.

    The parameter is marked first, by which the claim wins or loses; then its job is stored; then it is
    dropped. A crash in between leaves a lease, whose next claim sees whether there is a job.
    """
    now = connection.now()
    until = after(now, lease)
    mark = {"$set": {"is_admitted": True, "until": until}}
    end_visit = {"$unset": {"visit.token": "", "visit.job": ""}}
    held: dict[str, Doc] = {}
    jobs: list[Doc] = []
    for _, record in claims:
        if not sizes.is_small(record):
            sizes.check_new(record, to_doc(record, connection.arrangement))
    for one, record in claims:
        found = _change(connection, queue, one, mark, end_visit)
        if found is None or one.job_id in held:
            continue
        held[one.job_id] = found
        started = lifecycle.admitted(record, job_id=one.job_id, token=one.token, now=now, lease=lease)
        jobs.append({**to_doc(started, connection.arrangement), "v": 1})
    created = {str(job) for job in enqueueing.store(connection, jobs, now)[0]} if jobs else set()
    leased = [doc["_id"] for doc in held.values() if "until" in doc]
    if leased:
        connection.run("raw", lambda raw: raw.delete_many({"_id": {"$in": leased}, "is_admitted": True}))
    rest = [one.job_id for one, _ in claims if one.job_id not in created]
    stored = dict(zip(rest, Records(connection).read(rest)[1], strict=True))
    return [
        one.job_id in created
        or ((job := stored[one.job_id]) is not None and lifecycle.was_admitted_by(job.record, one.token))
        for one, _ in claims
    ]
