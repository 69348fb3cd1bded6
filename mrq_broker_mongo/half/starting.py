"""Starting jobs that were claimed in a queue elsewhere, each under the token of its entry.

The jobs are found by their ids, started by guarded updates, one update for all jobs that are unchanged since
their enqueue, and read back only if another process was quicker. No other process knows the tokens, so the
updates may be repeated after a lost reply, and a job with the token of its entry was started by this call.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from bson import ObjectId
from pymongo import UpdateMany, UpdateOne

from mrq_broker_mongo.jobs import changing, damaged
from mrq_broker_mongo.jobs.records import WAITING_CELLS, cell_of, guard_of, of_doc, stored, update_of
from mrq_broker_mongo.jobs.settling import HeldJobs
from mrq_broker_mongo.jobs.totals import Deltas
from mrq_broker_mongo.server.arrangement import STORE
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import after
from mrq_core.contract import lifecycle
from mrq_core.contract.pair import Entry
from mrq_core.contract.record import JobRecord
from mrq_core.errors import JobDamaged


@dataclass(frozen=True, slots=True)
class Start:
    """Under which claim jobs are started. `lease`: seconds."""

    worker: str
    lease: float
    now: datetime

    def claimed(self, record: JobRecord, token: str) -> JobRecord:
        """The record under the claim."""
        nonce = token.partition(".")[2]
        return lifecycle.claimed(record, now=self.now, worker=self.worker, nonce=nonce, lease=self.lease)

    def update_of_fresh(self, documents: Sequence[Doc], token: str) -> UpdateMany:
        """The same for documents that nothing has happened to yet. Of the indexes it changes one."""
        guard: Doc = {
            "_id": {"$in": [doc["_id"] for doc in documents]},
            "v": 1,
            "status": "queued",
            "queued_at": {"$lte": max(doc["queued_at"] for doc in documents)},
        }
        fields = {
            "status": "started",
            "started_at": self.now,
            "updated_at": self.now,
            STORE.name("lease_until"): after(self.now, self.lease),
            "worker": self.worker,
            "token": token,
            "claims": 1,
        }
        update = {"$set": fields, "$unset": {STORE.name("due_at"): ""}, "$inc": {"v": 1}}
        return UpdateMany(guard, update, hint="_id_")


def start(
    connection: Connection, entries: Sequence[Entry], how: Start, held: HeldJobs
) -> list[JobRecord | None]:
    """See `JobStore.start`."""
    if not entries:
        return []
    documents = changing.documents_of(connection, [entry.id for entry in entries])
    records: dict[str, JobRecord] = {}
    fresh: dict[str, list[Doc]] = {}
    updates: list[UpdateMany | UpdateOne] = []
    tokens: dict[str, str] = {}
    unread: list[Doc] = []
    for entry in entries:
        doc, token = documents.get(entry.id), entry.token
        if doc is None or token is None or entry.id in tokens:
            continue
        try:
            before = stored(doc, STORE)
        except JobDamaged:
            unread.append(doc)
            continue
        if not _may_start(doc, entry, token):
            continue
        tokens[entry.id] = token
        records[entry.id] = record = how.claimed(before.record, token)
        if _is_fresh(doc):
            fresh.setdefault(token, []).append(doc)
        else:
            update = update_of(before, record, STORE)
            updates.append(UpdateOne(guard_of(doc), {**update, "$inc": {"v": 1}}))
    error = damaged.set_aside_met(connection, unread) if unread else None
    if error is not None and not records:
        raise error
    updates += [how.update_of_fresh(some, token) for token, some in fresh.items()]
    if updates and not _write(connection, updates, len(records)):
        records = _read_back(connection, tokens)
    _follow(connection, documents, records, held)
    return [records.pop(entry.id, None) for entry in entries]  # a job is started for one entry


def _may_start(doc: Doc, entry: Entry, token: str) -> bool:
    nonce = token.partition(".")[2]
    return (
        doc["v"] == entry.version
        and doc["queue"] == entry.queue
        and doc["status"] in WAITING_CELLS
        and doc.get("ended_at") is None
        and "removal" not in doc
        and token == lifecycle.make_token(doc.get("claims", 0) + 1, nonce)
    )


def _is_fresh(doc: Doc) -> bool:
    """Whether it is as it was inserted, and was never claimed."""
    return doc["v"] == 1 and doc["status"] == "queued" and "claims" not in doc and "started_at" not in doc


def _write(connection: Connection, updates: list[UpdateMany | UpdateOne], number: int) -> bool:
    """Whether as many jobs were changed as there are."""
    result = connection.run("jobs", lambda jobs: jobs.bulk_write(updates, ordered=False))
    return result.matched_count == number


def _read_back(connection: Connection, tokens: dict[str, str]) -> dict[str, JobRecord]:
    """The jobs that are running under these tokens."""
    wanted = {"_id": {"$in": [ObjectId(job_id) for job_id in tokens]}, "status": "started"}
    found = connection.run("jobs", lambda jobs: list(jobs.find(wanted)))
    mine = [doc for doc in found if doc.get("token") == tokens[str(doc["_id"])]]
    return {str(doc["_id"]): of_doc(doc, STORE) for doc in mine}


def _follow(
    connection: Connection, documents: dict[str, Doc], records: dict[str, JobRecord], held: HeldJobs
) -> None:
    deltas = Deltas()
    for job_id, record in records.items():
        doc = documents[job_id]
        deltas.add(doc["queue"], doc["path"], cell_of(doc), "started")
        if "exception_type" in doc and record.exception_type is None:
            deltas.add_error(doc["exception_type"], doc.get("error_group"), cell_of(doc), -1)
        held.add(record, is_plain=not (record.cancel_requested or record.lost_claims))
    deltas.write(connection)
