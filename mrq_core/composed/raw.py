"""A raw queue of a pair: parameters in the queue, the records of their jobs in the store, which is written
first.

What dies between the two leaves a started job without an entry, whose parameter is still claimed for it: the
parameter is delivered again under the same id, and its next claim takes the job over.
"""

from __future__ import annotations

from collections.abc import Sequence

from mrq_core import failpoints
from mrq_core.composed import tickets
from mrq_core.composed.jobs import Jobs
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import NewJob, RawClaim, RawItem
from mrq_core.contract.pair import Replacement, StoredJob, WriteResult
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers.raw_arguments import checks_raw_arguments


@checks_raw_arguments
class ComposedRawQueue(RawQueue):
    """Hands everything but the admission on to the queue."""

    def __init__(self, name: str, jobs: Jobs) -> None:
        super().__init__(name)
        self._jobs = jobs
        self._line = jobs.queue.raw(name)

    def push(self, items: Sequence[RawItem]) -> list[bool]:
        return self._line.push(items)

    def claim(self, limit: int, lease: float, worker: str, pushback: float | None = None) -> list[RawClaim]:
        return self._line.claim(limit, lease, worker, pushback)

    def renew(self, claims: Sequence[RawClaim], lease: float) -> list[bool]:
        return self._line.renew(claims, lease)

    def settle(self, claims: Sequence[RawClaim], due_again: Sequence[float | None]) -> list[bool]:
        return self._line.settle(claims, due_again)

    def peek(self, limit: int, offset: int = 0) -> list[RawItem]:
        return self._line.peek(limit, offset)

    def remove(self, params: Sequence[str]) -> list[bool]:
        return self._line.remove(params)

    def size(self) -> int:
        return self._line.size()

    def histogram(self, start: float, stop: float, buckets: int) -> list[int]:
        return self._line.histogram(start, stop, buckets)

    # --- admission ---------------------------------------------------------------------------

    def admit(self, claims: Sequence[tuple[RawClaim, JobRecord]], lease: float) -> list[bool]:
        jobs = self._jobs
        now = jobs.queue.now()
        records = [
            lifecycle.admitted(record, job_id=claim.job_id, token=claim.token, now=now, lease=lease)
            for claim, record in claims
        ]
        jobs.store.insert([NewJob(record=record) for record in records])
        failpoints.reach("composed.inserted")
        found = jobs.store.read([record.id for record in records])
        answers = [False] * len(claims)
        ours: dict[int, StoredJob] = {}
        for index, (record, stored) in enumerate(zip(records, found, strict=True)):
            stored = self._taken_over(stored, record)
            if stored is None:
                continue
            if stored.record.status is Status.STARTED and stored.record.token == record.token:
                ours[index] = stored
            else:
                answers[index] = lifecycle.was_admitted_by(stored.record, claims[index][0].token)
        entries = [(claims[index][0], tickets.claimed_entry_of(stored)) for index, stored in ours.items()]
        admitted = jobs.queue.admit(self.name, entries, lease) if entries else []
        for (index, stored), is_admitted in zip(ours.items(), admitted, strict=True):
            answers[index] = is_admitted
            if not is_admitted:  # another worker has the parameter now, and will store the job anew
                jobs.store.write([Replacement(stored, None)], now)
        return answers

    def _taken_over(self, stored: StoredJob | None, record: JobRecord) -> StoredJob | None:
        """The job under this claim, if an earlier delivery of its parameter has stored it and died."""
        if (
            stored is None
            or stored.record.status is not Status.STARTED
            or stored.record.claims >= record.claims
        ):
            return stored
        store = self._jobs.store
        written = store.write([Replacement(stored, record)], record.updated_at)
        return store.read([record.id])[0] if written == [WriteResult.DONE] else None
