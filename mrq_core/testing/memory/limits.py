"""Limits: which jobs have to wait, until when, and which of them go next.

Concurrency is counted anew each time. Rates follow GCRA in its form of virtual scheduling (ITU-T I.371).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import Limit
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers.limits import rule_of, spacing_of
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
        limit = limits.known.get(rule_of(key), Limit())
        room = min(_room(data, key, limit, now) - len(passed), len(line))
        for record in line[: int(max(0, room))]:
            limits.passed[record.id] = parked = limits.parked[record.id]
            data.put(replace(record, due_at=parked.due_at), now)


def _since(parked: Parked) -> tuple[datetime, datetime]:
    return parked.since, parked.due_at


def _limits_of(data: MemoryData, record: JobRecord) -> Iterator[tuple[str, Limit]]:
    """The limit keys of the job whose rule is known, each once."""
    for key in dict.fromkeys(record.limit_keys):
        limit = data.limits.known.get(rule_of(key))
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
    now_us = to_ms(now) * 1000
    turn_us = now_us
    for key, limit in _limits_of(data, record):
        spacing = spacing_of(limit)
        if spacing is not None:
            even_us = max(limits.rates.get(key, now_us), now_us)
            limits.rates[key] = even_us + spacing.interval_us
            turn_us = max(turn_us, even_us - spacing.burst_us)
    turn = from_ms(-(-turn_us // 1000))
    if turn > now:
        limits.turns[record.id] = turn
    return turn
