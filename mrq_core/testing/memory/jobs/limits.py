"""Limits: parked jobs, jobs that are pushed back, and the order in which parked jobs are let go.

Running jobs are counted anew in each call. Rates follow GCRA in its form of virtual scheduling (ITU-T I.371).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import Limit
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers.limits import HORIZON_US, Spacing, limit_of, spacing_of, task_key
from mrq_core.testing.memory.data import MemoryData, Parking


def has_room(data: MemoryData, record: JobRecord, now: datetime) -> bool:
    """Whether all limits of a due job let it start now. If so, the job is charged to its rates.

    If not, the job is parked, or pushed back to the time that its rates allow, if that time is within the
    horizon. A suspect, which is a started job, is neither parked nor pushed back, and was charged to its
    rates at its first claim.
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
    if isinstance(allowed_at, str):
        _park(data, record, allowed_at, now)
        return False
    if allowed_at > now:
        data.put(replace(record, due_at=allowed_at), now)
    return allowed_at <= now


def let_go(data: MemoryData, now: datetime, *, inside: Callable[[JobRecord], bool] | None = None) -> None:
    """Makes parked jobs due where their key has room: larger priority first, then the longest parked. A rate
    has room for the jobs that it lets start within the horizon.

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
        room = min(_room(data, key, limit, now), _rate_room(data, key, limit, now)) - len(released)
        room = min(room, len(parked))
        for record in parked[: int(max(0, room))]:
            limits.released[record.id] = parking = limits.parked[record.id]
            data.put(replace(record, due_at=parking.due_at), now)


def opens_at(data: MemoryData, key: str, now: datetime) -> datetime | None:
    """The time from which the rate of the key lets parked jobs go. None: the key has no rate, or no room
    under its concurrency."""
    limit = limit_of(key, data.limits.known)
    spacing = None if limit is None else spacing_of(limit)
    if limit is None or spacing is None or _room(data, key, limit, now) <= 0:
        return None
    return max(now, _from_us(spacing.opens_at_us(_even_us(data, key, spacing, to_ms(now) * 1000))))


def even_at(data: MemoryData, key: str) -> datetime | None:
    """The time of the next claim under the key if all claims were evenly spaced. None: no claim has used its
    rate."""
    found = data.limits.rates.get(key)
    return None if found is None else _from_us(found[0])


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


def _rate_room(data: MemoryData, key: str, limit: Limit, now: datetime) -> float:
    """The number of further jobs that the rate of the key lets start within the horizon."""
    spacing, now_us = spacing_of(limit), to_ms(now) * 1000
    return math.inf if spacing is None else spacing.room(_even_us(data, key, spacing, now_us), now_us)


def _even_us(data: MemoryData, key: str, spacing: Spacing, now_us: int) -> int:
    """The time of the next claim under the key if all claims were evenly spaced. Where the rule has changed,
    both times of the key are cut."""
    even_us, counted_in = data.limits.rates.get(key, (now_us, spacing))
    if counted_in != spacing:
        even_us = spacing.cut(even_us, now_us)
        data.limits.rates[key] = even_us, spacing
        data.limits.starts[key] = spacing.cut(data.limits.starts.get(key, 0), now_us)
    return max(even_us, now_us)


def _start_us(data: MemoryData, key: str, spacing: Spacing, now_us: int) -> int:
    """The time of the key by starts."""
    _even_us(data, key, spacing, now_us)
    return max(data.limits.starts.get(key, 0), now_us)


def _park(data: MemoryData, record: JobRecord, key: str, now: datetime) -> None:
    """Takes the due time away. A job that was let go and finds no room keeps the time since which it waits
    for the key."""
    before = data.limits.released.pop(record.id, None)
    since = before.since if before is not None and before.key == key else now
    data.put(replace(record, due_at=None), now)
    data.limits.parked[record.id] = Parking(key, since, record.due_at or now)


def _allowed_at(data: MemoryData, record: JobRecord, now: datetime) -> datetime | str:
    """The time from which its rates let the job start. A job is charged once, and keeps its time, unless jobs
    that started late have used up the burst. A limit key: its rate lets the job start beyond the horizon, and
    the job is not charged."""
    limits = data.limits
    now_us = to_ms(now) * 1000
    spacings = [
        (key, spacing)
        for key, limit in _limits_of(data, record)
        if (spacing := spacing_of(limit)) is not None
    ]
    reserved = limits.allowed.get(record.id)
    is_reserved = reserved is not None and reserved <= now
    if is_reserved and all(
        spacing.may_start(_start_us(data, key, spacing, now_us), now_us) for key, spacing in spacings
    ):
        _start(data, spacings, now_us)
        return now
    allowed_us, latest = now_us, ""
    charged: dict[str, tuple[int, Spacing]] = {}
    for key, spacing in spacings:
        even_us = max(_even_us(data, key, spacing, now_us), _start_us(data, key, spacing, now_us))
        charged[key] = even_us + spacing.interval_us, spacing
        if even_us - spacing.burst_us > allowed_us:
            allowed_us, latest = even_us - spacing.burst_us, key
    if allowed_us > now_us + HORIZON_US and not is_reserved:
        return latest
    limits.rates.update(charged)
    allowed_at = _from_us(allowed_us)
    if allowed_at > now:
        limits.allowed[record.id] = allowed_at
    else:
        _start(data, spacings, now_us)
    return allowed_at


def _start(data: MemoryData, spacings: Sequence[tuple[str, Spacing]], now_us: int) -> None:
    """Counts a job that starts now under each of its rates."""
    for key, spacing in spacings:
        start_us = _start_us(data, key, spacing, now_us) + spacing.interval_us
        data.limits.starts[key] = start_us
        data.limits.rates[key] = max(start_us, _even_us(data, key, spacing, now_us)), spacing


def _from_us(us: int) -> datetime:
    """The first whole millisecond that is not before the time."""
    return from_ms(-(-us // 1000))
