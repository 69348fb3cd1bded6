"""Storing new jobs with their entries."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from mrq_broker_redis.jobs import records
from mrq_broker_redis.server import layout
from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.server.layout import Contents
from mrq_core.clock import to_ms
from mrq_core.contract.messages import Enqueued, NewJob
from mrq_core.contract.record import Status

_QUEUED = str(Status.QUEUED)
_Group = tuple[str, str, int, bool]
"""The queue, the path and the priority of jobs, and whether they have search keys."""
BATCH = 200
"""The most jobs of one script. The server runs no other script meanwhile."""


def enqueue(connection: Connection, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """See `Broker.enqueue`. The ids make a repetition harmless."""
    layout.ensure(connection, Contents.JOBS)
    answers: list[Enqueued] = []
    for start in range(0, len(jobs), BATCH):
        part = jobs[start : start + BATCH]
        store = _ordinary_ones if all(map(_is_ordinary, part)) else _each
        answers += store(connection, part)
    return answers


def _ordinary_ones(connection: Connection, jobs: Sequence[NewJob]) -> list[Enqueued]:
    groups: dict[_Group, int] = {}
    listed = [_ordinary(job, groups) for job in jobs]
    named = [[_QUEUED, queue, path, str(-priority), has_keys] for queue, path, priority, has_keys in groups]
    stored = connection.run("enqueue", [named, listed], repeatable=True)
    answers = [Enqueued(id=job.record.id, created=True) for job in jobs]
    existing = [index for index, is_new in enumerate(stored) if not is_new]
    if existing:  # the other script replaces expired jobs
        again = _each(connection, [jobs[index] for index in existing])
        for index, answer in zip(existing, again, strict=True):
            answers[index] = answer
    return answers


def _each(connection: Connection, jobs: Sequence[NewJob]) -> list[Enqueued]:
    found = connection.run("enqueue_each", [new(job) for job in jobs], repeatable=True)
    return [
        Enqueued(id=holder.decode(), created=bool(created))
        for holder, created in zip(found[::2], found[1::2], strict=True)
    ]


def _is_ordinary(job: NewJob) -> bool:
    """Whether the job has no optional field, so that a shorter script can store it."""
    record = job.record
    return (
        job.unique is None
        and record.status is Status.QUEUED
        and not (
            record.limit_keys
            or record.at_most_once
            or record.schedule
            or record.exception_type is not None
            or record.claims
            or record.unique_key
            or record.expires_at
            or record.cancel_requested
        )
    )


def _ordinary(job: NewJob, groups: dict[_Group, int]) -> object:
    record = job.record
    has_keys = bool(record.search_keys)
    group = groups.setdefault((record.queue, record.path, record.priority, has_keys), len(groups) + 1)
    due = False if record.due_at is None else str(to_ms(record.due_at))
    delay = False if job.delay is None else round(job.delay * 1000)
    fields = [record.id, group, records.data_of(record), due, str(to_ms(record.queued_at)), delay]
    if has_keys:
        fields.append(records.search_keys_of(record))
    return fields


def new(job: NewJob) -> object:
    """A new job as an argument of a script."""
    record, unique = job.record, job.unique
    how: object = False
    if unique is not None:
        record = record if record.unique_key == unique.key else replace(record, unique_key=unique.key)
        how = [unique.key, unique.until, round((unique.period or 0.0) * 1000)]
    row = records.row_of(record)
    row["z"] = "w"  # waiting, also while the script still has to set the due time
    delay = False if job.delay is None else round(job.delay * 1000)
    keys = records.search_keys_of(record) or False
    return [record.id, row, records.params_of(record), how, delay, keys]
