"""The whole contract of a broker over plain dicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract import lifecycle
from mrq_core.contract.broker import Broker, RawQueue
from mrq_core.contract.messages import (
    Action,
    Applied,
    Cancel,
    ChangeResult,
    Claimed,
    ClaimRef,
    ClaimRequest,
    Enqueued,
    JobFilter,
    Move,
    NewJob,
    Note,
    Order,
    QueueCounts,
    Requeue,
    Settlement,
    Wanted,
)
from mrq_core.contract.record import JobRecord, Status, is_legal
from mrq_core.testing.memory.claiming import claim
from mrq_core.testing.memory.keeper import MemoryKeeper
from mrq_core.testing.memory.raw import MemoryRawQueue
from mrq_core.testing.memory.search import counts

POLL_SECONDS = 0.01
"""How often a waiting thread looks whether something is due."""

MINUTE_MS = 60_000


class MemoryBroker(MemoryKeeper, Broker):
    """A broker on `data`, which other brokers of the same process may share.

    Every method holds the one lock of the data.
    """

    # --- a job's way -------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        with self.locked() as now:
            return [self._enqueue(job, now) for job in jobs]

    def _enqueue(self, job: NewJob, now: datetime) -> Enqueued:
        record = job.record
        if self._data.visible(record.id, now) is not None:
            return Enqueued(id=record.id, created=False)
        if job.unique is not None:
            holder = self._data.reserve(job.unique, record.id, now)
            if holder != record.id:
                return Enqueued(id=holder, created=False)
            self._data.uniques[record.id] = job.unique
            record = replace(record, unique_key=job.unique.key)
        due_at = after(now, job.delay) if job.delay is not None else record.due_at or now
        self._data.put(replace(record, due_at=due_at), now)
        return Enqueued(id=record.id, created=True)

    def claim(self, request: ClaimRequest) -> Claimed:
        with self.locked() as now:
            return claim(self._data, request, now)

    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
        with self.locked() as now:
            until = after(now, lease)
            change = partial(replace, lease_until=until, due_at=until)
            return [self._write_held(ref.id, ref.token, now, change) for ref in claims]

    def annotate(self, notes: Sequence[Note]) -> list[bool]:
        with self.locked() as now:
            answers = []
            for note in notes:
                change = partial(replace, progress=note.progress, updated_at=now)
                answers.append(self._write_held(note.id, note.token, now, change))
            return answers

    def _write_held(
        self, job_id: str, token: str, now: datetime, change: Callable[[JobRecord], JobRecord]
    ) -> bool:
        """Changes a record whose latest claim, not settled yet, is the one with this token."""
        record = self._data.get(job_id)
        if record is None or record.status is not Status.STARTED or record.token != token:
            return False
        self._data.put(change(record), now)
        return True

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        with self.locked() as now:
            return [self._settle(settlement, now) for settlement in settlements]

    def _settle(self, settlement: Settlement, now: datetime) -> bool:
        record = self._data.get(settlement.id)
        if record is None:
            return False
        if record.status is not Status.STARTED or record.token != settlement.token:
            return lifecycle.was_settled_by(record, settlement.token)
        after = lifecycle.settled(record, settlement.outcome, now)
        self._data.put(after, now)
        if after.status is settlement.outcome.status:  # not turned into a cancellation
            for followup in settlement.outcome.followups:
                self._enqueue(followup, now)
        return True

    # --- changes by people and rules -----------------------------------------------------------

    def requeue(self, ids: Sequence[str], how: Requeue) -> list[ChangeResult]:
        with self.locked() as now:
            return [self._requeue(job_id, how, now) for job_id in ids]

    def _requeue(self, job_id: str, how: Requeue, now: datetime) -> ChangeResult:
        record = self._data.visible(job_id, now)
        if record is None:
            return ChangeResult.UNKNOWN
        if record.status is Status.STARTED or not is_legal(record.status, Status.QUEUED):
            return ChangeResult.REFUSED
        unique = self._data.uniques.get(job_id)
        if unique is not None:
            if self._data.holder(unique.key, now) not in (None, job_id):
                return ChangeResult.HELD
            if unique.until != "period":  # a period counts from the enqueue
                self._data.reserve(unique, job_id, now)
        self._data.put(
            lifecycle.requeued(
                record, now=now, queue=how.queue, reset_retries=how.reset_retries, delay=how.delay
            ),
            now,
        )
        return ChangeResult.DONE

    def cancel(self, ids: Sequence[str], how: Cancel) -> list[ChangeResult]:
        with self.locked() as now:
            return [self._cancel(job_id, how, now) for job_id in ids]

    def _cancel(self, job_id: str, how: Cancel, now: datetime) -> ChangeResult:
        record = self._data.visible(job_id, now)
        if record is None:
            return ChangeResult.UNKNOWN
        if record.status is Status.STARTED:
            self._data.put(replace(record, cancel_requested=True, updated_at=now), now)
            if how.interrupt:
                self._data.signals.append(job_id)
            return ChangeResult.REQUESTED
        if not is_legal(record.status, Status.CANCEL):
            return ChangeResult.REFUSED
        self._data.put(lifecycle.cancelled(record, now=now, ttl=how.ttl), now)
        return ChangeResult.DONE

    def move(self, ids: Sequence[str], how: Move) -> list[ChangeResult]:
        with self.locked() as now:
            return [self._move(job_id, how, now) for job_id in ids]

    def _move(self, job_id: str, how: Move, now: datetime) -> ChangeResult:
        record = self._data.visible(job_id, now)
        if record is None:
            return ChangeResult.UNKNOWN
        if not record.status.is_waiting or record.is_ended:
            return ChangeResult.REFUSED
        # updated_at stays: for a job that waits to be retried it says when its attempt ended.
        self._data.put(replace(record, queue=how.queue), now)
        return ChangeResult.DONE

    def remove(self, ids: Sequence[str]) -> list[ChangeResult]:
        with self.locked() as now:
            return [self._remove(job_id, now) for job_id in ids]

    def _remove(self, job_id: str, now: datetime) -> ChangeResult:
        record = self._data.visible(job_id, now)
        if record is None:
            return ChangeResult.UNKNOWN
        if record.status is Status.STARTED:
            return ChangeResult.REFUSED
        self._data.delete(job_id)
        return ChangeResult.DONE

    def apply(
        self, wanted: JobFilter, action: Action, *, limit: int = 1000, cursor: str | None = None
    ) -> Applied:
        with self.locked():
            page = self.find(wanted, order=Order.OLDEST_FIRST, cursor=cursor, limit=limit)
            ids = [record.id for record in page.records]
            if isinstance(action, Requeue):
                changes = self.requeue(ids, action)
            elif isinstance(action, Cancel):
                changes = self.cancel(ids, action)
            elif isinstance(action, Move):
                changes = self.move(ids, action)
            else:
                changes = self.remove(ids)
            numbers = {change: changes.count(change) for change in ChangeResult if change in changes}
            return Applied(matched=len(ids), changes=numbers, cursor=page.cursor)

    # --- looking -----------------------------------------------------------------------------

    def get(self, ids: Sequence[str]) -> list[JobRecord | None]:
        with self.locked() as now:
            return [self._data.visible(job_id, now) for job_id in ids]

    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        with self.locked() as now:
            return [counts(queue, self._data.entries.get(queue, {}).values(), now) for queue in queues]

    # --- workers -----------------------------------------------------------------------------

    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while True:
            with self.locked() as now:
                if self._data.due(tuple(wanted), now):
                    return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # Looking again, rather than being woken, also finds what becomes due by time alone.
            time.sleep(min(left, POLL_SECONDS))

    # --- raw queues --------------------------------------------------------------------------

    def raw(self, name: str) -> RawQueue:
        return MemoryRawQueue(name, self._data, self.locked)
