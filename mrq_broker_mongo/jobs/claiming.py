"""Claiming due jobs for a worker, in a bounded number of commands.

A claim of one job is one find_one_and_update. A claim of several jobs finds the due jobs, starts them by one
guarded update under the nonce of the claim, and reads them back only if another worker was quicker. A
process that dies in between leaves jobs under a lease, or no change.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument, UpdateMany, UpdateOne

from mrq_broker_mongo.jobs import damaged, parking, trees, uniques
from mrq_broker_mongo.jobs.limited import LimitedClaims
from mrq_broker_mongo.jobs.lost_claims import LeaseEnds, LostClaims
from mrq_broker_mongo.jobs.records import cell_of, guard_of, of_doc, stored, update_of
from mrq_broker_mongo.jobs.settling import HeldJobs
from mrq_broker_mongo.jobs.totals import Deltas
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.layout import DUE
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import after, to_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Claimed, ClaimRequest, Wanted
from mrq_core.contract.naming import is_covered, is_tree
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.encoding import is_plain
from mrq_core.drivers.limits import rules_of, task_key
from mrq_core.errors import BrokerError, JobDamaged
from mrq_core.ids import new_nonce

SWEEP_MS = 1000
"""How often a claim that is full searches for parked jobs with room nevertheless."""
ATTEMPTS = 20
"""How often a claim tries again after other workers were quicker."""


@dataclass(slots=True)
class Rotation:
    """Where the next claim of this process continues, in trees and among parked jobs, and when leases end.
    Its loss costs little fairness, and only for a short time."""

    trees: dict[str, str] = field(default_factory=dict)
    parked: str | None = None
    swept_ms: int = 0
    leases: LeaseEnds = field(default_factory=LeaseEnds)


def claim(connection: Connection, request: ClaimRequest, rotation: Rotation, held: HeldJobs) -> Claimed:
    """See `Broker.claim`."""
    now = connection.now()
    lost = LostClaims(connection, request, rotation.leases, now)
    lost.take(min(request.lost_limit, request.limit))
    taker = _Taker(connection, request, rotation, now, request.limit - len(lost.taken))
    if taker.limit > 0:
        taker.take()
        _sweep(connection, request, rotation, taker, now)
    taken = [*lost.taken, *taker.taken]
    due: datetime | None = now
    try:
        if len(taken) < request.limit or request.limit <= 0:
            due = _next_due(connection, request, lost, taken, now)
            opens = parking.first_opening(connection, taker.holder.examined, rules_of(request), now)
            due = min((time for time in (due, opens) if time is not None), default=None)
    except BrokerError:  # the claimed jobs must not be lost with the answer
        if not taken:
            raise
    for record in taken:
        held.add(record, is_plain=is_plain(record) and not record.lost_claims)
    return Claimed(
        records=tuple(taken),
        next_due=due,
        ended=tuple(lost.ended),
        now=now,
        is_denied=taker.has_stepped_over and not (taker.has_blocked or taken),
    )


def _next_due(
    connection: Connection,
    request: ClaimRequest,
    lost: LostClaims,
    taken: list[JobRecord],
    now: datetime,
) -> datetime | None:
    """When the next job may be due, or the next lease ends."""
    if len(lost.taken) < request.lost_limit and lost.has_more(request.limit):
        return now
    times = [trees.next_waiting(connection, request.wanted), lost.paused_until]
    if lost.has_looked:  # all leases are known, except those of this claim
        times += [lost.next_lease, *(record.lease_until for record in taken)]
    else:
        times.append(trees.next_lease(connection, request.wanted, now))
    return min((time for time in times if time is not None), default=None)


def _sweep(
    connection: Connection, request: ClaimRequest, rotation: Rotation, taker: _Taker, now: datetime
) -> None:
    """Lets parked jobs go that have room, if this claim took less than it could, and else once a second."""
    has_room = len(taker.taken) < taker.limit and taker.may_block > 0
    now_ms = to_ms(now)
    if not has_room and 0 <= now_ms - rotation.swept_ms < SWEEP_MS:
        return
    rotation.swept_ms = now_ms
    most = max(100, 4 * request.limit)
    gone, keys = parking.sweep(connection, rules_of(request), now, after=rotation.parked, most=most)
    rotation.parked = keys[-1] if len(keys) == parking.MAX_KEYS else None
    taker.holder.examined.update(keys)
    taker.holder.forget_parked()
    if gone and has_room:
        taker.take()


class _Taker:
    """Claims waiting jobs, queue by queue, in the order of the request."""

    def __init__(
        self, connection: Connection, request: ClaimRequest, rotation: Rotation, now: datetime, limit: int
    ) -> None:
        self._connection = connection
        self._request = request
        self._rotation = rotation
        self._now = now
        self._nonce = new_nonce()
        self._given: dict[int, int] = {}
        self.holder = LimitedClaims(connection, request, now)
        self.limit = limit
        """The number of jobs that it may claim."""
        self.taken: list[JobRecord] = []
        self.may_block = max(100, 4 * request.limit)
        """How many jobs it may still find blocked by limits."""
        self._may_step_over = self.may_block if request.chooses_tasks else 0
        self.has_blocked = False
        self.has_stepped_over = False

    def take(self) -> None:
        """Claims due jobs up to the limit and the quotas."""
        for number, wanted in enumerate(self._request.wanted):
            for _ in range(ATTEMPTS):
                room = self._room(number, wanted)
                if room <= 0 or self.may_block <= 0:
                    break
                goes_on = self._take_some(number, wanted, room)
                if not goes_on:
                    break

    def _room(self, number: int, wanted: Wanted) -> int:
        room = self.limit - len(self.taken)
        if wanted.quota is not None:
            room = min(room, wanted.quota - self._given.get(number, 0))
        return room

    def _take_some(self, number: int, wanted: Wanted, room: int) -> bool:
        """Claims some jobs of a queue or tree. True: another round may find more."""
        request = self._request
        sorts_out = bool(request.paused_tasks) or request.chooses_tasks
        if room == 1 and not (is_tree(wanted.name) or wanted.reverse or sorts_out):
            documents = self._take_first(wanted)
        else:
            most = room
            if sorts_out:
                most += self._may_step_over + (self.may_block if request.paused_tasks else 0)
            after_queue = self._rotation.trees.get(wanted.name, "")
            documents = trees.due(self._connection, wanted, after_queue, self._now, most)
        if not documents:
            return False
        last_queue = documents[-1]["queue"]
        has_parked = False
        if sorts_out:
            documents, has_parked = self._sorted_out(documents, room)
        started = self._start(documents) if documents else []
        if is_tree(wanted.name):
            self._rotation.trees[wanted.name] = documents[-1]["queue"] if documents else last_queue
        self._given[number] = self._given.get(number, 0) + len(started)
        self.taken += started
        is_part = len(started) < len(documents) or has_parked
        return is_part or (wanted.reverse and is_tree(wanted.name))

    def _sorted_out(self, documents: list[Doc], room: int) -> tuple[list[Doc], bool]:
        """Parks jobs of paused tasks, as many as the call may block. Returns the first jobs that the
        worker runs and no pause holds, up to the room, and whether jobs were parked."""
        kept: list[Doc] = []
        parked: list[tuple[Doc, str]] = []
        for doc in documents:
            path = doc.get("path", "")
            if self._request.leaves(path):
                self.has_stepped_over = True
            elif path in self._request.paused_tasks:
                if len(parked) < self.may_block:
                    parked.append((doc, task_key(path)))
            elif len(kept) < room:
                kept.append(doc)
        parking.park_all(self._connection, parked, self._now)
        self.may_block -= len(parked)
        self.has_blocked = self.has_blocked or bool(parked)
        return kept, bool(parked)

    def _take_first(self, wanted: Wanted) -> list[Doc]:
        """Starts the first due job if it is unchanged since its enqueue, and returns it in any case."""
        if is_covered(wanted.name, wanted.exclude):
            return []
        untouched = {"$and": [{"$eq": ["$v", 1]}, {"$eq": [{"$type": "$limit_keys"}, "missing"]}]}
        fields = self._fields()
        cleared = {"$unsetField": {"field": "due_at", "input": "$$ROOT"}}
        merged = {"$mergeObjects": [cleared, {"$literal": {**fields, "v": 2}}]}
        step = [{"$replaceWith": {"$cond": [untouched, merged, "$$ROOT"]}}]
        found = self._connection.run(
            "jobs",
            lambda jobs: jobs.find_one_and_update(
                trees.due_query(wanted.name, self._now),
                step,
                sort=trees.ORDER[1:],
                hint=DUE.name,
                return_document=ReturnDocument.AFTER,
            ),
            repeatable=False,
        )
        return [] if found is None else [found]

    def _fields(self) -> Doc:
        """The fields that a claim writes into a document that is unchanged since its enqueue."""
        until = after(self._now, self._request.lease)
        return {
            "status": "started",
            "started_at": self._now,
            "updated_at": self._now,
            "lease_until": until,
            "worker": self._request.worker,
            "token": lifecycle.make_token(1, self._nonce),
            "claims": 1,
        }

    # --- writing -----------------------------------------------------------------------------------

    def _start(self, documents: list[Doc]) -> list[JobRecord]:
        """Starts these jobs unless a limit blocks them or another worker was quicker. Keeps their order."""
        updates: list[UpdateMany | UpdateOne] = []
        # By the index of the document:
        records: dict[int, JobRecord] = {}
        planned: dict[int, JobRecord] = {}
        fresh: dict[int, JobRecord] = {}
        unread: list[Doc] = []
        token = lifecycle.make_token(1, self._nonce)
        form = self._connection.arrangement
        for index, doc in enumerate(documents):
            try:
                if doc.get("token") == token:
                    records[index] = of_doc(doc, form)  # by the claim of one
                elif "limit_keys" in doc:
                    stored(doc, form)
                    record = self.holder.start(doc, self._nonce) if self.may_block > 0 else None
                    if record is None:
                        self.has_blocked = True
                        self.may_block -= 1
                    else:
                        records[index] = record
                elif doc.get("v") == 1:
                    fresh[index] = of_doc(doc, form)
                else:
                    before = stored(doc, form)
                    planned[index] = record = self._claimed(before.record)
                    update = update_of(before, record, form)
                    updates.append(UpdateOne(guard_of(doc), {**update, "$inc": {"v": 1}}))
            except JobDamaged:
                unread.append(doc)
        error = damaged.set_aside_met(self._connection, unread, token) if unread else None
        if error is not None and not (self.taken or records or fresh or planned):
            raise error
        if fresh:
            updates.append(self._update_of_fresh([documents[index] for index in fresh]))
        if updates:
            indexes = [*fresh, *planned]
            is_mine = self._write(updates, [documents[index]["_id"] for index in indexes])
            for index, mine in zip(indexes, is_mine, strict=True):
                if mine:
                    records[index] = planned.get(index) or self._claimed(fresh[index])
        deltas = Deltas()
        for index in records:
            doc = documents[index]
            before_cell = "queued" if doc.get("token") == token else cell_of(doc)
            deltas.add(doc["queue"], doc["path"], before_cell, "started")
            if "exception_type" in doc and records[index].exception_type is None:
                deltas.add_error(doc["exception_type"], doc.get("error_group"), before_cell, -1)
        deltas.write(self._connection)
        self._release_keys([documents[index] for index in records])
        return [records[index] for index in sorted(records)]

    def _update_of_fresh(self, documents: list[Doc]) -> UpdateMany:
        guard: Doc = {
            "_id": {"$in": [doc["_id"] for doc in documents]},
            "v": 1,
            "due_at": {"$lte": self._now},
            "queued_at": {"$lte": max(doc["queued_at"] for doc in documents)},
        }
        return UpdateMany(guard, {"$set": self._fields(), "$unset": {"due_at": ""}, "$inc": {"v": 1}})

    def _write(self, updates: list[UpdateMany | UpdateOne], ids: list[Any]) -> list[bool]:
        """Whether this claim now holds each of the jobs."""
        result = self._connection.run(
            "jobs", lambda jobs: jobs.bulk_write(updates, ordered=False), repeatable=False
        )
        if result.matched_count == len(ids):
            return [True] * len(ids)
        wanted = {"_id": {"$in": ids}, "status": "started", "worker": self._request.worker}
        found = self._connection.run("jobs", lambda jobs: list(jobs.find(wanted, {"token": 1})))
        mine = {doc["_id"] for doc in found if doc["token"].partition(".")[2] == self._nonce}
        return [job in mine for job in ids]

    def _claimed(self, record: JobRecord) -> JobRecord:
        request = self._request
        return lifecycle.claimed(
            record, now=self._now, worker=request.worker, nonce=self._nonce, lease=request.lease
        )

    def _release_keys(self, documents: list[Doc]) -> None:
        """Keys that are held while a job is queued are free now."""
        keys = [(doc["unique_key"], doc["_id"]) for doc in documents if doc.get("unique_until") == "queued"]
        uniques.release(self._connection, keys)
