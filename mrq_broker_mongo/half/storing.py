"""The records of jobs whose queue is elsewhere: stored, read, written, and ended.

Every change of a record is one update of its document, which the server makes only if the document still has
the version that was read, or the token of the claim. Each update carries a random number of its call, so
that a repetition after a lost reply finds the writes of the first attempt.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

from mrq_broker_mongo.jobs import changing, enqueueing, removing, renewing, settling, sizes
from mrq_broker_mongo.jobs.records import Stored, object_ids, stored, to_doc
from mrq_broker_mongo.jobs.settling import HeldJobs
from mrq_broker_mongo.jobs.totals import Deltas
from mrq_broker_mongo.server import layout
from mrq_broker_mongo.server.arrangement import STORE
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_broker_mongo.shared import signals
from mrq_core.contract.messages import Enqueued, NewJob, Note, Settlement
from mrq_core.contract.pair import Replacement, WriteResult


def insert(connection: Connection, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """See `JobStore.insert`. The jobs first, then the totals."""
    if not jobs:
        return []
    layout.ensure(connection)
    documents = {job.record.id: _document_of(job) for job in reversed(jobs)}
    created, holders = enqueueing.store(connection, list(documents.values())[::-1], connection.now())
    answers = []
    for job in jobs:
        job_id = documents[job.record.id]["_id"]
        answers.append(Enqueued(id=str(holders.get(job_id, job_id)), created=job_id in created))
        created.discard(job_id)
    return answers


def _document_of(job: NewJob) -> Doc:
    doc = to_doc(job.record, STORE)
    doc["v"] = 1
    if job.unique is not None:
        doc.update(unique_key=job.unique.key, unique_until=job.unique.until)
        if job.unique.period is not None:
            doc["unique_period"] = job.unique.period
    sizes.check_new(job.record, doc)
    return doc


def read(connection: Connection, ids: Sequence[str]) -> list[Stored | None]:
    """See `JobStore.read`. A job that is being deleted is gone already."""
    found = changing.read(connection, ids)
    there = {job_id: one for job_id, one in found.items() if "removal" not in one.doc}
    return [there.get(job_id) for job_id in ids]


def write(
    connection: Connection, replacements: Sequence[Replacement[Stored]], now: datetime
) -> list[WriteResult]:
    """See `JobStore.write`. The jobs first, then the totals, then the signals to workers."""
    if not replacements:
        return []
    number = secrets.randbits(62)
    updates = changing.updates_to(connection, replacements, number, _document_of)
    removals = [one.before.doc for one in replacements if one.after is None]
    gone = removing.remove(connection, removals, now)
    written = changing.written(connection, replacements, updates, number)
    _follow(connection, [replacements[index] for index in written])
    done = {*written, *(index for index, one in enumerate(replacements) if one.before.doc["_id"] in gone)}
    return [WriteResult.DONE if index in done else WriteResult.CHANGED for index in range(len(replacements))]


def _follow(connection: Connection, done: Sequence[Replacement[Stored]]) -> None:
    deltas = Deltas()
    for one in done:
        if one.after is not None:
            deltas.add_change(one.before, one.after)
    deltas.write(connection)
    for one in done:
        if one.ask_to_stop and one.after is not None and one.after.worker is not None:
            signals.send(connection, one.after.worker, one.before.doc["_id"])


def succeed(
    connection: Connection, settlements: Sequence[Settlement], now: datetime, held: HeldJobs
) -> list[bool]:
    """See `JobStore.succeed`. One bulk write, then the totals."""
    simple, _ = settling.sort(connection, settlements, held)
    written = settling.write_successes(connection, settlements, simple, now) if simple else set()
    for settlement in settlements:
        held.drop(settlement.id, settlement.token)
    return [index in written for index in range(len(settlements))]


def annotate(connection: Connection, notes: Sequence[Note], now: datetime) -> list[bool]:
    """See `JobStore.annotate`. The version stays, because progress does not change the meaning of an
    entry."""
    return renewing.change_running(
        connection, notes, lambda note: {"$set": {"progress": note.progress, "updated_at": now}}
    )


# --- follow-ups -------------------------------------------------------------------------------------


def unfinished(connection: Connection, limit: int, before: datetime | None) -> list[tuple[str, list[NewJob]]]:
    """See `JobStore.unfinished`."""
    if limit <= 0:
        return []
    wanted: Doc = {"followups": {"$exists": True}}
    if before is not None:
        wanted["updated_at"] = {"$lt": before}
    found = connection.run("jobs", lambda jobs: list(jobs.find(wanted, {"followups": 1}).limit(limit)))
    return [(str(doc["_id"]), [_new_job_of(one) for one in doc["followups"]]) for doc in found]


def _new_job_of(doc: Doc) -> NewJob:
    one = stored(doc, STORE)
    return NewJob(record=one.record, unique=one.unique)


def finish(connection: Connection, parent: str, followups: Sequence[str]) -> None:
    """See `JobStore.finish`."""
    wanted = {"_id": {"$in": object_ids([parent])}, "followups._id": {"$in": object_ids(followups)}}
    connection.run("jobs", lambda jobs: jobs.update_one(wanted, {"$unset": {"followups": ""}}))
