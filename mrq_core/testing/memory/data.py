"""What the in-memory broker holds, and the few rules that every change of a record follows."""

from __future__ import annotations

import threading
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.codec import JsonObject, decode, encode
from mrq_core.job import JobRecord, Status
from mrq_core.messages import Unique, Wanted
from mrq_core.testing.memory.logs import JobLog
from mrq_core.testing.memory.state import StateItems


class MemoryData:
    """Everything that brokers on the same data share. Whoever touches it holds `lock`.

    A job's entry in its queue is its record: a waiting or started one is in the queue of that name.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.records: dict[str, JobRecord] = {}
        self.uniques: dict[str, Unique] = {}
        """By job id: the unique key that the job came with."""
        self.held: dict[str, tuple[str, datetime | None]] = {}
        """By unique key: the job that holds it, and until when."""
        self.logs: dict[str, JobLog] = {}
        self.queues: set[str] = set()
        self.turns: dict[str, str] = {}
        """By tree: the subqueue that had the last turn."""
        self.paused: frozenset[str] = frozenset()
        self.pauses_version = 0
        self.signals: list[str] = []
        """Ids of jobs to interrupt, in the order of the requests."""
        self.state = StateItems()

    def get(self, job_id: str) -> JobRecord | None:
        """The record, expired or not. A copy: what a caller does to it changes nothing here."""
        record = self.records.get(job_id)
        return None if record is None else _copy(record)

    def visible(self, job_id: str, now: datetime) -> JobRecord | None:
        """The record, unless it has expired."""
        record = self.get(job_id)
        return None if record is None or has_expired(record, now) else record

    def all(self) -> list[JobRecord]:
        """All records, expired ones too, by id."""
        return [_copy(record) for _, record in sorted(self.records.items())]

    def put(self, record: JobRecord, now: datetime) -> None:
        """Writes a record, and lets its unique key go if it is time."""
        self.records[record.id] = _copy(record)
        self.queues.add(record.queue)
        unique = self.uniques.get(record.id)
        if unique is not None and self.holder(unique.key, now) == record.id:
            was_claimed = record.status is Status.STARTED
            if (unique.until == "queued" and (was_claimed or record.is_ended)) or (
                unique.until == "done" and record.is_ended
            ):
                del self.held[unique.key]

    def delete(self, job_id: str, *, keep_period: bool = False) -> None:
        """Removes a job: record, entry, logs and keys, or all but a key held for a period."""
        self.records.pop(job_id, None)
        self.logs.pop(job_id, None)
        unique = self.uniques.pop(job_id, None)
        if unique is None or (keep_period and unique.until == "period"):
            return
        if self.held.get(unique.key, ("", None))[0] == job_id:
            del self.held[unique.key]

    def holder(self, key: str, now: datetime) -> str | None:
        """The job that holds the unique key."""
        job_id, until = self.held.get(key, (None, None))
        if job_id is not None and until is not None and until <= now:
            del self.held[key]
            return None
        return job_id

    def reserve(self, unique: Unique, job_id: str, now: datetime) -> str:
        """Gives the job the key if it is free; answers with the holder. A job holds its own key on."""
        holder = self.holder(unique.key, now)
        if holder is not None:
            return holder
        until = None
        if unique.until == "period" and unique.period is not None:
            until = after(now, unique.period)
        self.held[unique.key] = (job_id, until)
        return job_id

    def due(self, wanted: tuple[Wanted, ...], now: datetime) -> bool:
        """Whether something in these queues or trees is due."""
        return any(
            record.due_at is not None
            and record.due_at <= now
            and any(is_wanted(record.queue, one) for one in wanted)
            for record in self.all()
        )


def _copy(record: JobRecord) -> JobRecord:
    """The record with values of its own: the rest of it is frozen."""
    return replace(
        record,
        params=_copy_object(record.params),
        meta=_copy_object(record.meta),
        result=decode(encode(record.result)),
    )


def _copy_object(value: JsonObject) -> JsonObject:
    copied = decode(encode(value))
    assert isinstance(copied, dict)
    return copied


def has_expired(record: JobRecord, now: datetime) -> bool:
    """Whether the time that the record is kept is over."""
    return record.expires_at is not None and record.expires_at <= now


def is_in(queue: str, name: str) -> bool:
    """Whether a queue is the named one, or a subqueue of the named tree."""
    return queue.startswith(name) and queue != name if name.endswith("/") else queue == name


def is_wanted(queue: str, wanted: Wanted) -> bool:
    """Whether the queue is, or is in, what is wanted, and is not left out."""
    return is_in(queue, wanted.name) and not any(is_in(queue, name) for name in wanted.exclude)
