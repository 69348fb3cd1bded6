"""Limits: which jobs have to wait, until when, and which of them go next.

Concurrency is counted anew each time. Rates follow GCRA in its form of virtual scheduling (ITU-T I.371).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import from_ms, to_ms
from mrq_core.job import JobRecord, Status
from mrq_core.messages import Limit
from mrq_core.testing.memory.data import MemoryData, Parked


def has_room(data: MemoryData, record: JobRecord, now: datetime) -> bool:
    """Whether all limits of a due job let it start now; if so, it is charged to its rates.

    If not, the job is parked, or pushed back to its turn. A suspect, which is a started job, stays
    where it is, and its rates were charged when it was claimed first.
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
    turn = _turn(data, record, now)
    if turn > now:
        data.put(replace(record, due_at=turn), now)
    return turn <= now


def let_go(data: MemoryData, now: datetime, *, inside: Callable[[JobRecord], bool] | None = None) -> None:
    """Makes parked jobs due where there is room: larger priority first, then the longest parked.

    A job is due again as it was before, so it goes ahead of those that came later. Those that were
    let go before and still wait take room too, as far as they are `inside`.
    """
    limits = data.limits
    for key in {parked.key for parked in limits.parked.values()}:
        line = [data.records[job_id] for job_id, parked in limits.parked.items() if parked.key == key]
        line.sort(key=lambda record: (-record.priority, *_since(limits.parked[record.id]), record.id))
        passed = [data.records[job_id] for job_id, parked in limits.passed.items() if parked.key == key]
        if inside is not None:
            line, passed = list(filter(inside, line)), list(filter(inside, passed))
        limit = limits.known.get(_rule(key), Limit())
        room = min(_room(data, key, limit, now) - len(passed), len(line))
        for record in line[: int(max(0, room))]:
            limits.passed[record.id] = parked = limits.parked[record.id]
            data.put(replace(record, due_at=parked.due_at), now)


def _since(parked: Parked) -> tuple[datetime, datetime]:
    return parked.since, parked.due_at


def _rule(key: str) -> str:
    return key.partition(":")[0]


def _limits_of(data: MemoryData, record: JobRecord) -> Iterator[tuple[str, Limit]]:
    """The limit keys of the job whose rule is known, each once."""
    for key in dict.fromkeys(record.limit_keys):
        limit = data.limits.known.get(_rule(key))
        if limit is not None:
            yield key, limit


def _room(data: MemoryData, key: str, limit: Limit, now: datetime) -> float:
    """How many more may run under the key."""
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
    """Takes the due time away. A job that was let go in vain keeps its place in the line of its key."""
    before = data.limits.passed.pop(record.id, None)
    since = before.since if before is not None and before.key == key else now
    data.put(replace(record, due_at=None), now)
    data.limits.parked[record.id] = Parked(key, since, record.due_at or now)


def _turn(data: MemoryData, record: JobRecord, now: datetime) -> datetime:
    """When the job may start by its rates. It is charged once, and keeps the turn that it was given."""
    limits = data.limits
    if record.id in limits.turns:
        return limits.turns[record.id]
    now_ms = to_ms(now)
    turn_ms = float(now_ms)
    for key, limit in _limits_of(data, record):
        if limit.rate is not None:
            gap_ms = limit.per / limit.rate * 1000
            burst_ms = gap_ms * (max(limit.rate, 1) - 1)
            even_ms = max(limits.rates.get(key, now_ms), now_ms)
            limits.rates[key] = even_ms + gap_ms
            turn_ms = max(turn_ms, even_ms - burst_ms)
    turn = from_ms(math.ceil(turn_ms))
    if turn > now:
        limits.turns[record.id] = turn
    return turn
