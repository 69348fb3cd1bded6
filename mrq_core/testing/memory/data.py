"""The tables of the model, and the rules that every write of a record follows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime

from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Limit
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers.limits import Spacing
from mrq_core.drivers.rollups import Cell, CellKey
from mrq_core.testing.memory.jobs.records import copy
from mrq_core.testing.memory.jobs.uniques import UniqueKeys
from mrq_core.testing.memory.raw.claiming import RawClaims
from mrq_core.testing.memory.shared.logs import JobLog
from mrq_core.testing.memory.shared.state import StateItems

Locked = Callable[[], AbstractContextManager[datetime]]
"""Holds the lock of the data; gives the time of the call."""


@dataclass(frozen=True, slots=True)
class Parking:
    """The limit key that has no room for a job, the time since which the job waits, and its earlier due
    time."""

    key: str
    since: datetime
    due_at: datetime


class LimitData:
    """The state of limits between two calls."""

    def __init__(self) -> None:
        self.known: dict[str, Limit] = {}
        """By rule: the limits of the latest claim."""
        self.parked: dict[str, Parking] = {}
        """By job id: parked jobs, which have no due time."""
        self.released: dict[str, Parking] = {}
        """By job id: jobs that were parked, are due again, and are not claimed yet."""
        self.allowed: dict[str, datetime] = {}
        """By job id: the time from which its rates let the job start."""
        self.rates: dict[str, tuple[int, Spacing]] = {}
        """By limit key: the time of the next claim if all claims were evenly spaced, in Unix microseconds,
        and the spacing that it was counted in."""
        self.starts: dict[str, int] = {}
        """By limit key: the same time by the jobs that have started, in the same spacing."""

    def forget(self, job_id: str) -> None:
        """Drops the reservations of a job that was claimed, has ended or is deleted."""
        for table in (self.parked, self.released, self.allowed):
            table.pop(job_id, None)


class MemoryData:
    """The data that brokers of one process share. A caller holds `lock`.

    A job's record is also its queue entry: a waiting or started job is an entry of its record's queue.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.records: dict[str, JobRecord] = {}
        self.entries: dict[str, dict[str, JobRecord]] = {}
        """By queue and job id: the records of waiting and started jobs."""
        self.uniques = UniqueKeys()
        self.limits = LimitData()
        self.rotation: dict[str, str] = {}
        """By tree: the subqueue that the latest claim took from last."""
        self.queues: set[str] = set()
        self.raw: dict[str, RawClaims] = {}
        self.state = StateItems()
        self.logs: dict[str, JobLog] = {}
        self.metrics: dict[CellKey, Cell] = {}
        self.signals: list[str] = []
        """Ids of jobs to interrupt, in the order of the requests."""

    def get(self, job_id: str) -> JobRecord | None:
        """A copy of the record, expired or not."""
        record = self.records.get(job_id)
        return None if record is None else copy(record)

    def visible(self, job_id: str, now: datetime) -> JobRecord | None:
        """A copy of the record. None: the job is unknown or has expired."""
        record = self.get(job_id)
        return None if record is None or lifecycle.has_expired(record, now) else record

    def all(self) -> list[JobRecord]:
        """All records by id, expired records included. The stored objects: do not change them."""
        return [record for _, record in sorted(self.records.items())]

    def put(self, record: JobRecord, now: datetime) -> None:
        """Writes a record and its entry, and frees limits and unique keys that the job no longer needs."""
        self._drop_entry(record.id)
        self.records[record.id] = stored = copy(record)
        self.queues.add(record.queue)
        if not record.is_ended:
            self.entries.setdefault(record.queue, {})[record.id] = stored
        if record.is_ended or record.status is Status.STARTED:
            self.limits.forget(record.id)
        elif record.due_at is not None:
            self.limits.parked.pop(record.id, None)
        self.uniques.written(record, now)

    def delete(self, job_id: str, *, keep_period: bool = False) -> None:
        """Removes a job: record, entry, logs, limits and unique key. `keep_period`: unless the key is held
        for a period."""
        self._drop_entry(job_id)
        self.records.pop(job_id, None)
        self.logs.pop(job_id, None)
        self.limits.forget(job_id)
        self.uniques.forget(job_id, keep_period=keep_period)

    def forget_queues(self) -> None:
        """Forgets the names of queues without jobs and parameters."""
        used = {record.queue for record in self.records.values()}
        used |= {name for name, raw in self.raw.items() if raw.leases or len(raw.items)}
        self.queues &= used

    def _drop_entry(self, job_id: str) -> None:
        before = self.records.get(job_id)
        if before is not None and not before.is_ended:
            del self.entries[before.queue][job_id]
            if not self.entries[before.queue]:
                del self.entries[before.queue]
