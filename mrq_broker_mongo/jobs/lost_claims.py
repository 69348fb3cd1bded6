"""Lost claims: started jobs whose lease has expired.

`lifecycle.after_lost_claim` says which jobs end; the others are claimed again, beside waiting jobs.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

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
from mrq_core.ids import new_nonce

MAX_SUSPECTS = 20
_RELIED_ON = timedelta(milliseconds=250)
"""For how long it is believed that no lease ends earlier than those that were seen."""


@dataclass(slots=True)
class LeaseEnds:
    """When a claim has to look for lost claims again, by what is wanted."""

    known: dict[tuple[Wanted, ...], tuple[datetime, datetime | None]] = field(default_factory=dict)

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


class LostClaims:
    """The suspects that one claim has found.

    Each job is written only if it is unchanged since it was read, because another worker may have claimed,
    renewed or settled it meanwhile.
    """

    def __init__(self, connection: Connection, request: ClaimRequest, ends: LeaseEnds, now: datetime) -> None:
        self._connection = connection
        self._request = request
        self._now = now
        self._suspects: list[Stored] = []
        self.ended: list[JobRecord] = []
        self.has_looked = False
        """Whether `next_lease` is known."""
        self.next_lease: datetime | None = None
        """The end of the first lease that is valid."""
        self._has_changed = False
        if ends.is_to_look(request.wanted, now):
            self._look(ends)

    def _look(self, ends: LeaseEnds) -> None:
        wanted, now = self._request.wanted, self._now
        leases = trees.first_leases(self._connection, wanted, MAX_SUSPECTS)
        valid = [doc["lease_until"] for doc in leases if doc["lease_until"] > now]
        # If more have ended than were asked for, the first that is still valid may not be among them.
        self.has_looked = len(leases) - len(valid) < MAX_SUSPECTS
        self.next_lease = valid[0] if valid else None
        ends.saw(wanted, now, leases[0]["lease_until"] if leases else None)
        over = [str(doc["_id"]) for doc in leases if doc["lease_until"] <= now][: 2 * MAX_SUSPECTS]
        if over:
            _, stored = Records(self._connection).read(over)
            self._end([one for one in stored if one is not None])

    def _end(self, stored: list[Stored]) -> None:
        """Ends the jobs that must not run again. The others may be claimed."""
        planned: list[Replacement[Stored]] = []
        for one in stored:
            if one.record.lease_until is None or one.record.lease_until > self._now:
                continue
            ended = lifecycle.after_lost_claim(one.record, self._request, self._now)
            if ended is None:
                self._suspects.append(one)
            else:
                planned.append(Replacement(one, ended))
        self._suspects.sort(key=self._order)
        answers = Records(self._connection).write(planned, self._now)
        self._has_changed = bool(planned)
        self.ended = [
            one.after
            for one, answer in zip(planned, answers, strict=True)
            if answer is WriteResult.DONE and one.after is not None
        ]

    def _order(self, one: Stored) -> tuple[int, datetime, str]:
        record = one.record
        covers = [is_covered(record.queue, (one.name,)) for one in self._request.wanted]
        index = covers.index(True) if True in covers else len(covers)
        return index, record.lease_until or self._now, record.id

    def take(self, most: int) -> list[JobRecord]:
        """Claims up to `most` suspects whose limits have room."""
        taken: list[JobRecord] = []
        while self._suspects and len(taken) < most:
            planned: list[Replacement[Stored]] = []
            while self._suspects and len(taken) + len(planned) < most:
                one = self._suspects.pop(0)
                if self._take_slots(one):
                    planned.append(Replacement(one, self._claimed(one.record)))
            self._has_changed = self._has_changed or bool(planned)
            answers = Records(self._connection).write(planned, self._now)
            for replacement, answer in zip(planned, answers, strict=True):
                if answer is WriteResult.DONE and replacement.after is not None:
                    taken.append(replacement.after)
                elif replacement.before.record.limit_keys:
                    job = replacement.before.doc["_id"]
                    keys = replacement.before.record.limit_keys
                    limits.give_back(self._connection, {key: [job] for key in keys})
        return taken

    def has_more(self) -> bool:
        """Whether further suspects could be claimed now. Suspects behind those that were read count if this
        call has changed some: otherwise the next call would read the same."""
        return (self._has_changed and not self.has_looked) or any(
            limits.has_room(
                self._connection,
                one.doc["_id"],
                one.record.limit_keys,
                self._request.limits,
                self._now,
            )
            for one in self._suspects
        )

    def _claimed(self, record: JobRecord) -> JobRecord:
        request = self._request
        return lifecycle.claimed(
            record, now=self._now, worker=request.worker, nonce=new_nonce(), lease=request.lease
        )

    def _take_slots(self, one: Stored) -> bool:
        keys, request = one.record.limit_keys, self._request
        until = after(self._now, request.lease)
        return (
            not keys
            or limits.take_slots(self._connection, one.doc["_id"], keys, request.limits, self._now, until)
            is None
        )
