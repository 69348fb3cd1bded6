"""Storing new jobs with their entries."""

from __future__ import annotations

from collections.abc import Sequence

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
    row = rows.row_of(record)
    row["z"] = "w"  # though it may have no due time of its own yet
    if unique is None:
        how: object = False
    else:
        row["u"] = unique.key
        if record.unique_key != unique.key:
            row = {**rows.row_of(_with_key(record, unique.key)), "z": "w"}
        how = [unique.key, unique.until, round((unique.period or 0.0) * 1000)]
    delay = False if job.delay is None else round(job.delay * 1000)
    return [record.id, row, rows.params_of(record), how, delay]


def _with_key(record: JobRecord, key: str) -> JobRecord:
    from msgspec.structs import replace

    return replace(record, unique_key=key)
