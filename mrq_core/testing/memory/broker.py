"""The whole contract of a broker over plain dicts."""

from __future__ import annotations

from collections.abc import Sequence

from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import (
    Action,
    AddedKeys,
    Applied,
    Cancel,
    ChangeResult,
    Claimed,
    ClaimRef,
    ClaimRequest,
    Edit,
    Enqueued,
    Move,
    NewJob,
    Note,
    Remove,
    Requeue,
    Settlement,
    Wanted,
)
from mrq_core.contract.queries import JobFilter, QueueCounts, QueuePosition
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord
from mrq_core.testing.memory.jobs import (
    changing,
    claiming,
    enqueueing,
    positions,
    renewing,
    searching,
    settling,
    totals,
)
from mrq_core.testing.memory.raw.queue import MemoryRawQueue
from mrq_core.testing.memory.services import MemoryServices
from mrq_core.testing.memory.shared import waiting


class MemoryBroker(MemoryServices, Broker):
    """A broker on `data`, which other brokers of the same process may share.

    Every method holds the one lock of the data.
    """

    is_shared = False

    # --- jobs --------------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        with self.locked() as now:
            return [enqueueing.enqueue(self._data, job, now) for job in jobs]

    def claim(self, request: ClaimRequest) -> Claimed:
        with self.locked() as now:
            return claiming.claim(self._data, request, now)

    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
        with self.locked() as now:
            return [renewing.renew(self._data, claim, lease, now) for claim in claims]

    def annotate(self, notes: Sequence[Note]) -> list[bool]:
        with self.locked() as now:
            return [renewing.annotate(self._data, note, now) for note in notes]

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        with self.locked() as now:
            return [settling.settle(self._data, settlement, now) for settlement in settlements]

    # --- changes by operators and rules --------------------------------------------------------

    def requeue(self, ids: Sequence[str], how: Requeue) -> list[ChangeResult]:
        return self._change(ids, how)

    def cancel(self, ids: Sequence[str], how: Cancel) -> list[ChangeResult]:
        return self._change(ids, how)

    def move(self, ids: Sequence[str], how: Move) -> list[ChangeResult]:
        return self._change(ids, how)

    def edit(self, edits: Sequence[Edit]) -> list[ChangeResult]:
        with self.locked() as now:
            return [changing.edit(self._data, one, now) for one in edits]

    def remove(self, ids: Sequence[str]) -> list[ChangeResult]:
        return self._change(ids, Remove())

    def _change(self, ids: Sequence[str], action: Action) -> list[ChangeResult]:
        with self.locked() as now:
            return [changing.change(self._data, job_id, action, now) for job_id in ids]

    def add_search_keys(self, added: Sequence[AddedKeys]) -> list[ChangeResult]:
        with self.locked() as now:
            return [changing.add_search_keys(self._data, one, now) for one in added]

    def apply(
        self, wanted: JobFilter, action: Action, *, limit: int = 1000, cursor: str | None = None
    ) -> Applied:
        with self.locked() as now:
            return searching.apply(self._data, wanted, action, now, limit=limit, cursor=cursor)

    # --- queries -----------------------------------------------------------------------------

    def get(self, ids: Sequence[str]) -> list[JobRecord | None]:
        with self.locked() as now:
            return [self._data.visible(job_id, now) for job_id in ids]

    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        with self.locked() as now:
            return [totals.counts(self._data, queue, now) for queue in queues]

    def queue_position(self, job_id: str) -> QueuePosition | None:
        with self.locked() as now:
            return positions.position(self._data, job_id, now)

    # --- workers -----------------------------------------------------------------------------

    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        return waiting.wait(self._data, self.locked, wanted, timeout)

    # --- raw queues --------------------------------------------------------------------------

    def raw(self, name: str) -> RawQueue:
        return MemoryRawQueue(name, self._data, self.locked)
