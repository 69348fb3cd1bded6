"""Unique keys: which job holds each key, and until when."""

from __future__ import annotations

from datetime import datetime

from mrq_core.clock import after
from mrq_core.contract.messages import Unique
from mrq_core.contract.record import JobRecord, Status

_Key = tuple[str, bool]
"""A key, and whether it is held until `record`: such keys are separate from all others."""


def _key_of(unique: Unique) -> _Key:
    return unique.key, unique.is_of_record


class UniqueKeys:
    """The unique keys of a broker. The queue of a pair keeps its own."""

    def __init__(self) -> None:
        self._wanted: dict[str, Unique] = {}
        """By job id: the unique key with which the job was enqueued."""
        self._held: dict[_Key, tuple[str, datetime | None]] = {}
        """By unique key: the job that holds the key, and the end of a period or of the record."""

    def reserve(self, unique: Unique, job_id: str, now: datetime) -> str:
        """Reserves a free key for the job. Returns the id of the job that holds the key now."""
        holder = self._holder(_key_of(unique), now)
        if holder is None:
            holder, until = job_id, None
            if unique.until == "period" and unique.period is not None:
                until = after(now, unique.period)
            self._held[_key_of(unique)] = (job_id, until)
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
            return self._holder(_key_of(unique), now) in (None, job_id)
        return self.reserve(unique, job_id, now) == job_id

    def written(self, record: JobRecord, now: datetime) -> None:
        """Frees the key of a job that was claimed (until `queued`) or has ended (`queued` and `done`). A key
        until `record` ends with the retention time of the record."""
        unique = self._wanted.get(record.id)
        if unique is None or self._holder(_key_of(unique), now) != record.id:
            return
        was_claimed = record.status is Status.STARTED
        if unique.is_of_record:
            self._held[_key_of(unique)] = (record.id, record.expires_at)
        elif (unique.until == "queued" and (was_claimed or record.is_ended)) or (
            unique.until == "done" and record.is_ended
        ):
            del self._held[_key_of(unique)]

    def forget(self, job_id: str, *, keep_period: bool) -> None:
        """Frees the key of a deleted job. `keep_period`: unless the key is held for a period."""
        unique = self._wanted.pop(job_id, None)
        if unique is None or (keep_period and unique.until == "period"):
            return
        if self._held.get(_key_of(unique), ("", None))[0] == job_id:
            del self._held[_key_of(unique)]

    def _holder(self, key: _Key, now: datetime) -> str | None:
        job_id, until = self._held.get(key, (None, None))
        if job_id is not None and until is not None and until <= now:
            del self._held[key]
            return None
        return job_id
