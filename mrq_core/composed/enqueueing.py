"""Storing new jobs in both halves: keys first, then the jobs, then their entries."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from msgspec.structs import replace

from mrq_core import failpoints
from mrq_core.composed import places, uniques
from mrq_core.composed.jobs import Jobs
from mrq_core.contract.lifecycle import has_expired
from mrq_core.contract.messages import Enqueued, NewJob
from mrq_core.contract.pair import KeyRequest


def enqueue(jobs: Jobs, given: Sequence[NewJob]) -> list[Enqueued]:
    """See `Broker.enqueue`."""
    if not given:
        return []
    now = jobs.queue.now()
    firsts: dict[str, NewJob] = {}
    for job in given:
        firsts.setdefault(job.record.id, _with_key(places.due(job, now)))
    holders = _reserve(jobs, firsts, now)
    failpoints.reach("composed.reserved")
    wanted = [job for job_id, job in firsts.items() if holders.get(job_id, job_id) == job_id]
    created = {job.record.id for job, is_new in zip(wanted, jobs.enqueue(wanted), strict=True) if is_new}
    answers = []
    for job in given:
        job_id = job.record.id
        answers.append(Enqueued(id=holders.get(job_id, job_id), created=job_id in created))
        created.discard(job_id)
    return answers


def _with_key(job: NewJob) -> NewJob:
    if job.unique is None or job.record.unique_key == job.unique.key:
        return job
    return replace(job, record=replace(job.record, unique_key=job.unique.key))


def _reserve(jobs: Jobs, firsts: dict[str, NewJob], now: datetime) -> dict[str, str]:
    """Who holds the keys that these jobs want. A job that is there already gets none: its id comes first."""
    keyed = {job_id: job.unique for job_id, job in firsts.items() if job.unique is not None}
    if not keyed:
        return {}
    found = jobs.store.read(list(keyed))
    there = {one.record.id for one in found if one is not None and not has_expired(one.record, now)}
    wanted = [KeyRequest(id=job_id, unique=unique) for job_id, unique in keyed.items() if job_id not in there]
    holders = uniques.reserve(jobs.queue, jobs.store, wanted, now)
    return {one.id: holder for one, holder in zip(wanted, holders, strict=True) if holder is not None}
