"""Positions of waiting jobs in their queues, and the use of limit keys. The model scans its records."""

from __future__ import annotations

from datetime import datetime

from mrq_core.contract.messages import MOST_AHEAD, MOST_NAMED
from mrq_core.contract.queries import KeyUse, QueuePosition
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing.memory.data import MemoryData, Parking
from mrq_core.testing.memory.jobs import limits


def position(data: MemoryData, job_id: str, now: datetime) -> QueuePosition | None:
    """See `Broker.queue_position`."""
    record = data.visible(job_id, now)
    if record is None or not record.status.is_waiting or record.is_ended:
        return None
    parking = data.limits.parked.get(job_id)
    ahead = _due_before(data, record, now) if parking is None else _parked_before(data, record, parking)
    allowed_at = data.limits.allowed.get(job_id)
    keys = dict.fromkeys([*record.limit_keys, *([] if parking is None else [parking.key])])
    return QueuePosition(
        ahead=min(ahead, MOST_AHEAD),
        is_exact=ahead <= MOST_AHEAD,
        due_at=record.due_at,
        parked_under=None if parking is None else parking.key,
        parked_since=None if parking is None else parking.since,
        allowed_at=allowed_at if allowed_at is not None and allowed_at > now else None,
        keys=tuple(_use_of(data, key, now) for key in keys),
    )


def _due_before(data: MemoryData, record: JobRecord, now: datetime) -> int:
    """The number of jobs of the queue that are claimed before this job, when this job is due."""
    due_at = record.due_at or now
    return sum(
        other.status is not Status.STARTED
        and other.due_at is not None
        and (
            (other.priority > record.priority and other.due_at <= max(now, due_at))
            or (other.priority == record.priority and (other.due_at, other.id) < (due_at, record.id))
        )
        for other in data.entries[record.queue].values()
    )


def _parked_before(data: MemoryData, record: JobRecord, parking: Parking) -> int:
    return _parked_under(data, parking.key).index(record.id)


def _parked_under(data: MemoryData, key: str) -> list[str]:
    """The jobs that are parked under the key, in the order in which they are let go."""
    parked = [(data.records[job_id], one) for job_id, one in data.limits.parked.items() if one.key == key]
    parked.sort(key=lambda pair: (-pair[0].priority, pair[1].since, pair[1].due_at, pair[0].id))
    return [record.id for record, _ in parked]


def _use_of(data: MemoryData, key: str, now: datetime) -> KeyUse:
    running = sorted(
        record.id
        for entries in data.entries.values()
        for record in entries.values()
        if record.status is Status.STARTED
        and key in record.limit_keys
        and record.lease_until is not None
        and record.lease_until > now
    )
    parked = _parked_under(data, key)
    return KeyUse(
        key=key,
        running=len(running),
        holders=tuple(running[:MOST_NAMED]),
        parked=min(len(parked), MOST_AHEAD),
        waiters=tuple(parked[:MOST_NAMED]),
        even_at=limits.even_at(data, key),
    )
