"""Limits: parked jobs, jobs that are pushed back, and the order in which parked jobs are let go.

Running jobs are counted anew in each call. Rates follow GCRA in its form of virtual scheduling (ITU-T I.371).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import Limit
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers.limits import limit_of, spacing_of, task_key
from mrq_core.testing.memory.data import MemoryData, Parking


def has_room(data: MemoryData, record: JobRecord, now: datetime) -> bool:
    """Whether all limits of a due job let it start now. If so, the job is charged to its rates.

    If not, the job is parked, or pushed back to the time that its rates allow. A suspect, which is a started
    job, is neither parked nor pushed back, and was charged to its rates at its first claim.
    """
    full = next(
        (key for key, limit in _limits_of(data, record) if _room(data, key, limit, now) <= 0),
        None,
    )
    if record.status is Status.STARTED:
        return full is None
    if full is not None:
        _park(data, record, full, now)
        return False
    allowed_at = _allowed_at(data, record, now)
    if allowed_at > now:
        data.put(replace(record, due_at=allowed_at), now)
    return allowed_at <= now


def let_go(data: MemoryData, now: datetime, *, inside: Callable[[JobRecord], bool] | None = None) -> None:
    """Makes parked jobs due where their key has room: larger priority first, then the longest parked.

    A job gets its earlier due time back, and so precedes later jobs. Jobs that were let go before and are not
    claimed yet take room too. With `inside`, only jobs that satisfy it are let go and take room.
    """
    limits = data.limits
    for key in {parking.key for parking in limits.parked.values()}:
        parked = [data.records[job_id] for job_id, parking in limits.parked.items() if parking.key == key]
        parked.sort(key=lambda record: (-record.priority, *_since(limits.parked[record.id]), record.id))
        released = [data.records[job_id] for job_id, parking in limits.released.items() if parking.key == key]
        if inside is not None:
            parked, released = list(filter(inside, parked)), list(filter(inside, released))
        limit = limit_of(key, limits.known) or Limit()
        room = min(_room(data, key, limit, now) - len(released), len(parked))
        for record in parked[: int(max(0, room))]:
            limits.released[record.id] = parking = limits.parked[record.id]
            data.put(replace(record, due_at=parking.due_at), now)


def _since(parking: Parking) -> tuple[datetime, datetime]:
    return parking.since, parking.due_at


def _limits_of(data: MemoryData, record: JobRecord) -> Iterator[tuple[str, Limit]]:
    """The limit keys of the job whose rule is known, each once, after the key of a paused task."""
    for key in dict.fromkeys((task_key(record.path), *record.limit_keys)):
        limit = limit_of(key, data.limits.known)
        if limit is not None:
            yield key, limit


def _room(data: MemoryData, key: str, limit: Limit, now: datetime) -> float:
    """The number of further jobs that may run under the key."""
    if limit.concurrency is None:
        return math.inf
    running = sum(
        record.status is Status.STARTED
        and key in record.limit_keys
        and record.lease_until is not None
        and record.lease_until > now
        for entries in data.entries.values()
        for record in entries.values()
    )
    return limit.concurrency - running


def _park(data: MemoryData, record: JobRecord, key: str, now: datetime) -> None:
    """Takes the due time away. A job that was let go and finds no room keeps the time since which it waits
    for the key."""
    before = data.limits.released.pop(record.id, None)
    since = before.since if before is not None and before.key == key else now
    data.put(replace(record, due_at=None), now)
    data.limits.parked[record.id] = Parking(key, since, record.due_at or now)


def _allowed_at(data: MemoryData, record: JobRecord, now: datetime) -> datetime:
    """The time from which its rates let the job start. A job is charged once, and keeps its time."""
    limits = data.limits
    if record.id in limits.allowed:
        return limits.allowed[record.id]
    now_us = to_ms(now) * 1000
    allowed_us = now_us
    for key, limit in _limits_of(data, record):
        spacing = spacing_of(limit)
        if spacing is not None:
            even_us = max(limits.rates.get(key, now_us), now_us)
            limits.rates[key] = even_us + spacing.interval_us
            allowed_us = max(allowed_us, even_us - spacing.burst_us)
    allowed_at = from_ms(-(-allowed_us // 1000))
    if allowed_at > now:
        limits.allowed[record.id] = allowed_at
    return allowed_at
