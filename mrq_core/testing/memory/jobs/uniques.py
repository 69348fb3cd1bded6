"""Unique keys: which job holds each key, and until when."""

from __future__ import annotations

from datetime import datetime

from mrq_core.clock import after
from mrq_core.contract.messages import Unique
from mrq_core.contract.record import JobRecord, Status


class UniqueKeys:
    """The unique keys of a broker. A queue and a store that form a pair keep their own."""

    def __init__(self) -> None:
        self._wanted: dict[str, Unique] = {}
        """By job id: the unique key with which the job was enqueued."""
        self._held: dict[str, tuple[str, datetime | None]] = {}
        """By unique key: the job that holds the key, and the end of a period."""

    def reserve(self, unique: Unique, job_id: str, now: datetime) -> str:
        """Reserves a free key for the job. Returns the id of the job that holds the key now."""
        holder = self._holder(unique.key, now)
        if holder is None:
            holder, until = job_id, None
            if unique.until == "period" and unique.period is not None:
                until = after(now, unique.period)
            self._held[unique.key] = (job_id, until)
        if holder == job_id:
            self._wanted[job_id] = unique
        return holder

    def reserve_again(self, job_id: str, now: datetime) -> bool:
        """Reserves the key of a requeued job. False: another job holds the key.

        A key with a period is not reserved again, because the period counts from the enqueue.
        """
        unique = self._wanted.get(job_id)
        if unique is None:
            return True
        if unique.until == "period":
            return self._holder(unique.key, now) in (None, job_id)
        return self.reserve(unique, job_id, now) == job_id

    def written(self, record: JobRecord, now: datetime) -> None:
        """Frees the key of a job that was claimed (until `queued`) or has ended (`queued` and `done`)."""
        unique = self._wanted.get(record.id)
        if unique is None or self._holder(unique.key, now) != record.id:
            return
        was_claimed = record.status is Status.STARTED
        if (unique.until == "queued" and (was_claimed or record.is_ended)) or (
            unique.until == "done" and record.is_ended
        ):
            del self._held[unique.key]

    def forget(self, job_id: str, *, keep_period: bool) -> None:
        """Frees the key of a deleted job. `keep_period`: unless the key is held for a period."""
        unique = self._wanted.pop(job_id, None)
        if unique is None or (keep_period and unique.until == "period"):
            return
        if self._held.get(unique.key, ("", None))[0] == job_id:
            del self._held[unique.key]

    def _holder(self, key: str, now: datetime) -> str | None:
        job_id, until = self._held.get(key, (None, None))
        if job_id is not None and until is not None and until <= now:
            del self._held[key]
            return None
        return job_id
