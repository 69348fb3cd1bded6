"""Starting jobs that have limit keys: each is held for itself first, then its limits are asked.

While it is held, it is due a little later, so that no other claim charges its rates or takes its slots, too.
What dies meanwhile delays the job by as much.
"""

from __future__ import annotations

from datetime import datetime

from bson import ObjectId

from mrq_broker_mongo import limiting, parking
from mrq_broker_mongo.connection import Connection
from mrq_broker_mongo.documents import guard_of, of_doc, stored, update_of
from mrq_broker_mongo.location import Doc
from mrq_core.clock import after
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import ClaimRequest
from mrq_core.contract.record import JobRecord

HOLD_SECONDS = 10.0


class Holder:
    """Starts limited jobs for one claim."""

    def __init__(self, connection: Connection, request: ClaimRequest, now: datetime) -> None:
        self._connection = connection
        self._request = request
        self._now = now

    def start(self, doc: Doc, nonce: str) -> JobRecord | None:
        """The record of the started job; None where a limit has no room, and the job is parked or pushed
        back, and where somebody else was quicker."""
        arrangement = self._connection.arrangement
        due: datetime = doc["due_at"]
        if not self._change(doc, {"$set": {"due_at": after(self._now, HOLD_SECONDS)}}):
            return None
        doc["v"] += 1
        keys, limits, request = doc["limit_keys"], self._request.limits, self._request
        until = after(self._now, request.lease)
        full = limiting.take_slots(self._connection, doc["_id"], keys, limits, self._now, until)
        if full is not None:
            parking.park(self._connection, doc, full, due, self._now)
            return None
        if doc.get("turn") is None or doc["turn"] > self._now:  # it does not come at the turn it was given
            turn = limiting.turn_of(self._connection, keys, limits, self._now)
            if turn > self._now:
                self._change(doc, {"$set": {"due_at": turn, "turn": turn}})
                self._give_back(doc)
                return None
        record = lifecycle.claimed(
            of_doc({**doc, "due_at": due}, arrangement),
            now=self._now,
            worker=request.worker,
            nonce=nonce,
            lease=request.lease,
            alone=False,
        )
        update = update_of(stored(doc, arrangement), record, arrangement)
        if not self._change(doc, update) and not self._has(record):
            self._give_back(doc)
            return None
        return record

    def _has(self, record: JobRecord) -> bool:
        """Whether the job was started after all, by an attempt whose reply was lost."""
        started = {"_id": ObjectId(record.id), "token": record.token}
        return self._connection.run("jobs", lambda jobs: jobs.find_one(started, {"_id": 1})) is not None

    def _change(self, doc: Doc, update: Doc) -> bool:
        update = {**update, "$inc": {"v": 1}}
        result = self._connection.run("jobs", lambda jobs: jobs.update_one(guard_of(doc), update))
        return result.matched_count == 1

    def _give_back(self, doc: Doc) -> None:
        slots = {key: [doc["_id"]] for key in doc["limit_keys"]}
        for key, number in limiting.give_back(self._connection, slots).items():
            parking.let_go(self._connection, key, number)
