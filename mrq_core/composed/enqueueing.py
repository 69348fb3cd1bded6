"""Storing new jobs in both halves: keys first, then the jobs, then their entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from mrq_core import failpoints
from mrq_core.composed import tickets, uniques
from mrq_core.contract.lifecycle import has_expired
from mrq_core.contract.messages import Enqueued, NewJob
from mrq_core.contract.pair import JobQueue, JobStore, KeyRequest
from mrq_core.errors import CallRefused


def enqueue(queue: JobQueue, store: JobStore, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """See `Broker.enqueue`."""
    if not jobs:
        return []
    store.recognize()  # before the queue notes that it belongs to this pair
    now = queue.now()
    firsts: dict[str, NewJob] = {}
    for job in jobs:
        firsts.setdefault(job.record.id, prepared(job, now))
    holders = _reserve(queue, store, firsts, now)
    failpoints.reach("composed.reserved")
    wanted = [job for job_id, job in firsts.items() if holders.get(job_id, job_id) == job_id]
    created: set[str] = set()
    for job, stored in zip(wanted, _store(queue, store, wanted), strict=True):
        holders[job.record.id] = stored.id
        if stored.created:
            created.add(stored.id)
    answers = []
    for job in jobs:
        job_id = job.record.id
        answers.append(Enqueued(id=holders.get(job_id, job_id), created=job_id in created))
        created.discard(job_id)
    return answers


def prepared(job: NewJob, now: datetime) -> NewJob:
    """The new job with its due time instead of a delay, and with its unique key in the record."""
    due_at = tickets.due_at(job, now)
    key = job.record.unique_key if job.unique is None else job.unique.key
    return replace(job, delay=None, record=replace(job.record, due_at=due_at, unique_key=key))


def _reserve(queue: JobQueue, store: JobStore, firsts: dict[str, NewJob], now: datetime) -> dict[str, str]:
    """The holders of the keys that these jobs request. A stored job gets no key: its id comes first."""
    keyed = {
        job_id: job.unique
        for job_id, job in firsts.items()
        if job.unique is not None and not job.unique.is_of_record
    }
    if not keyed:
        return {}
    found = store.read(list(keyed))
    there = {one.record.id for one in found if one is not None and not has_expired(one.record, now)}
    wanted = [KeyRequest(id=job_id, unique=unique) for job_id, unique in keyed.items() if job_id not in there]
    holders = uniques.reserve(queue, store, wanted, now)
    return {one.id: holder for one, holder in zip(wanted, holders, strict=True) if holder is not None}


def _store(queue: JobQueue, store: JobStore, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """Stores prepared jobs and pushes their entries.

    An existing job and the holder of a key until `record` get their entries too, because a crash of an
    earlier call may have prevented the push.
    """
    answers = store.insert(jobs)
    failpoints.reach("composed.inserted")
    entries = [tickets.entry_of_new(job) for job, one in zip(jobs, answers, strict=True) if one.created]
    there = dict.fromkeys(one.id for one in answers if not one.created)
    for stored in store.read(list(there)) if there else ():
        if stored is not None and tickets.is_waiting(stored.record):
            entries.append(tickets.entry_of(stored, stored.record, stored.version))
    if entries:
        try:
            queue.push(entries)
        except CallRefused as error:
            # They are not deleted again: another call may have answered meanwhile that these ids are queued.
            raise type(error)(
                f"{error}. The jobs of this call are stored nevertheless: once the queue takes writes again, "
                "workers find and run them within a minute; enqueue them again only under the same ids"
            ) from error
    return answers
