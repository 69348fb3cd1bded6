"""Claims of jobs with limit keys: each job is held first, and then its limits are checked.

A held job is due a little later, so that no other claim charges its rates or takes its slots. A process
that dies meanwhile delays the job by HOLD_SECONDS.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from bson import ObjectId

from mrq_broker_mongo.jobs import limits, parking, rates
from mrq_broker_mongo.jobs.records import guard_of, of_doc, stored, update_of
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import after
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import ClaimRequest
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.limits import rules_of

HOLD_SECONDS = 10.0


class LimitedClaims:
    """Starts jobs with limit keys, for one claim."""

    def __init__(self, connection: Connection, request: ClaimRequest, now: datetime) -> None:
        self._connection = connection
        self._request = request
        self._now = now
        self._first_parked: dict[str, parking.Order | None] = {}
        self.examined: set[str] = set()
        """Keys with a rate that may have parked jobs."""

    def start(self, doc: Doc, nonce: str) -> JobRecord | None:
        """The record of the started job. None: a limit has no room, and the job is parked or pushed back; or
        another worker was quicker."""
        arrangement = self._connection.arrangement
        due: datetime = doc["due_at"]
        # A job that comes at the time that its rates allowed is not charged again, unless it comes too late.
        is_charged = doc.get("allowed_at") is not None and doc["allowed_at"] <= self._now
        key = None if is_charged else self._comes_after_parked(doc)
        if key is not None:
            parking.park(self._connection, doc, key, due, self._now)
            return None
        if not self._change(doc, {"$set": {"due_at": after(self._now, HOLD_SECONDS)}}):
            return None
        doc["v"] += 1
        keys, rules, request = doc["limit_keys"], rules_of(self._request), self._request
        record = lifecycle.claimed(
            of_doc({**doc, "due_at": due}, arrangement),
            now=self._now,
            worker=request.worker,
            nonce=nonce,
            lease=request.lease,
        )
        claim, before = limits.Claim(doc["_id"], record.token), limits.Claim(doc["_id"], None)
        until = after(self._now, request.lease)
        full = limits.take_slots(self._connection, claim, keys, rules, self._now, until, instead_of=before)
        if full is not None:
            parking.park(self._connection, doc, full, due, self._now)
            return None
        if not (is_charged and rates.may_start(self._connection, keys, rules, self._now)):
            allowed_at = rates.allowed_at(self._connection, keys, rules, self._now, is_late=is_charged)
            if isinstance(allowed_at, str):
                parking.park(self._connection, doc, allowed_at, due, self._now)
                self._first_parked.pop(allowed_at, None)
                self.examined.add(allowed_at)
                self._give_back(claim, keys)
                return None
            if allowed_at > self._now:
                self._change(doc, {"$set": {"due_at": allowed_at, "allowed_at": allowed_at}})
                self._give_back(claim, keys)
                return None
        update = update_of(stored(doc, arrangement), record, arrangement)
        if not self._change(doc, update) and not self._has(record):
            self._give_back(claim, keys)
            return None
        return record

    def forget_parked(self) -> None:
        """Jobs were let go since the last call of `start`."""
        self._first_parked.clear()

    def _comes_after_parked(self, doc: Doc) -> str | None:
        """A key with a rate whose parked jobs come before this job."""
        for key, _ in rates.rates_of(doc["limit_keys"], rules_of(self._request)):
            if key not in self._first_parked:
                self._first_parked[key] = parking.first_under(self._connection, key)
            first = self._first_parked[key]
            if first is not None and first < (doc["rank"], doc["due_at"], doc["_id"]):
                self.examined.add(key)
                return key
        return None

    def _has(self, record: JobRecord) -> bool:
        """Whether an attempt whose reply was lost has started the job."""
        started = {"_id": ObjectId(record.id), "token": record.token}
        return self._connection.run("jobs", lambda jobs: jobs.find_one(started, {"_id": 1})) is not None

    def _change(self, doc: Doc, update: Doc) -> bool:
        update = {**update, "$inc": {"v": 1}}
        result = self._connection.run("jobs", lambda jobs: jobs.update_one(guard_of(doc), update))
        return result.matched_count == 1

    def _give_back(self, claim: limits.Claim, keys: Sequence[str]) -> None:
        slots = {key: [claim] for key in keys}
        for key, number in limits.give_back(self._connection, slots, self._now).items():
            parking.let_go(self._connection, key, number)
