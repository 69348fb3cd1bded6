"""Claiming: the jobs that a claim takes, and their order."""

from __future__ import annotations

from datetime import datetime

from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Claimed, ClaimRequest
from mrq_core.contract.naming import is_tree
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers.limits import rules_of
from mrq_core.ids import new_nonce
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.jobs import limits, lost_claims, trees

MAX_BLOCKED = 100
"""The number of jobs that one call parks and pushes back before it stops."""


def claim(data: MemoryData, request: ClaimRequest, now: datetime) -> Claimed:
    """See `Broker.claim`."""
    data.limits.known = dict(rules_of(request))
    ended, suspects = lost_claims.end(data, request, now)
    let_go_wanted(data, request, now)
    suspects = [record for record in suspects if not request.leaves(record.path)]
    parked = len(data.limits.parked)
    taken = _take_all(data, suspects, request, now)
    number = sum(record.id in {suspect.id for suspect in suspects} for record in taken)
    return Claimed(
        records=tuple(taken),
        next_due=next_due(data, request, now, may_take_suspects=number < request.lost_limit),
        ended=tuple(ended),
        now=now,
        is_denied=not taken and len(data.limits.parked) == parked and _meets_denied(data, request, now),
    )


def _meets_denied(data: MemoryData, request: ClaimRequest, now: datetime) -> bool:
    """Whether the worker leaves the first due job to other workers."""
    return any(
        request.leaves(due[0].path)
        for wanted in request.wanted
        for due in trees.due_by_queue(data, wanted, now)
        if request.limit > 0 and due
    )


def let_go_wanted(data: MemoryData, request: ClaimRequest, now: datetime) -> None:
    """Makes parked jobs of the wanted queues due where their limits have room."""
    limits.let_go(
        data,
        now,
        inside=lambda record: any(trees.is_wanted(record.queue, wanted) for wanted in request.wanted),
    )


def _take_all(
    data: MemoryData, suspects: list[JobRecord], request: ClaimRequest, now: datetime
) -> list[JobRecord]:
    """Claims suspects up to their limit, and then waiting jobs."""
    taken: list[JobRecord] = []
    for record in suspects:
        if len(taken) < min(request.lost_limit, request.limit) and limits.has_room(data, record, now):
            taken.append(_take(data, record, request, now))
    take_waiting(data, request, now, taken)
    return taken


def take_waiting(data: MemoryData, request: ClaimRequest, now: datetime, taken: list[JobRecord]) -> None:
    """Claims due jobs that no worker holds until `taken` has `limit` jobs. Stops after MAX_BLOCKED blocked
    jobs."""
    may_block = MAX_BLOCKED
    may_step_over = max(MAX_BLOCKED, 4 * request.limit)
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
                if room <= 0 or may_block <= 0 or may_step_over <= 0:
                    break
                if request.leaves(record.path):
                    may_step_over -= 1
                    continue
                if limits.has_room(data, record, now):
                    taken.append(_take(data, record, request, now))
                    room -= 1
                else:
                    may_block -= 1


def _take(data: MemoryData, record: JobRecord, request: ClaimRequest, now: datetime) -> JobRecord:
    taken = lifecycle.claimed(record, now=now, worker=request.worker, nonce=new_nonce(), lease=request.lease)
    data.put(taken, now)
    return taken


def next_due(
    data: MemoryData, request: ClaimRequest, now: datetime, *, may_take_suspects: bool
) -> datetime | None:
    """The earliest time at which the wanted queues may have more jobs to claim.

    The end of a lease counts. That of a suspect counts if the worker may take it, and no limit blocks it. So
    does the time at which a rate lets the next parked job go.
    """
    times = [
        record.due_at
        for wanted in request.wanted
        for record in trees.entries(data, wanted)
        if record.due_at is not None
        and (
            record.status is not Status.STARTED
            or record.due_at > now
            or (may_take_suspects and limits.has_room(data, record, now))
        )
    ]
    parked = {
        parking.key
        for job_id, parking in data.limits.parked.items()
        if any(trees.is_wanted(data.records[job_id].queue, wanted) for wanted in request.wanted)
    }
    times += [opens_at for key in parked if (opens_at := limits.opens_at(data, key, now)) is not None]
    return min(times, default=None)
