"""Taking due jobs for a worker, in a bounded number of commands.

One free place: one find_one_and_update. Several: the due jobs are found, started by one guarded update under
the nonce of this claim, and read back only if somebody else was quicker with some. A process that dies in
between leaves jobs under a lease, or nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument, UpdateMany, UpdateOne

from mrq_broker_mongo import lines, parking, suspects, uniques
from mrq_broker_mongo.connection import Connection
from mrq_broker_mongo.documents import cell_of, guard_of, of_doc, stored, update_of
from mrq_broker_mongo.holding import Holder
from mrq_broker_mongo.layout import DUE
from mrq_broker_mongo.location import Doc
from mrq_broker_mongo.settling import Held
from mrq_broker_mongo.suspects import LeaseEnds
from mrq_broker_mongo.totals import Deltas
from mrq_core.clock import after, to_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Claimed, ClaimRequest, Wanted
from mrq_core.contract.naming import is_covered, is_tree
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.encoding import is_plain
from mrq_core.ids import new_nonce

SWEEP_MS = 1000
"""How often a claim that took all that it could looks for parked jobs with room nevertheless."""
ATTEMPTS = 20
"""How often a claim looks again because others were quicker."""


@dataclass(slots=True)
class Turns:
    """Where the next claim goes on, in trees and among parked jobs, and when leases end. A process's own:
    losing it costs no fairness for long."""

    trees: dict[str, str] = field(default_factory=dict)
    parked: str | None = None
    swept_ms: int = 0
    leases: LeaseEnds = field(default_factory=LeaseEnds)


def claim(connection: Connection, request: ClaimRequest, turns: Turns, held: Held) -> Claimed:
    """See `Broker.claim`."""
    now = connection.now()
    found = suspects.see_to(connection, request, turns.leases, now)
    taker = _Taker(connection, request, turns, now)
    if not found.taken and request.limit > 0:
        taker.take()
        _sweep(connection, request, turns, taker, now)
    taken = [*found.taken, *taker.taken]
    for record in taken:
        held.add(record, is_plain=is_plain(record))
    due: datetime | None = now
    if len(taken) < request.limit or request.limit <= 0:
        due = _next_due(connection, request, found, taken, now)
        if found.left and request.idle:
            due = now
    return Claimed(
        records=tuple(taken),
        next_due=due,
        suspects_due=bool(found.left) and not request.idle,
        ended=tuple(found.ended),
        now=now,
    )


def _next_due(
    connection: Connection,
    request: ClaimRequest,
    found: suspects.Found,
    taken: list[JobRecord],
    now: datetime,
) -> datetime | None:
    """When the next job may be due, or the next lease ends."""
    times = [lines.next_waiting(connection, request.wanted)]
    if found.has_looked:  # by which all leases are known but for those of this claim
        times += [found.next_lease, *(record.lease_until for record in taken)]
    else:
        times.append(lines.next_lease(connection, request.wanted, now))
    return min((time for time in times if time is not None), default=None)


def _sweep(connection: Connection, request: ClaimRequest, turns: Turns, taker: _Taker, now: datetime) -> None:
    """Lets parked jobs go that have room, if this claim took less than it could, and else once a second."""
    has_room = len(taker.taken) < request.limit and taker.may_block > 0
    now_ms = to_ms(now)
    if not has_room and 0 <= now_ms - turns.swept_ms < SWEEP_MS:
        return
    turns.swept_ms = now_ms
    most = max(100, 4 * request.limit)
    gone, turns.parked = parking.sweep(connection, request.limits, now, after=turns.parked, most=most)
    if gone and has_room:
        taker.take()


class _Taker:
    """Takes waiting jobs, queue by queue, in the order in which they are wanted."""

    def __init__(self, connection: Connection, request: ClaimRequest, turns: Turns, now: datetime) -> None:
        self._connection = connection
        self._request = request
        self._turns = turns
        self._now = now
        self._nonce = new_nonce()
        self._given: dict[int, int] = {}
        self._holder = Holder(connection, request, now)
        self.taken: list[JobRecord] = []
        self.may_block = max(100, 4 * request.limit)
        """How many jobs it may still find blocked by limits."""

    def take(self) -> None:
        """Takes what there is, up to the limit and the quotas."""
        for number, wanted in enumerate(self._request.wanted):
            for _ in range(ATTEMPTS):
                room = self._room(number, wanted)
                if room <= 0 or self.may_block <= 0:
                    break
                goes_on = self._take_some(number, wanted, room)
                if not goes_on:
                    break

    def _room(self, number: int, wanted: Wanted) -> int:
        room = self._request.limit - len(self.taken)
        if wanted.quota is not None:
            room = min(room, wanted.quota - self._given.get(number, 0))
        return room

    def _take_some(self, number: int, wanted: Wanted, room: int) -> bool:
        """One look at a queue or tree; answers whether another one may find more."""
        if room == 1 and not is_tree(wanted.name) and not wanted.reverse:
            documents = self._take_first(wanted)
        else:
            turn = self._turns.trees.get(wanted.name, "")
            documents = lines.due(self._connection, wanted, turn, self._now, room)
        if not documents:
            return False
        started = self._start(documents)
        if is_tree(wanted.name):
            self._turns.trees[wanted.name] = documents[-1]["queue"]
        self._given[number] = self._given.get(number, 0) + len(started)
        self.taken += started
        return len(started) < len(documents) or (wanted.reverse and is_tree(wanted.name))

    def _take_first(self, wanted: Wanted) -> list[Doc]:
        """Starts the first due job if nothing has happened to it yet, and answers with it in any case."""
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
                lines.due_query(wanted.name, self._now),
                step,
                sort=lines.ORDER[1:],
                hint=DUE.name,
                return_document=ReturnDocument.AFTER,
            ),
            repeatable=False,
        )
        return [] if found is None else [found]

    def _fields(self) -> Doc:
        """What a claim writes into a document that nothing has happened to yet."""
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
        """Starts these jobs, as far as they may and nobody else was quicker; in their order."""
        updates: list[UpdateMany | UpdateOne] = []
        # By the place of the document:
        records: dict[int, JobRecord] = {}
        planned: dict[int, JobRecord] = {}
        fresh: list[int] = []
        token = lifecycle.make_token(1, self._nonce)
        form = self._connection.arrangement
        for place, doc in enumerate(documents):
            if doc.get("token") == token:
                records[place] = of_doc(doc, form)  # by the claim of one
            elif "limit_keys" in doc:
                record = self._holder.start(doc, self._nonce) if self.may_block > 0 else None
                if record is None:
                    self.may_block -= 1
                else:
                    records[place] = record
            elif doc["v"] == 1:
                fresh.append(place)
            else:
                before = stored(doc, form)
                planned[place] = record = self._claimed(before.record)
                update = update_of(before, record, form)
                updates.append(UpdateOne(guard_of(doc), {**update, "$inc": {"v": 1}}))
        if fresh:
            updates.append(self._update_of_fresh([documents[place] for place in fresh]))
        if updates:
            places = [*fresh, *planned]
            is_mine = self._write(updates, [documents[place]["_id"] for place in places])
            for place, mine in zip(places, is_mine, strict=True):
                if mine:
                    records[place] = planned.get(place) or self._claimed(of_doc(documents[place], form))
        deltas = Deltas()
        for place in records:
            doc = documents[place]
            before_cell = "queued" if doc.get("token") == token else cell_of(doc)
            deltas.add(doc["queue"], doc["path"], before_cell, "started")
        deltas.write(self._connection)
        self._release_keys([documents[place] for place in records])
        return [records[place] for place in sorted(records)]

    def _update_of_fresh(self, documents: list[Doc]) -> UpdateMany:
        guard: Doc = {
            "_id": {"$in": [doc["_id"] for doc in documents]},
            "v": 1,
            "due_at": {"$lte": self._now},
            "queued_at": {"$lte": max(doc["queued_at"] for doc in documents)},
        }
        return UpdateMany(guard, {"$set": self._fields(), "$unset": {"due_at": ""}, "$inc": {"v": 1}})

    def _write(self, updates: list[UpdateMany | UpdateOne], ids: list[Any]) -> list[bool]:
        """Answers for each of the jobs whether this claim has it now."""
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
            record, now=self._now, worker=request.worker, nonce=self._nonce, lease=request.lease, alone=False
        )

    def _release_keys(self, documents: list[Doc]) -> None:
        """Keys that are held while a job is queued are free now."""
        keys = [(doc["unique_key"], doc["_id"]) for doc in documents if doc.get("unique_until") == "queued"]
        uniques.release(self._connection, keys)
