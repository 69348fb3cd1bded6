"""Lost claims: started jobs whose lease has expired.

`lifecycle.after_lost_claim` says which jobs end; the others are claimed again, beside waiting jobs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bson import ObjectId

from mrq_broker_mongo.jobs import limits, trees
from mrq_broker_mongo.jobs.changing import Records
from mrq_broker_mongo.jobs.records import Stored
from mrq_broker_mongo.server.connection import Connection
from mrq_core.clock import after
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import ClaimRequest, Wanted
from mrq_core.contract.naming import is_covered
from mrq_core.contract.pair import Replacement, WriteResult
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.limits import rules_of
from mrq_core.ids import new_nonce

MAX_SUSPECTS = 20
"""The number of lost claims that one call reads for each question about leases."""
_RELIED_ON = timedelta(milliseconds=250)
"""For how long it is believed that no lease ends earlier than those that were seen."""
_PAUSE_SECONDS = 1.0
"""How long a process leaves out a suspect whose limits have no room."""
_MOST_PAUSED = 500


@dataclass(slots=True)
class LeaseEnds:
    """When a claim has to look for lost claims again, by what is wanted, and the suspects it leaves out."""

    known: dict[tuple[Wanted, ...], tuple[datetime, datetime | None]] = field(default_factory=dict)
    paused: dict[ObjectId, datetime] = field(default_factory=dict)
    """Suspects whose limits had no room, and until when they are left out."""

    def is_to_look(self, wanted: tuple[Wanted, ...], now: datetime) -> bool:
        """Whether a lease may have ended that this process does not know of."""
        seen = self.known.get(wanted)
        if seen is None:
            return True
        at, first = seen
        return not at <= now < at + _RELIED_ON or (first is not None and first <= now)

    def saw(self, wanted: tuple[Wanted, ...], now: datetime, first: datetime | None) -> None:
        """The first of the leases ends then."""
        if len(self.known) > 100:
            self.known.clear()
        self.known[wanted] = (now, first)

    def left_out(self, now: datetime) -> list[ObjectId]:
        """The suspects to leave out now. Forgets the pauses that are over."""
        if self.paused:
            latest = after(now, _PAUSE_SECONDS)  # a later end is of a clock that was set back
            self.paused = {job: until for job, until in self.paused.items() if now < until <= latest}
        return list(self.paused)

    def pause(self, job: ObjectId, now: datetime) -> None:
        """Leaves out a suspect for a while, so that it does not hide the suspects behind it."""
        if len(self.paused) >= _MOST_PAUSED:
            self.paused.clear()
        self.paused[job] = after(now, _PAUSE_SECONDS)

    def next_end(self) -> datetime | None:
        """The end of the first pause."""
        return min(self.paused.values(), default=None)


class LostClaims:
    """The suspects that one claim has found.

    Each job is written only if it is unchanged since it was read, because another worker may have claimed,
    renewed or settled it meanwhile.
    """

    def __init__(self, connection: Connection, request: ClaimRequest, ends: LeaseEnds, now: datetime) -> None:
        self._connection = connection
        self._request = request
        self._ends = ends
        self._now = now
        self._until = after(now, request.lease)
        self._suspects: list[Stored] = []
        self._is_part = False
        """Whether there are more lost claims than this call has read."""
        self.taken: list[JobRecord] = []
        self.ended: list[JobRecord] = []
        self.has_looked = False
        """Whether `next_lease` is known."""
        self.next_lease: datetime | None = None
        """The end of the first lease that is valid."""
        if ends.is_to_look(request.wanted, now):
            self._look()

    @property
    def paused_until(self) -> datetime | None:
        """When the first suspect is examined again whose limits had no room."""
        return self._ends.next_end()

    def _look(self) -> None:
        wanted, now = self._request.wanted, self._now
        left_out = self._ends.left_out(now)
        leases = trees.first_leases(self._connection, wanted, MAX_SUSPECTS, left_out)
        over = [str(doc["_id"]) for doc in leases if doc["lease_until"] <= now]
        # If more have ended than were asked for, the first that is still valid may not be among them.
        self._is_part = len(over) >= MAX_SUSPECTS
        self.has_looked = not self._is_part
        self.next_lease = leases[len(over)]["lease_until"] if len(leases) > len(over) else None
        times = [leases[0]["lease_until"] if leases else None, self._ends.next_end()]
        self._ends.saw(wanted, now, min((time for time in times if time is not None), default=None))
        if over:
            _, stored = Records(self._connection).read(over[: 2 * MAX_SUSPECTS])
            self._end([one for one in stored if one is not None])

    def _end(self, stored: list[Stored]) -> None:
        """Ends the jobs that must not run again. The others may be claimed."""
        planned: list[Replacement[Stored]] = []
        for one in stored:
            if one.record.lease_until is None or one.record.lease_until > self._now:
                continue
            ended = lifecycle.after_lost_claim(one.record, self._request, self._now)
            if ended is None:
                if not self._request.leaves(one.record.path):
                    self._suspects.append(one)
            else:
                planned.append(Replacement(one, ended))
        self._suspects.sort(key=self._order)
        answers = Records(self._connection).write(planned, self._now)
        self.ended = [
            one.after
            for one, answer in zip(planned, answers, strict=True)
            if answer is WriteResult.DONE and one.after is not None
        ]

    def _order(self, one: Stored) -> tuple[int, datetime, str]:
        """By the first of the wanted queues that covers the job, and by the end of the lease."""
        record, wanted = one.record, self._request.wanted
        indexes = (index for index, some in enumerate(wanted) if is_covered(record.queue, (some.name,)))
        return next(indexes, len(wanted)), record.lease_until or self._now, record.id

    def take(self, most: int) -> None:
        """Claims suspects whose limits have room, until `taken` has `most` jobs."""
        while self._suspects and len(self.taken) < most:
            planned: list[Replacement[Stored]] = []
            while self._suspects and len(self.taken) + len(planned) < most:
                one = self._suspects.pop(0)
                claimed = self._claimed(one.record)
                if self._take_slots(one, limits.Claim(one.doc["_id"], claimed.token)):
                    planned.append(Replacement(one, claimed))
                else:
                    self._ends.pause(one.doc["_id"], self._now)
            answers = Records(self._connection).write(planned, self._now)
            for replacement, answer in zip(planned, answers, strict=True):
                if answer is WriteResult.DONE and replacement.after is not None:
                    self.taken.append(replacement.after)
                elif replacement.after is not None:
                    claim = limits.Claim(replacement.before.doc["_id"], replacement.after.token)
                    slots = {key: [claim] for key in replacement.after.limit_keys}
                    limits.give_back(self._connection, slots, self._now)

    def has_more(self, limit: int) -> bool:
        """Whether further suspects may be claimed now. `limit`: of the call; without room it examined
        none."""
        if limit > 0:
            return self._is_part
        rules = rules_of(self._request)
        return any(
            one.record.path not in self._request.paused_tasks
            and limits.has_room(self._connection, one.doc["_id"], one.record.limit_keys, rules, self._now)
            for one in self._suspects
        )

    def _claimed(self, record: JobRecord) -> JobRecord:
        request = self._request
        return lifecycle.claimed(
            record, now=self._now, worker=request.worker, nonce=new_nonce(), lease=request.lease
        )

    def _take_slots(self, one: Stored, claim: limits.Claim) -> bool:
        keys, rules = one.record.limit_keys, rules_of(self._request)
        if one.record.path in self._request.paused_tasks:
            return False
        if not keys:
            return True
        lost = limits.Claim(claim.job, one.record.token)
        full = limits.take_slots(
            self._connection, claim, keys, rules, self._now, self._until, instead_of=lost
        )
        return full is None
