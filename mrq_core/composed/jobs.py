"""A job as its two halves know it, and changes of both: the store first, then the queue.

What dies in between leaves an entry that starts nothing, because it is not of the version that is stored, or
a job without an entry. The first is put right by the claim that meets it, the second by `repairing`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from msgspec.structs import replace

from mrq_core import failpoints
from mrq_core.composed import enqueueing, tickets, uniques
from mrq_core.contract.messages import NewJob
from mrq_core.contract.pair import (
    Entry,
    JobQueue,
    JobStore,
    KeyRequest,
    Removal,
    Replacement,
    StoredJob,
    WriteResult,
)
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import CallRefused


class Job(NamedTuple):
    """A job as it was read. In `record` the times are those of its entry."""

    stored: StoredJob
    record: JobRecord


class Jobs:
    """The jobs of a pair. See `mrq_core.drivers.replacing.Records`."""

    def __init__(self, queue: JobQueue, store: JobStore) -> None:
        self.queue = queue
        self.store = store

    # --- reading -----------------------------------------------------------------------------

    def read(self, ids: Sequence[str]) -> tuple[datetime, list[Job | None]]:
        """The queue's time, and the jobs, expired ones too."""
        found = self.store.read(ids)
        records = iter(self.with_times([stored.record for stored in found if stored is not None]))
        now = self.queue.now()
        return now, [None if stored is None else Job(stored, next(records)) for stored in found]

    def with_times(self, records: Sequence[JobRecord]) -> list[JobRecord]:
        """The records with the times that the queue alone knows: the end of a lease, and when a job with
        limits is due. One call where there are such jobs, and none otherwise."""
        asked = list(dict.fromkeys(record.id for record in records if _is_the_queues(record)))
        if not asked:
            return list(records)
        entries = dict(zip(asked, self.queue.entries(asked), strict=True))
        return [_with_time(record, entries.get(record.id)) for record in records]

    # --- writing -----------------------------------------------------------------------------

    def write(self, replacements: Sequence[Replacement[Job]], now: datetime) -> list[WriteResult]:
        """Writes each if it may, and then tells the queue of those that were written."""
        answers = [WriteResult.HELD] * len(replacements)
        chosen = self._with_their_keys(replacements, now)
        written = self.store.write([_of_store(replacements[index], now) for index in chosen], now)
        failpoints.reach("composed.written")
        for index, answer in zip(chosen, written, strict=True):
            answers[index] = answer
        done = [one for one, answer in zip(replacements, answers, strict=True) if answer is WriteResult.DONE]
        self._tell_queue(done)
        for one in done:
            if one.followups:
                failpoints.reach("composed.followups")
                self.finish(one.before.record.id, [enqueueing.prepared(job, now) for job in one.followups])
        return answers

    def finish(self, parent: str, followups: Sequence[NewJob]) -> None:
        """Enqueues the follow-ups of a job, and then removes them from its record.

        Their ids make a repetition harmless. A follow-up whose unique key another job holds is dropped."""
        enqueueing.enqueue(self.queue, self.store, followups)
        failpoints.reach("composed.followed")
        self.store.finish(parent, [job.record.id for job in followups])

    def _with_their_keys(self, replacements: Sequence[Replacement[Job]], now: datetime) -> list[int]:
        """The places of those that hold the unique key that they need again, or need none."""
        wanted = {
            index: again for index, one in enumerate(replacements) if (again := _asked(one)) is not None
        }
        holders = uniques.reserve(self.queue, self.store, list(wanted.values()), now)
        refused = {
            index
            for (index, one), holder in zip(wanted.items(), holders, strict=True)
            if holder not in (None, one.id) and replacements[index].after is not None
        }
        return [index for index in range(len(replacements)) if index not in refused]

    def _tell_queue(self, done: Sequence[Replacement[Job]]) -> None:
        entries: list[Entry] = []
        removals: list[Removal] = []
        deleted: list[str] = []
        for one in done:
            stored, after = one.before.stored, one.after
            if after is None:
                key = uniques.of_queue(stored.unique)
                removals.append(Removal(id=stored.record.id, version=stored.version, key=key))
                deleted.append(stored.record.id)
            elif after.is_ended:
                removals.append(tickets.removal_of(stored))
            elif after.status is not Status.STARTED:
                entries.append(tickets.entry_of(stored, after, stored.version + 1))
        try:
            if removals:
                tickets.remove(self.queue, self.store, removals, deleted)
            if entries:
                self.queue.push(entries)
        except CallRefused as error:
            raise type(error)(
                f"{error}. The records are changed nevertheless: once the queue takes writes again, it "
                "follows within a minute"
            ) from error


def _asked(one: Replacement[Job]) -> KeyRequest | None:
    """The key that a job needs again. A job that is deleted requests its period without extending it; from
    then on the reservation of the period is not confirmed."""
    unique = one.before.stored.unique
    is_period = unique is not None and unique.until == "period"
    if one.reserve or (one.after is None and is_period):
        return uniques.again(one.before.stored)
    return None


def _of_store(one: Replacement[Job], now: datetime) -> Replacement[StoredJob]:
    """The replacement as the store takes it. Delays of follow-ups count from now."""
    followups = tuple(enqueueing.prepared(job, now) for job in one.followups)
    return Replacement(one.before.stored, one.after, followups, ask_to_stop=one.ask_to_stop)


def _is_the_queues(record: JobRecord) -> bool:
    """Whether the queue alone knows when the job's entry is due."""
    return record.status is Status.STARTED or (tickets.is_waiting(record) and bool(record.limit_keys))


def _with_time(record: JobRecord, entry: Entry | None) -> JobRecord:
    if entry is None or not _is_the_queues(record):
        return record
    if record.status is Status.STARTED:
        is_of_claim = entry.token == record.token
        return replace(record, due_at=entry.due_at, lease_until=entry.due_at) if is_of_claim else record
    return replace(record, due_at=entry.due_at) if entry.token is None else record
