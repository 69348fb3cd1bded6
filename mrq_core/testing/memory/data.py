"""What the in-memory broker holds, and the few rules that every change of a record follows."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract import lifecycle
from mrq_core.contract.codec import JsonObject, decode, encode
from mrq_core.contract.messages import Limit, Unique, Wanted
from mrq_core.contract.naming import is_covered, is_in
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing.memory.logs import JobLog
from mrq_core.testing.memory.raw_items import RawItems
from mrq_core.testing.memory.state import StateItems


@dataclass(frozen=True, slots=True)
class Parked:
    """A job that waits for room under a limit key, and the due time that it had before."""

    key: str
    since: datetime
    due_at: datetime


class LimitData:
    """What is remembered of limits between two calls."""

    def __init__(self) -> None:
        self.known: dict[str, Limit] = {}
        """By rule: the limits that the latest claim named."""
        self.parked: dict[str, Parked] = {}
        """By job id: those that have no due time now."""
        self.passed: dict[str, Parked] = {}
        """By job id: those that were let go, and not claimed yet."""
        self.turns: dict[str, datetime] = {}
        """By job id: the turn that is reserved for the job under its rates."""
        self.rates: dict[str, int] = {}
        """By limit key: when its next claim would come in time if all came evenly, in Unix milliseconds."""

    def forget(self, job_id: str) -> None:
        """The job runs, has ended or is gone: what was reserved for it is used up."""
        for table in (self.parked, self.passed, self.turns):
            table.pop(job_id, None)


class MemoryData:
    """Everything that brokers on the same data share. Whoever touches it holds `lock`.

    A job's entry in its queue is its record: a waiting or started one is in the queue of that name.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.records: dict[str, JobRecord] = {}
        self.entries: dict[str, dict[str, JobRecord]] = {}
        """By queue and job id: the records of jobs that are to run or running."""
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
        self.limits = LimitData()
        self.raw: dict[str, RawItems] = {}
        self.metrics: dict[tuple[int, str], float] = {}
        """By minute, counted from 1970, and name."""

    def get(self, job_id: str) -> JobRecord | None:
        """The record, expired or not. A copy: what a caller does to it changes nothing here."""
        record = self.records.get(job_id)
        return None if record is None else copy(record)

    def visible(self, job_id: str, now: datetime) -> JobRecord | None:
        """The record, unless it has expired."""
        record = self.get(job_id)
        return None if record is None or lifecycle.has_expired(record, now) else record

    def all(self) -> list[JobRecord]:
        """All records, expired ones too, by id. No copies: for looking only."""
        return [record for _, record in sorted(self.records.items())]

    def entries_in(self, name: str) -> Iterator[JobRecord]:
        """The entries of a queue or tree, due or not, claimed or not. No copies: for looking only."""
        if not name.endswith("/"):
            yield from self.entries.get(name, {}).values()
            return
        for queue, entries in self.entries.items():
            if is_in(queue, name):
                yield from entries.values()

    def put(self, record: JobRecord, now: datetime) -> None:
        """Writes a record, and lets its unique key go if it is time."""
        self._drop_entry(record.id)
        self.records[record.id] = stored = copy(record)
        self.queues.add(record.queue)
        if not record.is_ended:
            self.entries.setdefault(record.queue, {})[record.id] = stored
        if record.is_ended or record.status is Status.STARTED:
            self.limits.forget(record.id)
        elif record.due_at is not None:
            self.limits.parked.pop(record.id, None)
        unique = self.uniques.get(record.id)
        if unique is not None and self.holder(unique.key, now) == record.id:
            was_claimed = record.status is Status.STARTED
            if (unique.until == "queued" and (was_claimed or record.is_ended)) or (
                unique.until == "done" and record.is_ended
            ):
                del self.held[unique.key]

    def delete(self, job_id: str, *, keep_period: bool = False) -> None:
        """Removes a job: record, entry, logs and keys, or all but a key held for a period."""
        self._drop_entry(job_id)
        self.records.pop(job_id, None)
        self.logs.pop(job_id, None)
        self.limits.forget(job_id)
        unique = self.uniques.pop(job_id, None)
        if unique is None or (keep_period and unique.until == "period"):
            return
        if self.held.get(unique.key, ("", None))[0] == job_id:
            del self.held[unique.key]

    def _drop_entry(self, job_id: str) -> None:
        before = self.records.get(job_id)
        if before is not None and not before.is_ended:
            del self.entries[before.queue][job_id]
            if not self.entries[before.queue]:
                del self.entries[before.queue]

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
            record.due_at is not None and record.due_at <= now and is_wanted(record.queue, one)
            for one in wanted
            for record in self.entries_in(one.name)
        ) or any(
            items.has_due(now)
            for queue, items in self.raw.items()
            if any(is_wanted(queue, one) for one in wanted)
        )


def copy(record: JobRecord) -> JobRecord:
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


def is_wanted(queue: str, wanted: Wanted) -> bool:
    """Whether the queue is, or is in, what is wanted, and is not left out."""
    return is_in(queue, wanted.name) and not is_covered(queue, wanted.exclude)
