"""The Broker made of two halves: a queue that says when jobs are due and who holds them, and a store that
says what they are.

The store is written first, on the way in and on the way out; `mrq_core.contract.pair` says why the order of
crashes does not matter. What one in between leaves:

| between | it leaves | what mends it |
|---|---|---|
| a unique key and the job | an unneeded key | the next request for the key after a minute |
| the job and its entry | a waiting job without an entry | the repeated enqueue, `repair` |
| a claim and its start | an entry under a lease | the claims after that lease: no attempt is used |
| an outcome and its entry | an entry that starts nothing, under a lease | the claims after that lease |
| an outcome and its follow-ups | follow-ups that are not enqueued | `prune` |
| a change by a person and its entry | an entry of the version before | the claim that meets it, `repair` |
| a parameter's job and its admission | a started job without an entry | the next delivery, or `repair` |

The time is the queue's. Only what has expired is judged by the store's.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import islice

from mrq_core.composed import enqueueing, repairing, settling, tickets
from mrq_core.composed.claiming import Claimer
from mrq_core.composed.jobs import Jobs
from mrq_core.composed.raw import ComposedRawQueue
from mrq_core.contract.broker import Broker
from mrq_core.contract.lifecycle import has_expired
from mrq_core.contract.matching import matches
from mrq_core.contract.messages import (
    CHUNK,
    Action,
    AddedKeys,
    Applied,
    Cancel,
    ChangeResult,
    Claimed,
    ClaimRef,
    ClaimRequest,
    Edit,
    Enqueued,
    Move,
    NewJob,
    Note,
    Remove,
    Requeue,
    Settlement,
    Wanted,
)
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.contract.pair import JobQueue, JobStore
from mrq_core.contract.queries import (
    Counted,
    Finding,
    JobFilter,
    LogLine,
    LogPage,
    Order,
    Page,
    QueueCounts,
    QueuePosition,
    RepairResult,
    Totals,
)
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord
from mrq_core.contract.services import SharedState
from mrq_core.contract.shared_state import PollResult, Versions
from mrq_core.drivers import replacing

_UNFINISHED = timedelta(seconds=30)
"""Follow-ups that are older were left by a crash."""


class ComposedBroker(Broker):
    """A queue and a store that belong together, and nothing else."""

    supports_denied_tasks = False

    def __init__(self, queue: JobQueue, store: JobStore) -> None:
        self.name = f"{queue.name}+{store.name}"
        self.location = f"{queue.location} and {store.location}"
        self._queue = queue
        self._store = store
        self._jobs = Jobs(queue, store)
        self._claimer = Claimer(queue, store)
        self._repaired_to: str | None = None

    @property
    def state(self) -> SharedState:
        return self._store.state

    # --- a job's way -------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        return enqueueing.enqueue(self._queue, self._store, jobs)

    def claim(self, request: ClaimRequest) -> Claimed:
        return self._claimer.claim(request)

    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
        return settling.renew(self._jobs, claims, lease)

    def annotate(self, notes: Sequence[Note]) -> list[bool]:
        return self._store.annotate(notes, self._queue.now())

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        return settling.settle(self._jobs, settlements)

    def requeue(self, ids: Sequence[str], how: Requeue) -> list[ChangeResult]:
        return replacing.act(self._jobs, ids, how)

    def cancel(self, ids: Sequence[str], how: Cancel) -> list[ChangeResult]:
        return replacing.act(self._jobs, ids, how)

    def move(self, ids: Sequence[str], how: Move) -> list[ChangeResult]:
        return replacing.act(self._jobs, ids, how)

    def edit(self, edits: Sequence[Edit]) -> list[ChangeResult]:
        return replacing.edit(self._jobs, edits)

    def remove(self, ids: Sequence[str]) -> list[ChangeResult]:
        return replacing.act(self._jobs, ids, Remove())

    def add_search_keys(self, added: Sequence[AddedKeys]) -> list[ChangeResult]:
        return replacing.add_search_keys(self._jobs, added)

    def prune(self, limit: int = 1000) -> int:
        """See `Broker.prune`. Looks after follow-ups that a crash has left, and goes on repairing, a step."""
        gone = self._store.prune(limit)
        self._queue.prune(limit)
        now = self._queue.now()
        for parent, followups in self._store.unfinished(limit, before=now - _UNFINISHED):
            self._jobs.finish(parent, followups)
        self._repaired_to = self.repair(limit, self._repaired_to).cursor
        return gone

    def apply(
        self, wanted: JobFilter, action: Action, *, limit: int = 1000, cursor: str | None = None
    ) -> Applied:
        page = self._store.find(wanted, order=Order.OLDEST_FIRST, cursor=cursor, limit=limit)
        return replacing.apply(self._jobs, page, action, lambda record: matches(record, wanted))

    # --- queries -----------------------------------------------------------------------------

    def now(self) -> datetime:
        """The time of the queue's clock."""
        return self._queue.now()

    def get(self, ids: Sequence[str]) -> list[JobRecord | None]:
        now, found = self._jobs.read(ids)
        return [None if job is None or has_expired(job.record, now) else job.record for job in found]

    def find(
        self,
        wanted: JobFilter,
        *,
        order: Order = Order.NEWEST_FIRST,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        page = self._store.find(wanted, order=order, cursor=cursor, limit=limit)
        return Page(
            records=tuple(self._jobs.with_times(page.records)),
            cursor=page.cursor,
            searched_until=page.searched_until,
        )

    def count(self, wanted: JobFilter, group_by: str | None = None, *, cursor: str | None = None) -> Counted:
        return self._store.count(wanted, group_by, cursor=cursor)

    def totals(self) -> Totals:
        return self._store.totals()

    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        return self._queue.counts(queues)

    def queue_position(self, job_id: str) -> QueuePosition | None:
        [stored] = self._store.read([job_id])
        if stored is None or not tickets.is_waiting(stored.record):
            return None
        return self._queue.position(job_id)

    def parent_of(self, followup: str) -> str | None:
        for parent, jobs in self._store.unfinished(CHUNK):
            if any(job.record.id == followup for job in jobs):
                return parent
        return None

    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        both = heapq.merge(
            self._queue.queue_names(prefix, after, limit), self._store.queue_names(prefix, after, limit)
        )
        return list(islice(dict.fromkeys(both), limit))

    # --- workers -----------------------------------------------------------------------------

    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        return self._queue.wait(wanted, timeout)

    def poll(self, worker: str, versions: Versions) -> PollResult:
        return self._store.poll(worker, versions)

    def pause(self, queues: Sequence[str], until: datetime | None = None) -> None:
        self._store.pause(queues, until)

    def pause_tasks(self, paths: Sequence[str], until: datetime | None = None) -> None:
        self._store.pause_tasks(paths, until)

    # --- logs and metrics --------------------------------------------------------------------

    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        self._store.append_logs(lines, max_size)

    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        return self._store.read_logs(job_id, cursor, limit)

    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        self._store.record_metrics(metrics)

    def read_metrics(
        self,
        names: Sequence[str],
        since: datetime,
        until: datetime,
        resolution: Resolution = Resolution.MINUTE,
    ) -> list[Metric]:
        return self._store.read_metrics(names, since, until, resolution)

    # --- raw queues --------------------------------------------------------------------------

    def raw(self, name: str) -> RawQueue:
        return ComposedRawQueue(name, self._jobs)

    # --- care --------------------------------------------------------------------------------

    def repair(self, limit: int = 1000, cursor: str | None = None) -> RepairResult:
        return repairing.repair(self._jobs, limit, cursor)

    def repair_totals(self) -> int:
        return self._store.repair_totals()

    def check(self) -> list[Finding]:
        return [
            Finding(
                level=finding.level,
                subject=f"{half.name} {finding.subject}",
                message=finding.message,
                advice=finding.advice,
            )
            for half in (self._queue, self._store)
            for finding in half.check()
        ]

    def prepare(self) -> None:
        self._store.prepare()
        self._queue.prepare()

    def close(self) -> None:
        self._queue.close()
        self._store.close()
