"""Queries, logs, metrics, signals and maintenance, shared by the broker and the store of the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

from mrq_core.clock import Clock, SystemClock, from_ms, to_ms
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.contract.naming import log_position
from mrq_core.contract.queries import Counted, Finding, JobFilter, LogLine, LogPage, Order, Page, Totals
from mrq_core.contract.services import SharedState, StoreServices
from mrq_core.contract.shared_state import PollResult, Versions
from mrq_core.errors import BrokerUnavailable, JobNotFound
from mrq_core.testing.memory.data import MemoryData
from mrq_core.testing.memory.jobs import limits, pruning, searching, totals
from mrq_core.testing.memory.shared import metrics, signals
from mrq_core.testing.memory.shared.logs import JobLog
from mrq_core.testing.memory.shared.metrics import record as record_metrics
from mrq_core.testing.memory.shared.state import MemoryState


class MemoryServices(StoreServices):
    """See `mrq_core.contract.services.StoreServices`. Every method holds the one lock of the data."""

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
        """Holds the lock; gives the time of the call. Lets parked jobs go before and after the call."""
        with self._data.lock:
            if self._closed:
                raise BrokerUnavailable("this broker was closed: open another one")
            now = from_ms(self._clock.now_ms())
            limits.let_go(self._data, now)  # where leases have ended
            yield now
            limits.let_go(self._data, now)  # where this call ended claims

    # --- queries -----------------------------------------------------------------------------

    def now(self) -> datetime:
        with self.locked() as now:
            return now

    def find(
        self,
        wanted: JobFilter,
        *,
        order: Order = Order.NEWEST_FIRST,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        with self.locked() as now:
            return searching.find(self._data, wanted, now, order=order, cursor=cursor, limit=limit)

    def count(self, wanted: JobFilter, group_by: str | None = None, *, cursor: str | None = None) -> Counted:
        with self.locked() as now:
            return searching.count(self._data, wanted, group_by, now, cursor)

    def totals(self) -> Totals:
        with self.locked():
            return totals.totals(self._data)

    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        with self.locked():
            return totals.queue_names(self._data, prefix, after, limit)

    # --- workers -----------------------------------------------------------------------------

    def poll(self, worker: str, versions: Versions) -> PollResult:
        with self.locked() as now:
            return signals.poll(self._data, self._state, worker, versions, to_ms(now))

    # --- logs and metrics --------------------------------------------------------------------

    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        with self.locked() as now:
            for line in lines:
                if self._data.visible(line.job_id, now) is not None:
                    self._data.logs.setdefault(line.job_id, JobLog()).append(line, max_size)

    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        log_position(cursor)
        with self.locked() as now:
            if self._data.visible(job_id, now) is None:
                raise JobNotFound(job_id)
            return self._data.logs.get(job_id, JobLog()).page(cursor, limit)

    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        with self.locked():
            record_metrics(self._data, metrics)

    def read_metrics(
        self,
        names: Sequence[str],
        since: datetime,
        until: datetime,
        resolution: Resolution = Resolution.MINUTE,
    ) -> list[Metric]:
        with self.locked():
            return metrics.read(self._data, names, since, until, resolution)

    # --- maintenance -------------------------------------------------------------------------

    def prune(self, limit: int = 1000) -> int:
        with self.locked() as now:
            return pruning.prune(self._data, now, limit)

    def check(self) -> list[Finding]:
        with self.locked():
            return [
                Finding(level="ok", subject="memory", message=f"{len(self._data.records)} jobs in memory")
            ]

    def prepare(self) -> None:
        """A dict needs no preparation."""

    def close(self) -> None:
        self._closed = True
