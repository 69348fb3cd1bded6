"""Entries made from records: an entry is a ticket for one version of a record.

Also repairs entries that do not match their records.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from mrq_core import failpoints
from mrq_core.clock import after
from mrq_core.composed import uniques
from mrq_core.contract.lifecycle import has_expired
from mrq_core.contract.messages import ClaimRef, NewJob, Unique
from mrq_core.contract.pair import Entry, JobQueue, JobStore, Removal, StoredJob
from mrq_core.contract.record import JobRecord, Status

_LEASE_AT_LEAST = 1.0


def is_waiting(record: JobRecord) -> bool:
    """Whether the job needs a waiting entry in its queue."""
    return record.status.is_waiting and not record.is_ended


def due_at(job: NewJob, now: datetime) -> datetime:
    """The due time of a new job."""
    return after(now, job.delay) if job.delay is not None else job.record.due_at or now


def entry_of_new(job: NewJob) -> Entry:
    """The entry of a job that has just been stored."""
    return _entry(job.record, version=1, unique=job.unique)


def entry_of(stored: StoredJob, record: JobRecord, version: int) -> Entry:
    """The entry of a waiting job, for that version of its record."""
    return _entry(record, version=version, unique=stored.unique)


def claimed_entry_of(stored: StoredJob) -> Entry:
    """The entry of a started job, as its claim holds it."""
    record = stored.record
    return replace(_entry(record, version=stored.version, unique=stored.unique), token=record.token)


def _entry(record: JobRecord, *, version: int, unique: Unique | None, begins: bool = False) -> Entry:
    return Entry(
        id=record.id,
        queue=record.queue,
        version=version,
        priority=record.priority,
        due_at=record.due_at,
        claims=record.claims,
        limit_keys=record.limit_keys,
        unique=uniques.of_entry(unique, record, begins=begins),
    )


def lease_of(record: JobRecord) -> float:
    """As long as it was when the claim was made: a worker that still runs the job renews it meanwhile."""
    if record.lease_until is None or record.started_at is None:
        return _LEASE_AT_LEAST
    return max(_LEASE_AT_LEAST, (record.lease_until - record.started_at).total_seconds())


def removal_of(stored: StoredJob) -> Removal:
    """Takes the entry of an ended job away, and the key that it needs no more."""
    return Removal(id=stored.record.id, version=stored.version, key=uniques.to_let_go(stored.unique))


def _removal_of_entry(entry: Entry, stored: StoredJob | None) -> Removal:
    """Takes this entry away, though it may be of an earlier job of the id, with more versions."""
    if stored is None:
        return Removal(id=entry.id, version=entry.version)
    return replace(removal_of(stored), version=max(entry.version, stored.version))


def remove(queue: JobQueue, store: JobStore, removals: Sequence[Removal], deleted: Sequence[str]) -> None:
    """Removes entries, some of jobs that are deleted. Where such an id is enqueued anew at the same moment,
    the old entry may have kept the new job from its index, and the new job's key may go with the old: it gets
    both."""
    queue.remove(removals)
    failpoints.reach("composed.removed")
    entries = [
        _entry(stored.record, version=stored.version, unique=stored.unique, begins=True)
        for stored in (store.read(deleted) if deleted else ())
        if stored is not None and is_waiting(stored.record)
    ]
    if entries:
        queue.push(entries)


def put_right(queue: JobQueue, store: JobStore, entries: Sequence[Entry], now: datetime) -> None:
    """Repairs claimed entries that started nothing, so that they match their records.

    They are left by a crash between the store and the queue, or by a change of the job during its claim. An
    entry whose record is started is of an older version, which was given back while the job was
    started; it is pushed again under the claim of the record.
    """
    removals: list[Removal] = []
    deleted: list[str] = []
    pushed: list[Entry] = []
    started: list[StoredJob] = []
    released: list[ClaimRef] = []
    for entry, stored in zip(entries, store.read([entry.id for entry in entries]), strict=True):
        if stored is None or has_expired(stored.record, now) or stored.record.is_ended:
            removals.append(_removal_of_entry(entry, stored))
            if stored is None:
                deleted.append(entry.id)
        elif stored.record.status is Status.STARTED:
            started.append(stored)
        elif stored.version == entry.version and stored.record.queue == entry.queue:
            released.append(ClaimRef(id=entry.id, token=entry.token or ""))
        else:
            if stored.version <= entry.version:  # the id was used again
                removals.append(Removal(id=entry.id, version=entry.version))
            pushed.append(entry_of(stored, stored.record, stored.version))
    if removals:
        remove(queue, store, removals, deleted)
    if pushed:
        queue.push(pushed)
    if started:
        queue.push(
            [claimed_entry_of(stored) for stored in started], max(lease_of(one.record) for one in started)
        )
    if released:
        queue.release(released)
