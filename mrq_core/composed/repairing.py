"""Giving jobs back the places that they have lost.

Wherever a process dies between the store and the queue, and even where the queue has lost all that it held,
the store says which jobs are to run. Entries that the queue still has but that claims do not find get their
places back first; then each job that has no entry of the version that is stored gets one. That is
safe at any time, beside running workers: an entry of an older version starts nothing, one that came too late
is taken away again, and a job that its worker still runs comes back under that worker's claim.
"""

from __future__ import annotations

from collections.abc import Sequence

from mrq_core import failpoints
from mrq_core.composed import tickets
from mrq_core.composed.jobs import Jobs
from mrq_core.contract.pair import Entry, Removal, StoredJob
from mrq_core.contract.queries import JobFilter, Order, RepairResult
from mrq_core.contract.record import UNFINISHED, Status

_UNFINISHED = JobFilter(statuses=UNFINISHED)


def repair(jobs: Jobs, limit: int, cursor: str | None) -> RepairResult:
    """See `Broker.repair`."""
    page = jobs.store.find(_UNFINISHED, order=Order.OLDEST_FIRST, cursor=cursor, limit=limit)
    ids = [record.id for record in page.records]
    restored = jobs.queue.restore(ids) if ids else []
    entries = jobs.queue.entries(ids) if ids else []
    # Read after the entries: what has lost its entry since was changed, and is left alone.
    found = jobs.store.read(ids) if ids else []
    lost = [
        stored
        for stored, entry in zip(found, entries, strict=True)
        if stored is not None and _has_lost_its_place(stored, entry)
    ]
    repaired = dict.fromkeys([*restored, *_give_places(jobs, _without_leased(jobs, lost))])
    return RepairResult(examined=len(ids), repaired=tuple(repaired), cursor=page.cursor)


def _has_lost_its_place(stored: StoredJob, entry: Entry | None) -> bool:
    if tickets.is_waiting(stored.record):
        return entry is None or entry.version < stored.version
    return stored.record.status is Status.STARTED and entry is None


def _without_leased(jobs: Jobs, lost: Sequence[StoredJob]) -> list[StoredJob]:
    """Without those whose parameter will be delivered again under their id."""
    return [
        stored
        for stored in lost
        if stored.record.raw_queue is None
        or not any(jobs.queue.is_leased(stored.record.raw_queue, [stored.record.id]))
    ]


def _give_places(jobs: Jobs, lost: Sequence[StoredJob]) -> list[str]:
    waiting = [stored for stored in lost if stored.record.status is not Status.STARTED]
    started = [stored for stored in lost if stored.record.status is Status.STARTED]
    answers: list[bool] = []
    if waiting:
        answers += jobs.queue.push([tickets.entry_of(one, one.record, one.version) for one in waiting])
    if started:
        lease = max(tickets.lease_of(one.record) for one in started)
        answers += jobs.queue.push([tickets.claimed_entry_of(one) for one in started], lease)
    failpoints.reach("composed.repaired")
    given = [*waiting, *started]
    now_there = jobs.store.read([stored.record.id for stored in given]) if given else ()
    ended: list[Removal] = []
    deleted: list[str] = []
    repaired: list[str] = []
    for before, stored, is_there in zip(given, now_there, answers, strict=True):
        if stored is None or stored.record.is_ended:  # deleted or ended meanwhile: it needs no entry
            ended.append(tickets.removal_of(stored or before))
            if stored is None:
                deleted.append(before.record.id)
        elif is_there:
            repaired.append(before.record.id)
    if ended:
        tickets.remove(jobs.queue, jobs.store, ended, deleted)
    return repaired
