"""The whole contract of a broker over plain dicts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial

from msgspec.structs import replace

from mrq_core import lifecycle
from mrq_core.broker import Broker, RawQueue, SharedState
from mrq_core.clock import Clock, SystemClock, after, from_ms, to_ms
from mrq_core.errors import BrokerUnavailable, JobNotFound
from mrq_core.filtering import check_group, matches
from mrq_core.job import JobRecord, Status, is_legal
from mrq_core.messages import (
    METRICS_KEPT,
    Action,
    Applied,
    Cancel,
    Change,
    Changes,
    Claimed,
    ClaimRef,
    ClaimRequest,
    Enqueued,
    Finding,
    JobFilter,
    LogLine,
    LogPage,
    Metric,
    Move,
    NewJob,
    Note,
    Order,
    Page,
    QueueCounts,
    Requeue,
    Settlement,
    Totals,
    Versions,
    Wanted,
)
from mrq_core.naming import check_page_cursor
from mrq_core.testing.memory.claiming import claim
from mrq_core.testing.memory.data import MemoryData, copy
from mrq_core.testing.memory.limits import let_go
from mrq_core.testing.memory.logs import JobLog
from mrq_core.testing.memory.raw import MemoryRawQueue
from mrq_core.testing.memory.search import counts, group_of, totals
from mrq_core.testing.memory.state import MemoryState

POLL_SECONDS = 0.01
"""How often a waiting thread looks whether something is due."""

MINUTE_MS = 60_000


class MemoryBroker(Broker):
    """A broker on `data`, which other brokers of the same process may share.

    Every method holds the one lock of the data.
    """

    name = "memory"

    def __init__(self, *, clock: Clock | None = None, data: MemoryData | None = None) -> None:
        self._clock = clock or SystemClock()
        self._data = data or MemoryData()
        self._state = MemoryState(self._data.state, self._data.lock, self._clock)
        self._closed = False

    @property
    def state(self) -> SharedState:
        return self._state

    @contextmanager
    def locked(self) -> Iterator[datetime]:
        """Holds the lock; gives the time at which everything in the call happens."""
        with self._data.lock:
            if self._closed:
                raise BrokerUnavailable("this broker was closed: open another one")
            now = from_ms(self._clock.now_ms())
            let_go(self._data, now)  # by leases that have ended since
            yield now
            let_go(self._data, now)  # by what this call did

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
                self._enqueue(NewJob(record=followup), now)
        return True

    # --- changes by people and rules -----------------------------------------------------------

    def requeue(self, ids: Sequence[str], how: Requeue) -> list[Change]:
        with self.locked() as now:
            return [self._requeue(job_id, how, now) for job_id in ids]

    def _requeue(self, job_id: str, how: Requeue, now: datetime) -> Change:
        record = self._data.visible(job_id, now)
        if record is None:
            return Change.UNKNOWN
        if record.status is Status.STARTED or not is_legal(record.status, Status.QUEUED):
            return Change.REFUSED
        unique = self._data.uniques.get(job_id)
        if unique is not None:
            if self._data.holder(unique.key, now) not in (None, job_id):
                return Change.HELD
            if unique.until != "period":  # a period counts from the enqueue
                self._data.reserve(unique, job_id, now)
        self._data.put(
            lifecycle.requeued(
                record, now=now, queue=how.queue, reset_retries=how.reset_retries, delay=how.delay
            ),
            now,
        )
        return Change.DONE

    def cancel(self, ids: Sequence[str], how: Cancel) -> list[Change]:
        with self.locked() as now:
            return [self._cancel(job_id, how, now) for job_id in ids]

    def _cancel(self, job_id: str, how: Cancel, now: datetime) -> Change:
        record = self._data.visible(job_id, now)
        if record is None:
            return Change.UNKNOWN
        if record.status is Status.STARTED:
            self._data.put(replace(record, cancel_requested=True, updated_at=now), now)
            if how.interrupt:
                self._data.signals.append(job_id)
            return Change.REQUESTED
        if not is_legal(record.status, Status.CANCEL):
            return Change.REFUSED
        self._data.put(lifecycle.cancelled(record, now=now, ttl=how.ttl), now)
        return Change.DONE

    def move(self, ids: Sequence[str], how: Move) -> list[Change]:
        with self.locked() as now:
            return [self._move(job_id, how, now) for job_id in ids]

    def _move(self, job_id: str, how: Move, now: datetime) -> Change:
        record = self._data.visible(job_id, now)
        if record is None:
            return Change.UNKNOWN
        if not record.status.is_waiting or record.is_ended:
            return Change.REFUSED
        # updated_at stays: for a job that waits to be retried it says when its attempt ended.
        self._data.put(replace(record, queue=how.queue), now)
        return Change.DONE

    def remove(self, ids: Sequence[str]) -> list[Change]:
        with self.locked() as now:
            return [self._remove(job_id, now) for job_id in ids]

    def _remove(self, job_id: str, now: datetime) -> Change:
        record = self._data.visible(job_id, now)
        if record is None:
            return Change.UNKNOWN
        if record.status is Status.STARTED:
            return Change.REFUSED
        self._data.delete(job_id)
        return Change.DONE

    def prune(self, limit: int = 1000) -> int:
        with self.locked() as now:
            self._state.drop_expired()
            oldest = (to_ms(now) - METRICS_KEPT * 1000) // MINUTE_MS
            for key in [key for key in self._data.metrics if key[0] < oldest]:
                del self._data.metrics[key]
            expired = [record.id for record in self._data.all() if lifecycle.has_expired(record, now)][:limit]
            for job_id in expired:
                self._data.delete(job_id, keep_period=True)
            return len(expired)

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
            numbers = {change: changes.count(change) for change in Change if change in changes}
            return Applied(matched=len(ids), changes=numbers, cursor=page.cursor)

    # --- looking -----------------------------------------------------------------------------

    def get(self, ids: Sequence[str]) -> list[JobRecord | None]:
        with self.locked() as now:
            return [self._data.visible(job_id, now) for job_id in ids]

    def find(
        self,
        wanted: JobFilter,
        *,
        order: Order = Order.NEWEST_FIRST,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        with self.locked() as now:
            found = self._matching(wanted, now)
        newest = order is Order.NEWEST_FIRST
        if newest:
            found.reverse()
        if cursor is not None:
            check_page_cursor(cursor)
            found = [record for record in found if (record.id < cursor if newest else record.id > cursor)]
        shown = tuple(copy(record) for record in found[:limit])
        return Page(records=shown, cursor=shown[-1].id if shown and len(found) > limit else None)

    def _matching(self, wanted: JobFilter, now: datetime) -> list[JobRecord]:
        return [
            record
            for record in self._data.all()
            if not lifecycle.has_expired(record, now) and matches(record, wanted)
        ]

    def count(self, wanted: JobFilter, group_by: str | None = None) -> dict[str, int]:
        check_group(group_by)
        with self.locked() as now:
            groups = [group_of(record, group_by) for record in self._matching(wanted, now)]
        if group_by is None:
            return {"": len(groups)}
        return {group: groups.count(group) for group in groups if group is not None}

    def totals(self) -> Totals:
        with self.locked():
            return totals(self._data.all())

    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        with self.locked() as now:
            return [counts(queue, self._data.entries.get(queue, {}).values(), now) for queue in queues]

    def known(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        with self.locked():
            names = sorted(name for name in self._data.queues if name.startswith(prefix) and name > after)
        return names[:limit]

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

    def poll(self, worker: str, versions: Versions) -> Changes:
        with self.locked():
            data = self._data
            asked = dict.fromkeys(data.signals[versions.signals :])
            records = [record for record in map(data.get, asked) if record is not None]
            return Changes(
                versions=Versions(pauses=data.pauses_version, signals=len(data.signals)),
                paused=data.paused if versions.pauses != data.pauses_version else None,
                interrupts=tuple(
                    record.id
                    for record in records
                    if record.status is Status.STARTED and record.worker == worker and record.cancel_requested
                ),
            )

    def pause(self, queues: Sequence[str]) -> None:
        with self.locked():
            self._set_paused(self._data.paused | set(queues))

    def resume(self, queues: Sequence[str]) -> None:
        with self.locked():
            self._set_paused(self._data.paused - set(queues))

    def _set_paused(self, paused: frozenset[str]) -> None:
        if paused != self._data.paused:
            self._data.paused = paused
            self._data.pauses_version += 1

    def paused(self) -> frozenset[str]:
        with self.locked():
            return self._data.paused

    # --- logs and metrics --------------------------------------------------------------------

    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        with self.locked() as now:
            for line in lines:
                if self._data.visible(line.job_id, now) is not None:
                    self._data.logs.setdefault(line.job_id, JobLog()).append(line, max_size)

    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        with self.locked() as now:
            if self._data.visible(job_id, now) is None:
                raise JobNotFound(job_id)
            return self._data.logs.get(job_id, JobLog()).page(cursor, limit)

    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        with self.locked():
            table = self._data.metrics
            for metric in metrics:
                key = (to_ms(metric.at) // MINUTE_MS, metric.name)
                table[key] = table.get(key, 0.0) + metric.value

    def read_metrics(self, names: Sequence[str], since: float, until: float) -> list[Metric]:
        with self.locked():
            return [
                Metric(name=name, at=from_ms(minute * MINUTE_MS), value=value)
                for (minute, name), value in sorted(self._data.metrics.items())
                if name in names and since <= minute * MINUTE_MS / 1000 < until
            ]

    # --- raw queues and care -----------------------------------------------------------------

    def raw(self, name: str) -> RawQueue:
        return MemoryRawQueue(name, self._data, self.locked)

    def check(self) -> list[Finding]:
        with self.locked():
            return [
                Finding(level="ok", subject="memory", message=f"{len(self._data.records)} jobs in memory")
            ]

    def prepare(self) -> None:
        """There is nothing to create."""

    def close(self) -> None:
        self._closed = True
