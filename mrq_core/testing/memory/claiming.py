"""Which entries a claim takes, and in which order."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime

from mrq_core.ids import new_nonce
from mrq_core.job import JobRecord, Status
from mrq_core.lifecycle import cancelled, claimed, condemned, is_condemned
from mrq_core.messages import Claimed, ClaimRequest, Wanted
from mrq_core.testing.memory.data import MemoryData, is_wanted

SUBQUEUES_A_CALL = 32


def claim(data: MemoryData, request: ClaimRequest, now: datetime) -> Claimed:
    """See `Broker.claim`."""
    ended: list[JobRecord] = []
    taken: list[JobRecord] = []
    suspects: list[JobRecord] = []
    for wanted in request.wanted:
        for record in _in_line(data, wanted):
            if record.status is Status.STARTED and _is_due(record, now):
                over = _ended(record, request, now)
                if over is not None:
                    data.put(over, now)
                    ended.append(over)
                else:
                    suspects.append(record)
    if request.idle and suspects and request.limit > 0:
        first = min(suspects, key=lambda record: (record.due_at, record.id))
        taken = [_take(data, first, request, now, alone=True)]
    else:
        for wanted in request.wanted:
            quota = request.limit - len(taken)
            if wanted.quota is not None:
                quota = min(quota, wanted.quota)
            for record in _choose(data, wanted, quota, now):
                taken.append(_take(data, record, request, now, alone=False))
    return Claimed(
        records=tuple(taken),
        next_due=_next_due(data, request, now),
        suspects_due=bool(suspects) and not request.idle,
        ended=tuple(ended),
        now=now,
    )


def _is_due(record: JobRecord, now: datetime) -> bool:
    return record.due_at is not None and record.due_at <= now


def _entries(data: MemoryData, wanted: Wanted) -> Iterable[JobRecord]:
    """What is in the wanted queue or tree, due or not, claimed or not."""
    for record in data.all():
        if record.due_at is not None and is_wanted(record.queue, wanted):
            yield record


def _in_line(data: MemoryData, wanted: Wanted) -> list[JobRecord]:
    """Its entries: larger priority first, then earlier due time, then smaller id."""
    entries = list(_entries(data, wanted))
    entries.sort(key=lambda record: (record.due_at, record.id), reverse=wanted.reverse)
    entries.sort(key=lambda record: -record.priority)
    return entries


def _choose(data: MemoryData, wanted: Wanted, quota: int, now: datetime) -> list[JobRecord]:
    """Up to `quota` due jobs that are not claimed."""
    due = [
        record
        for record in _in_line(data, wanted)
        if _is_due(record, now) and record.status is not Status.STARTED
    ]
    if not wanted.name.endswith("/"):
        return due[: max(0, quota)]
    names = sorted({record.queue for record in due})
    last = data.turns.get(wanted.name, "")
    rotated = [name for name in names if name > last] + [name for name in names if name <= last]
    chosen: list[JobRecord] = []
    for name in rotated[:SUBQUEUES_A_CALL]:
        if len(chosen) >= quota:
            break
        data.turns[wanted.name] = name
        chosen += [record for record in due if record.queue == name][: quota - len(chosen)]
    return chosen


def _take(
    data: MemoryData, record: JobRecord, request: ClaimRequest, now: datetime, *, alone: bool
) -> JobRecord:
    taken = claimed(
        record, now=now, worker=request.worker, nonce=new_nonce(), lease=request.lease, alone=alone
    )
    data.put(taken, now)
    return taken


def _ended(record: JobRecord, request: ClaimRequest, now: datetime) -> JobRecord | None:
    """The end of a job whose lease has run out, if it must not run again."""
    if record.cancel_requested:
        return cancelled(record, now=now, ttl=request.cancel_ttl)
    if is_condemned(record, request.max_lost_claims):
        return condemned(record, now=now, ttl=request.failed_ttl)
    return None


def _next_due(data: MemoryData, request: ClaimRequest, now: datetime) -> datetime | None:
    """When the wanted queues may have more. The end of a lease counts; a suspect only for an idle worker."""
    moments = [
        record.due_at
        for wanted in request.wanted
        for record in _entries(data, wanted)
        if record.due_at is not None
        and (request.idle or record.status is not Status.STARTED or record.due_at > now)
    ]
    return min(moments, default=None)
