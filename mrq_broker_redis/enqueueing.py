"""Storing new jobs with their entries."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from mrq_broker_redis import rows
from mrq_broker_redis.connection import Connection
from mrq_core.job import JobRecord
from mrq_core.messages import Enqueued, NewJob

BATCH = 200
"""How many jobs one script stores: a longer one would keep others waiting."""


def enqueue(connection: Connection, jobs: Sequence[NewJob]) -> list[Enqueued]:
    """See `Broker.enqueue`."""
    answers: list[Enqueued] = []
    for start in range(0, len(jobs), BATCH):
        part = jobs[start : start + BATCH]
        # The ids make a repetition harmless.
        found = connection.run("enqueue", [_new(job) for job in part], repeatable=True)
        answers += [
            Enqueued(id=holder.decode(), created=bool(created))
            for holder, created in zip(found[::2], found[1::2], strict=True)
        ]
    return answers


def followup(record: JobRecord) -> object:
    """A job that follows from another's outcome, as the scripts take it."""
    return _new(NewJob(record=record))


def _new(job: NewJob) -> object:
    record, unique = job.record, job.unique
    how: object = False
    if unique is not None:
        record = record if record.unique_key == unique.key else replace(record, unique_key=unique.key)
        how = [unique.key, unique.until, round((unique.period or 0.0) * 1000)]
    row = rows.row_of(record)
    row["z"] = "w"  # though it may have no due time of its own yet
    delay = False if job.delay is None else round(job.delay * 1000)
    return [record.id, row, rows.params_of(record), how, delay]
