"""Jobs whose lease ran out: ended where they must not run again, and otherwise given to an idle worker,
alone."""

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


@dataclass(slots=True)
class Found:
    """What was done about suspects."""

    taken: list[JobRecord] = field(default_factory=list)
    ended: list[JobRecord] = field(default_factory=list)
    left: int = 0
    """How many could run, and do not yet."""
    has_looked: bool = False
    """Whether `next_lease` is known."""
    next_lease: datetime | None = None
    """When the first of the leases that are still valid ends."""


def see_to(connection: Connection, request: ClaimRequest, ends: LeaseEnds, now: datetime) -> Found:
    """Ends the jobs that may not run again, and takes one of the others if the worker is idle.

    Each is written only if it is still what was read: another worker may have been quicker, and the job
    may have been renewed or settled in the last moment.
    """
    found = Found()
    if not ends.is_to_look(request.wanted, now):
        return found
    leases = trees.first_leases(connection, request.wanted, MAX_SUSPECTS)
    valid = [doc["lease_until"] for doc in leases if doc["lease_until"] > now]
    # If more have ended than were asked for, the first that is still valid may not be among them.
    found.has_looked = len(leases) - len(valid) < MAX_SUSPECTS
    found.next_lease = valid[0] if valid else None
    ends.saw(request.wanted, now, leases[0]["lease_until"] if leases else None)
    over = [str(doc["_id"]) for doc in leases if doc["lease_until"] <= now][: 2 * MAX_SUSPECTS]
    if over:
        _, stored = Records(connection).read(over)
        _see_to(connection, request, [one for one in stored if one is not None], now, found)
    return found


def _see_to(
    connection: Connection, request: ClaimRequest, suspects: list[Stored], now: datetime, found: Found
) -> None:
    planned: list[Replacement[Stored]] = []
    one: JobRecord | None = None
    until = after(now, request.lease)
    for item in suspects:
        record = item.record
        if record.lease_until is None or record.lease_until > now:
            continue
        ended = lifecycle.after_lost_claim(record, request, now)
        if ended is not None:
            planned.append(Replacement(item, ended))
        elif (
            one is None
            and request.idle
            and request.limit > 0
            and _has_slots(connection, item, request, now, until)
        ):
            one = lifecycle.claimed(
                record, now=now, worker=request.worker, nonce=new_nonce(), lease=request.lease, alone=True
            )
            planned.append(Replacement(item, one))
        elif limits.has_room(connection, item.doc["_id"], record.limit_keys, request.limits, now):
            found.left += 1
    for replacement, answer in zip(planned, Records(connection).write(planned, now), strict=True):
        is_claim = replacement.after is one
        if answer is WriteResult.DONE and replacement.after is not None:
            (found.taken if is_claim else found.ended).append(replacement.after)
        elif is_claim and replacement.before.record.limit_keys:
            job = replacement.before.doc["_id"]
            limits.give_back(connection, {key: [job] for key in replacement.before.record.limit_keys})


def _has_slots(
    connection: Connection, item: Stored, request: ClaimRequest, now: datetime, until: datetime
) -> bool:
    keys = item.record.limit_keys
    job = item.doc["_id"]
    return not keys or limits.take_slots(connection, job, keys, request.limits, now, until) is None
