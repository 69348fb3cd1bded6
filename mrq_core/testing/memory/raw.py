"""Raw queues in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import datetime

from mrq_core.clock import after
from mrq_core.contract.broker import RawQueue
from mrq_core.contract.lifecycle import admitted
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.naming import RawKind, check_raw_queue_name
from mrq_core.contract.record import JobRecord
from mrq_core.errors import InvalidValue
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.raw_items import RawItems

Locked = Callable[[], AbstractContextManager[datetime]]
"""Holds the lock of the data; gives the time of the call."""


class MemoryRawQueue(RawQueue):
    """One raw queue of a broker in memory. It exists in the data once something was pushed."""

    def __init__(self, name: str, data: MemoryData, locked: Locked) -> None:
        kind = check_raw_queue_name(name)
        self._name = name
        self._kind = kind
        self._data = data
        self._locked = locked

    @contextmanager
    def _items(self) -> Iterator[tuple[RawItems, datetime]]:
        with self._locked() as now:
            yield self._data.raw.get(self._name) or RawItems(self._kind), now

    def push(self, items: Sequence[RawItem]) -> list[bool]:
        with self._locked() as now:
            held = self._data.raw.setdefault(self._name, RawItems(self._kind))
            self._data.queues.add(self._name)
            return [held.push(item, now) for item in items]

    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        with self._items() as (held, now):
            if pushback is None:
                return held.claim(limit, lease, now)
            if self._kind is not RawKind.TIMED_SET:
                raise InvalidValue(
                    f"pushback is {pushback!r} for {self._name!r}: expected it for timed sets only",
                    path="pushback",
                )
            return held.visit(limit, pushback, now)

    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        with self._items() as (held, now):
            return [self._admit(held, claim, record, lease, now) for claim, record in claims]

    def _admit(self, held: RawItems, claim: RawClaim, record: JobRecord, lease: float, now: datetime) -> bool:
        if claim in held.admitted:
            return True
        if not held.holds(claim):
            return False
        started = admitted(record, job_id=claim.job_id, token=claim.token, now=now, lease=lease)
        self._data.put(started, now)
        held.admit(claim)
        return True

    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        with self._items() as (held, now):
            return [held.renew(claim, after(now, lease)) for claim in claims]

    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        with self._items() as (held, now):
            return [
                held.settle(claim, None if delay is None else after(now, delay))
                for claim, delay in zip(claims, due_again, strict=True)
            ]

    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        with self._items() as (held, _):
            return held.in_line()[offset : offset + limit]

    def remove(self, params: Sequence[str]) -> list[bool]:
        with self._items() as (held, _):
            return [held.remove(param) for param in params]

    def size(self) -> int:
        with self._items() as (held, _):
            return len(held.waiting)

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        with self._items() as (held, _):
            return held.histogram(start, stop, buckets)
