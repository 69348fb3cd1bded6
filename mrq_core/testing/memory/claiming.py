"""Which entries a claim takes, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from mrq_core.contract.lifecycle import after_lost_claim, claimed
from mrq_core.contract.messages import Claimed, ClaimRequest, Wanted
from mrq_core.contract.naming import is_covered
from mrq_core.contract.record import JobRecord, Status
from mrq_core.ids import new_nonce
from mrq_core.testing.memory import limits
from mrq_core.testing.memory.data import MemoryData, is_wanted

SUBQUEUES_A_CALL = 32
BLOCKED_A_CALL = 100
"""How many jobs one call parks and pushes back before it stops."""


def claim(data: MemoryData, request: ClaimRequest, now: datetime) -> Claimed:
    """See `Broker.claim`."""
    data.limits.known = dict(request.limits)
    ended: list[JobRecord] = []
    suspects: list[JobRecord] = []
    for record in lost(data, request, now):
        over = after_lost_claim(record, request, now)
        if over is not None:
            data.put(over, now)
            ended.append(over)
        else:
            suspects.append(record)
    limits.let_go(
        data, now, inside=lambda record: any(is_wanted(record.queue, wanted) for wanted in request.wanted)
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


def _is_due(record: JobRecord, now: datetime) -> bool:
    return record.due_at is not None and record.due_at <= now


def _is_excluded(record: JobRecord, wanted: Wanted) -> bool:
    return is_covered(record.queue, wanted.exclude)


def _entries(data: MemoryData, wanted: Wanted) -> Iterable[JobRecord]:
    """What is in the wanted queue or tree, due or not, claimed or not."""
    entries = data.entries_in(wanted.name)
    if not wanted.exclude:
        return entries
    return (record for record in entries if not _is_excluded(record, wanted))


def lost(data: MemoryData, request: ClaimRequest, now: datetime) -> list[JobRecord]:
    """Started jobs whose lease has run out, by its end. A queue that is wanted twice counts once."""
    found = {
        record.id: record
        for wanted in request.wanted
        for record in _entries(data, wanted)
        if record.status is Status.STARTED and _is_due(record, now)
    }
    return sorted(found.values(), key=lambda record: (record.due_at, record.id))


def _take_suspect(
    data: MemoryData, suspects: list[JobRecord], request: ClaimRequest, now: datetime, blocked: set[str]
) -> list[JobRecord]:
    """The first suspect that its limits let start, alone."""
    for record in suspects:
        if limits.has_room(data, record, now):
            return [_take(data, record, request, now, alone=True)]
        blocked.add(record.id)
    return []


def _take_waiting(data: MemoryData, request: ClaimRequest, now: datetime) -> list[JobRecord]:
    """Up to `limit` due jobs, none of them claimed before; stops where many are blocked."""
    taken: list[JobRecord] = []
    left = BLOCKED_A_CALL
    for wanted in request.wanted:
        room = request.limit - len(taken)
        if wanted.quota is not None:
            room = min(room, wanted.quota)
        for line in _lines(data, wanted, now):
            if room <= 0 or left <= 0:
                break
            if wanted.name.endswith("/"):
                data.turns[wanted.name] = line[0].queue
            for record in line:
                if room <= 0 or left <= 0:
                    break
                if limits.has_room(data, record, now):
                    taken.append(_take(data, record, request, now, alone=False))
                    room -= 1
                else:
                    left -= 1
    return taken


def _lines(data: MemoryData, wanted: Wanted, now: datetime) -> list[list[JobRecord]]:
    """The due jobs of the queue, or of each subqueue whose turn it is.

    In each: larger priority first, then earlier due time, then smaller id.
    """
    lines: dict[str, list[JobRecord]] = {}
    for record in _entries(data, wanted):
        if _is_due(record, now) and record.status is not Status.STARTED:
            lines.setdefault(record.queue, []).append(record)
    last = data.turns.get(wanted.name, "")
    names = sorted(lines, key=lambda name: (name <= last, name))[:SUBQUEUES_A_CALL]
    for name in names:
        lines[name].sort(key=lambda record: (record.due_at, record.id), reverse=wanted.reverse)
        lines[name].sort(key=lambda record: -record.priority)
    return [lines[name] for name in names]


def _take(
    data: MemoryData, record: JobRecord, request: ClaimRequest, now: datetime, *, alone: bool
) -> JobRecord:
    taken = claimed(
        record, now=now, worker=request.worker, nonce=new_nonce(), lease=request.lease, alone=alone
    )
    data.put(taken, now)
    return taken


def next_due(data: MemoryData, request: ClaimRequest, now: datetime, blocked: set[str]) -> datetime | None:
    """When the wanted queues may have more.

    The end of a lease counts; a suspect only for an idle worker, and only if no limit blocks it.
    """
    moments = [
        record.due_at
        for wanted in request.wanted
        for record in _entries(data, wanted)
        if record.due_at is not None
        and record.id not in blocked
        and (request.idle or record.status is not Status.STARTED or record.due_at > now)
    ]
    return min(moments, default=None)
