"""The JobStore on MongoDB: each method hands its work to the module that is made for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import cast

from mrq_broker_mongo import (
    checks,
    layout,
    logs,
    pruning,
    search,
    settling,
    signals,
    starting,
    storing,
    totals,
)
from mrq_broker_mongo.arrangement import STORE
from mrq_broker_mongo.connection import Connection
from mrq_broker_mongo.documents import Stored
from mrq_broker_mongo.location import location_of
from mrq_broker_mongo.starting import Start
from mrq_broker_mongo.state import MongoState
from mrq_core.broker import SharedState
from mrq_core.changing import Replacement, Written
from mrq_core.driver import Opening
from mrq_core.halves import Entry, JobStore, StoredJob
from mrq_core.job import JobRecord
from mrq_core.messages import (
    Changes,
    Finding,
    JobFilter,
    LogLine,
    LogPage,
    Metric,
    NewJob,
    Note,
    Order,
    Page,
    Settlement,
    Totals,
    Versions,
)


class MongoStore(JobStore):
    """Records, logs and shared state in the collections of one prefix; the queue is elsewhere."""

    name = "mongo"

    def __init__(self, opening: Opening) -> None:
        self._connection = Connection(
            location_of(opening), clock=opening.clock, timeout=opening.timeout, arrangement=STORE
        )
        self._state = MongoState(self._connection)
        self._held = settling.Held()

    @property
    def state(self) -> SharedState:
        return self._state

    @property
    def _jobs(self) -> Connection:
        """The connection, once it is known that the prefix holds no queue."""
        layout.recognize(self._connection)
        return self._connection

    # --- records -----------------------------------------------------------------------------

    def insert(self, jobs: Sequence[NewJob]) -> list[bool]:
        return storing.insert(self._connection, jobs)

    def read(self, ids: Sequence[str]) -> Sequence[StoredJob | None]:
        return storing.read(self._jobs, ids)

    def write(self, replacements: Sequence[Replacement[StoredJob]], now: datetime) -> list[Written]:
        ours = cast(Sequence[Replacement[Stored]], replacements)  # nobody else made what was read
        return storing.write(self._jobs, ours, now)

    def start(
        self, entries: Sequence[Entry], *, worker: str, lease: float, now: datetime
    ) -> list[JobRecord | None]:
        return starting.start(self._jobs, entries, Start(worker, lease, now), self._held)

    def succeed(self, settlements: Sequence[Settlement], now: datetime) -> list[bool]:
        return storing.succeed(self._jobs, settlements, now, self._held)

    def annotate(self, notes: Sequence[Note], now: datetime) -> list[bool]:
        return storing.annotate(self._jobs, notes, now)

    def unfinished(self, limit: int, *, before: datetime | None = None) -> list[tuple[str, list[JobRecord]]]:
        return storing.unfinished(self._jobs, limit, before)

    def finish(self, parents: Sequence[str]) -> None:
        storing.finish(self._jobs, parents)

    def prune(self, limit: int) -> int:
        return pruning.prune_records(self._connection, limit)

    # --- looking -----------------------------------------------------------------------------

    def find(
        self,
        wanted: JobFilter,
        *,
        order: Order = Order.NEWEST_FIRST,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        return search.find(self._jobs, wanted, order=order, cursor=cursor, limit=limit)

    def count(self, wanted: JobFilter, group_by: str | None = None) -> dict[str, int]:
        return search.count(self._jobs, wanted, group_by)

    def totals(self) -> Totals:
        return totals.totals(self._jobs)

    def known(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        return totals.known(self._jobs, prefix, after, limit)

    # --- workers, logs and metrics -----------------------------------------------------------

    def poll(self, worker: str, versions: Versions) -> Changes:
        return signals.poll(self._connection, worker, versions)

    def pause(self, queues: Sequence[str]) -> None:
        signals.set_paused(self._connection, queues, is_paused=True)

    def resume(self, queues: Sequence[str]) -> None:
        signals.set_paused(self._connection, queues, is_paused=False)

    def paused(self) -> frozenset[str]:
        return signals.paused(self._connection)

    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        logs.append(self._jobs, lines, max_size)

    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        return logs.read(self._jobs, job_id, cursor, limit)

    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        logs.record_metrics(self._connection, metrics)

    def read_metrics(self, names: Sequence[str], since: float, until: float) -> list[Metric]:
        return logs.read_metrics(self._connection, names, since, until)

    # --- care --------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        return checks.check(self._connection)

    def prepare(self) -> None:
        layout.prepare(self._connection)

    def close(self) -> None:
        self._connection.close()
