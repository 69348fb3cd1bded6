"""Queries, logs, metrics, signals and maintenance, shared by the broker and the store on MongoDB."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mrq_broker_mongo.jobs import recounting, searching, totals
from mrq_broker_mongo.server import checks, layout
from mrq_broker_mongo.server.arrangement import Arrangement
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import location_of
from mrq_broker_mongo.shared import logs, signals
from mrq_broker_mongo.shared import metrics as rollups
from mrq_broker_mongo.shared.state import MongoState
from mrq_core.contract.driver import Opening
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.contract.queries import Counted, Finding, JobFilter, LogLine, LogPage, Order, Page, Totals
from mrq_core.contract.services import SharedState, StoreServices
from mrq_core.contract.shared_state import PollResult, Versions
from mrq_core.drivers.answers import UNREADABLE, names_unreadable_answers, raise_if_unreadable


@names_unreadable_answers(but_in=("now",))
class MongoServices(StoreServices):
    """See `mrq_core.contract.services.StoreServices`."""

    name = "mongo"

    def __init__(self, opening: Opening, arrangement: Arrangement) -> None:
        self._connection = Connection(
            location_of(opening), clock=opening.clock, timeout=opening.timeout, arrangement=arrangement
        )
        where = self._connection.location
        self.location = f"{where.shown} database={where.database} prefix={where.prefix}"
        self._state = MongoState(self._connection)

    @property
    def _jobs(self) -> Connection:
        """The connection, for what touches jobs."""
        return self._connection

    @property
    def state(self) -> SharedState:
        return self._state

    # --- queries -----------------------------------------------------------------------------

    def now(self) -> datetime:
        try:
            return self._connection.now()
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def find(
        self,
        wanted: JobFilter,
        *,
        order: Order = Order.NEWEST_FIRST,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        return searching.find(self._jobs, wanted, order=order, cursor=cursor, limit=limit)

    def count(self, wanted: JobFilter, group_by: str | None = None, *, cursor: str | None = None) -> Counted:
        return searching.count(self._jobs, wanted, group_by, cursor)

    def totals(self) -> Totals:
        return totals.totals(self._jobs)

    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        return totals.queue_names(self._jobs, prefix, after, limit)

    # --- workers, logs and metrics -----------------------------------------------------------

    def poll(self, worker: str, versions: Versions) -> PollResult:
        return signals.poll(self._connection, worker, versions)

    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        logs.append(self._jobs, lines, max_size)

    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        return logs.read(self._jobs, job_id, cursor, limit)

    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        rollups.record(self._connection, metrics)

    def read_metrics(
        self,
        names: Sequence[str],
        since: datetime,
        until: datetime,
        resolution: Resolution = Resolution.MINUTE,
    ) -> list[Metric]:
        return rollups.read(self._connection, names, since, until, resolution)

    # --- care --------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        return checks.check(self._connection)

    def repair_totals(self) -> int:
        return recounting.recount(self._jobs)

    def prepare(self) -> None:
        layout.prepare(self._connection)

    def close(self) -> None:
        self._connection.close()
