"""What the broker and the store in memory have in common, over plain dicts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from mrq_core.clock import Clock, SystemClock, from_ms, to_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.broker import SharedState, StoreServices
from mrq_core.contract.matching import check_group, matches
from mrq_core.contract.messages import (
    METRICS_KEPT,
    Finding,
    JobFilter,
    LogLine,
    LogPage,
    Metric,
    Order,
    Page,
    PollResult,
    Totals,
    Versions,
)
from mrq_core.contract.naming import check_page_cursor
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import BrokerUnavailable, JobNotFound
from mrq_core.testing.memory.data import MemoryData, copy
from mrq_core.testing.memory.limits import let_go
from mrq_core.testing.memory.logs import JobLog
from mrq_core.testing.memory.search import group_of, totals
from mrq_core.testing.memory.state import MemoryState

MINUTE_MS = 60_000


class MemoryKeeper(StoreServices):
    """See `mrq_core.contract.broker.StoreServices`. Every method holds the one lock of the data."""

    name = "memory"

    def __init__(self, *, clock: Clock | None = None, data: MemoryData | None = None) -> None:
        self._clock = clock or SystemClock()
        self._data = data or MemoryData()
        self._state = MemoryState(self._data.state, self._data.lock, self._clock)
        self._closed = False

    @property
    def state(self) -> SharedState:
        return self._state

    @contextmanager
    def locked(self) -> Iterator[datetime]:
        """Holds the lock; gives the time at which everything in the call happens."""
        with self._data.lock:
            if self._closed:
                raise BrokerUnavailable("this broker was closed: open another one")
            now = from_ms(self._clock.now_ms())
            let_go(self._data, now)  # by leases that have ended since
            yield now
            let_go(self._data, now)  # by what this call did

    # --- looking -----------------------------------------------------------------------------

    def find(
        self,
        wanted: JobFilter,
        *,
        order: Order = Order.NEWEST_FIRST,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        with self.locked() as now:
            found = self._matching(wanted, now)
        newest = order is Order.NEWEST_FIRST
        if newest:
            found.reverse()
        if cursor is not None:
            check_page_cursor(cursor)
            found = [record for record in found if (record.id < cursor if newest else record.id > cursor)]
        shown = tuple(copy(record) for record in found[:limit])
        return Page(records=shown, cursor=shown[-1].id if shown and len(found) > limit else None)

    def _matching(self, wanted: JobFilter, now: datetime) -> list[JobRecord]:
        return [
            record
            for record in self._data.all()
            if not lifecycle.has_expired(record, now) and matches(record, wanted)
        ]

    def count(self, wanted: JobFilter, group_by: str | None = None) -> dict[str, int]:
        check_group(group_by)
        with self.locked() as now:
            groups = [group_of(record, group_by) for record in self._matching(wanted, now)]
        if group_by is None:
            return {"": len(groups)}
        return {group: groups.count(group) for group in groups if group is not None}

    def totals(self) -> Totals:
        with self.locked():
            return totals(self._data.all())

    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        with self.locked():
            names = sorted(name for name in self._data.queues if name.startswith(prefix) and name > after)
        return names[:limit]

    # --- workers -----------------------------------------------------------------------------

    def poll(self, worker: str, versions: Versions) -> PollResult:
        with self.locked():
            data = self._data
            asked = dict.fromkeys(data.signals[versions.signals :])
            records = [record for record in map(data.get, asked) if record is not None]
            return PollResult(
                versions=Versions(pauses=data.pauses_version, signals=len(data.signals)),
                paused=data.paused if versions.pauses != data.pauses_version else None,
                interrupts=tuple(
                    record.id
                    for record in records
                    if record.status is Status.STARTED and record.worker == worker and record.cancel_requested
                ),
            )

    def pause(self, queues: Sequence[str]) -> None:
        with self.locked():
            self._set_paused(self._data.paused | set(queues))

    def resume(self, queues: Sequence[str]) -> None:
        with self.locked():
            self._set_paused(self._data.paused - set(queues))

    def _set_paused(self, paused: frozenset[str]) -> None:
        if paused != self._data.paused:
            self._data.paused = paused
            self._data.pauses_version += 1

    def paused(self) -> frozenset[str]:
        with self.locked():
            return self._data.paused

    # --- logs and metrics --------------------------------------------------------------------

    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        with self.locked() as now:
            for line in lines:
                if self._data.visible(line.job_id, now) is not None:
                    self._data.logs.setdefault(line.job_id, JobLog()).append(line, max_size)

    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        with self.locked() as now:
            if self._data.visible(job_id, now) is None:
                raise JobNotFound(job_id)
            return self._data.logs.get(job_id, JobLog()).page(cursor, limit)

    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        with self.locked():
            table = self._data.metrics
            for metric in metrics:
                key = (to_ms(metric.at) // MINUTE_MS, metric.name)
                table[key] = table.get(key, 0.0) + metric.value

    def read_metrics(self, names: Sequence[str], since: float, until: float) -> list[Metric]:
        with self.locked():
            return [
                Metric(name=name, at=from_ms(minute * MINUTE_MS), value=value)
                for (minute, name), value in sorted(self._data.metrics.items())
                if name in names and since <= minute * MINUTE_MS / 1000 < until
            ]

    # --- care --------------------------------------------------------------------------------

    def prune(self, limit: int = 1000) -> int:
        with self.locked() as now:
            self._state.drop_expired()
            oldest = (to_ms(now) - METRICS_KEPT * 1000) // MINUTE_MS
            for key in [key for key in self._data.metrics if key[0] < oldest]:
                del self._data.metrics[key]
            expired = [record.id for record in self._data.all() if lifecycle.has_expired(record, now)][:limit]
            for job_id in expired:
                self._data.delete(job_id, keep_period=True)
            return len(expired)

    def check(self) -> list[Finding]:
        with self.locked():
            return [
                Finding(level="ok", subject="memory", message=f"{len(self._data.records)} jobs in memory")
            ]

    def prepare(self) -> None:
        """There is nothing to create."""

    def close(self) -> None:
        self._closed = True
