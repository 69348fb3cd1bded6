"""The store half in memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from msgspec.structs import replace

from mrq_core.clock import Clock, from_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Enqueued, NewJob, Note, Settlement, Unique
from mrq_core.contract.pair import Entry, JobStore, Replacement, StoredJob, WriteResult
from mrq_core.contract.record import JobRecord
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.jobs.records import is_held
from mrq_core.testing.memory.services import MemoryServices


@dataclass(frozen=True, slots=True)
class MemoryJob:
    """See `mrq_core.contract.pair.StoredJob`."""

    record: JobRecord
    version: int
    unique: Unique | None


@dataclass(slots=True)
class StoreData:
    """The data that stores of one process share."""

    data: MemoryData = field(default_factory=MemoryData)
    versions: dict[str, int] = field(default_factory=dict)
    uniques: dict[str, Unique | None] = field(default_factory=dict)
    followups: dict[str, tuple[datetime, list[NewJob]]] = field(default_factory=dict)


class MemoryStore(MemoryServices, JobStore):
    """A store on `data`, which other stores of the same process may share."""

    def __init__(self, *, clock: Clock | None = None, data: StoreData | None = None) -> None:
        self._store = data or StoreData()
        super().__init__(clock=clock, data=self._store.data)

    # --- records -----------------------------------------------------------------------------

    def insert(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        with self.locked() as now:
            return [self._insert(job, now) for job in jobs]

    def _insert(self, job: NewJob, now: datetime) -> Enqueued:
        job_id = job.record.id
        if self._data.visible(job_id, now) is not None:
            return Enqueued(id=job_id, created=False)
        self._delete(job_id)
        if job.unique is not None and job.unique.is_of_record:
            holder = self._data.uniques.reserve(job.unique, job_id, now)
            if holder != job_id:
                return Enqueued(id=holder, created=False)
        self._put(job.record, 1)
        self._store.uniques[job_id] = job.unique
        return Enqueued(id=job_id, created=True)

    def _put(self, record: JobRecord, version: int) -> None:
        self._data.put(record, from_ms(self._clock.now_ms()))
        self._store.versions[record.id] = version

    def _delete(self, job_id: str) -> None:
        self._data.delete(job_id)
        for table in (self._store.versions, self._store.uniques, self._store.followups):
            table.pop(job_id, None)

    def read(self, ids: Sequence[str]) -> list[MemoryJob | None]:
        with self.locked():
            return [self._read(job_id) for job_id in ids]

    def _read(self, job_id: str) -> MemoryJob | None:
        record = self._data.get(job_id)
        if record is None:
            return None
        return MemoryJob(record, self._store.versions[job_id], self._store.uniques.get(job_id))

    def write(self, replacements: Sequence[Replacement[StoredJob]], now: datetime) -> list[WriteResult]:
        with self.locked():
            return [self._write(one, now) for one in replacements]

    def _write(self, one: Replacement[StoredJob], now: datetime) -> WriteResult:
        job_id = one.before.record.id
        found = self._read(job_id)
        if found is None or found.version != one.before.version:
            return WriteResult.CHANGED
        if found.record.queued_at != one.before.record.queued_at:  # a job of the same id, stored anew
            return WriteResult.CHANGED
        if one.after is None:
            self._delete(job_id)
            return WriteResult.DONE
        self._put(one.after, one.before.version + 1)
        if one.followups:
            self._store.followups[job_id] = (now, list(one.followups))
        if one.ask_to_stop:
            self._data.signals.append(job_id)
        return WriteResult.DONE

    def start(
        self, entries: Sequence[Entry], *, worker: str, lease: float, now: datetime
    ) -> list[JobRecord | None]:
        with self.locked():
            return [self._start(entry, worker, lease, now) for entry in entries]

    def _start(self, entry: Entry, worker: str, lease: float, now: datetime) -> JobRecord | None:
        record = self._data.get(entry.id)
        if record is None or record.is_ended or not record.status.is_waiting or record.queue != entry.queue:
            return None
        token = entry.token or ""
        nonce = token.partition(".")[2]
        is_next = token == lifecycle.make_token(record.claims + 1, nonce)
        if self._store.versions[entry.id] != entry.version or not is_next:
            return None
        after = lifecycle.claimed(record, now=now, worker=worker, nonce=nonce, lease=lease)
        self._put(after, entry.version + 1)
        return after

    def succeed(self, settlements: Sequence[Settlement], now: datetime) -> list[bool]:
        with self.locked():
            return [self._succeed(one, now) for one in settlements]

    def _succeed(self, settlement: Settlement, now: datetime) -> bool:
        record = self._data.get(settlement.id)
        if record is None or not is_held(record, settlement.token) or record.cancel_requested:
            return False
        self._put(lifecycle.settled(record, settlement.outcome, now), self._store.versions[settlement.id] + 1)
        return True

    def annotate(self, notes: Sequence[Note], now: datetime) -> list[bool]:
        with self.locked():
            answers = []
            for note in notes:
                record = self._data.get(note.id)
                answers.append(record is not None and is_held(record, note.token))
                if record is not None and answers[-1]:
                    noted = replace(record, progress=note.progress, updated_at=now)
                    self._put(noted, self._store.versions[note.id])
            return answers

    def unfinished(self, limit: int, *, before: datetime | None = None) -> list[tuple[str, list[NewJob]]]:
        with self.locked():
            return [
                (parent, jobs)
                for parent, (at, jobs) in self._store.followups.items()
                if before is None or at < before
            ][:limit]

    def finish(self, parent: str, followups: Sequence[str]) -> None:
        with self.locked():
            _, jobs = self._store.followups.get(parent, (None, []))
            if any(job.record.id in followups for job in jobs):
                del self._store.followups[parent]
