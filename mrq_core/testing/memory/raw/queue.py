"""Raw queues of a broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from mrq_core.clock import after
from mrq_core.contract.lifecycle import admitted
from mrq_core.contract.messages import RawClaim, RawItem
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord
from mrq_core.drivers.raw_arguments import checks_raw_arguments
from mrq_core.testing.memory.data import Locked, MemoryData
from mrq_core.testing.memory.raw.claiming import RawClaims


@checks_raw_arguments
class MemoryRawQueue(RawQueue):
    """One raw queue of the data. The data know the queue from its first push on."""

    def __init__(self, name: str, data: MemoryData, locked: Locked) -> None:
        super().__init__(name)
        self._data = data
        self._locked = locked

    @contextmanager
    def _opened(self) -> Iterator[tuple[RawClaims, datetime]]:
        with self._locked() as now:
            yield self._data.raw.get(self.name) or RawClaims(self.kind), now

    def push(self, items: Sequence[RawItem]) -> list[bool]:
        if not items:
            return []
        with self._locked() as now:
            raw = self._data.raw.setdefault(self.name, RawClaims(self.kind))
            self._data.queues.add(self.name)
            return [raw.items.push(item, now) for item in items]

    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        with self._opened() as (raw, now):
            if pushback is None:
                return raw.claim(limit, lease, now)
            return raw.visit(limit, pushback, now)

    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        with self._opened() as (raw, now):
            return [self._admit(raw, claim, record, lease, now) for claim, record in claims]

    def _admit(self, raw: RawClaims, claim: RawClaim, record: JobRecord, lease: float, now: datetime) -> bool:
        if claim in raw.admitted:
            return True
        if not raw.holds(claim):
            return False
        started = admitted(record, job_id=claim.job_id, token=claim.token, now=now, lease=lease)
        self._data.put(started, now)
        raw.admit(claim)
        return True

    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        with self._opened() as (raw, now):
            return [raw.renew(claim, after(now, lease)) for claim in claims]

    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        with self._opened() as (raw, now):
            return [
                raw.settle(claim, None if delay is None else after(now, delay))
                for claim, delay in zip(claims, due_again, strict=True)
            ]

    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        with self._opened() as (raw, _):
            return raw.items.in_order()[offset : offset + limit]

    def remove(self, params: Sequence[str]) -> list[bool]:
        with self._opened() as (raw, _):
            return [raw.items.remove(param) for param in params]

    def size(self) -> int:
        with self._opened() as (raw, _):
            return len(raw.items)

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        with self._opened() as (raw, _):
            return raw.items.histogram(start, stop, buckets)
