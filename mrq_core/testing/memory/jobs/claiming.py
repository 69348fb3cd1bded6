"""Claiming: the jobs that a claim takes, and their order."""

from __future__ import annotations

from datetime import datetime

from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Claimed, ClaimRequest
from mrq_core.contract.naming import is_tree
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_nonce
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.jobs import limits, lost_claims, trees

MAX_BLOCKED = 100
"""The number of jobs that one call parks and pushes back before it stops."""


def claim(data: MemoryData, request: ClaimRequest, now: datetime) -> Claimed:
    """See `Broker.claim`."""
    data.limits.known = dict(request.limits)
    ended, suspects = lost_claims.see_to(data, request, now)
    limits.let_go(
        data,
        now,
        inside=lambda record: any(trees.is_wanted(record.queue, wanted) for wanted in request.wanted),
    )
    suspects_due = not request.idle and any(limits.has_room(data, record, now) for record in suspects)
    taken: list[JobRecord] = []
    blocked: set[str] = set()
    if request.idle and request.limit > 0:
        taken = _take_suspect(data, suspects, request, now, blocked)
    if not taken:
        taken = _take_waiting(data, request, now)
    return Claimed(
        records=tuple(taken),
        next_due=next_due(data, request, now, blocked),
        suspects_due=suspects_due,
        ended=tuple(ended),
        now=now,
    )


def _take_suspect(
    data: MemoryData, suspects: list[JobRecord], request: ClaimRequest, now: datetime, blocked: set[str]
) -> list[JobRecord]:
    """Claims the first suspect whose limits have room, alone. Adds the suspects before it to `blocked`."""
    for record in suspects:
        if limits.has_room(data, record, now):
            return [_take(data, record, request, now, alone=True)]
        blocked.add(record.id)
    return []


def _take_waiting(data: MemoryData, request: ClaimRequest, now: datetime) -> list[JobRecord]:
    """Claims up to `limit` due jobs that no worker holds. Stops after MAX_BLOCKED blocked jobs."""
    taken: list[JobRecord] = []
    may_block = MAX_BLOCKED
    for wanted in request.wanted:
        room = request.limit - len(taken)
        if wanted.quota is not None:
            room = min(room, wanted.quota)
        for due in trees.due_by_queue(data, wanted, now):
            if room <= 0 or may_block <= 0:
                break
            if is_tree(wanted.name):
                data.rotation[wanted.name] = due[0].queue
            for record in due:
                if room <= 0 or may_block <= 0:
                    break
                if limits.has_room(data, record, now):
                    taken.append(_take(data, record, request, now, alone=False))
                    room -= 1
                else:
                    may_block -= 1
    return taken


def _take(
    data: MemoryData, record: JobRecord, request: ClaimRequest, now: datetime, *, alone: bool
) -> JobRecord:
    taken = lifecycle.claimed(
        record, now=now, worker=request.worker, nonce=new_nonce(), lease=request.lease, alone=alone
    )
    data.put(taken, now)
    return taken


def next_due(data: MemoryData, request: ClaimRequest, now: datetime, blocked: set[str]) -> datetime | None:
    """The earliest time at which the wanted queues may have more jobs to claim.

    The end of a lease counts. Suspects count for an idle worker only, and only if no limit blocks them.
    """
    times = [
        record.due_at
        for wanted in request.wanted
        for record in trees.entries(data, wanted)
        if record.due_at is not None
        and record.id not in blocked
        and (request.idle or record.status is not Status.STARTED or record.due_at > now)
    ]
    return min(times, default=None)
