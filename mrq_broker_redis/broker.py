"""The broker on Redis. Each method calls the module of its verb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from mrq_broker_redis.jobs import (
    claiming,
    damaged,
    enqueueing,
    positions,
    pruning,
    renewing,
    repairing,
    searching,
    settling,
    totals,
)
from mrq_broker_redis.jobs.changing import Records
from mrq_broker_redis.jobs.trees import Rotation
from mrq_broker_redis.raw.queue import RedisRawQueue
from mrq_broker_redis.server import checks, layout
from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.server.layout import Contents
from mrq_broker_redis.server.location import location_of
from mrq_broker_redis.server.scripts import load_all
from mrq_broker_redis.shared import logs, signals, waiting
from mrq_broker_redis.shared import metrics as rollups
from mrq_broker_redis.shared.state import RedisState
from mrq_core.contract.broker import Broker
from mrq_core.contract.driver import Opening
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
from mrq_core.contract.metrics import Metric, Resolution
from mrq_core.contract.queries import (
    Counted,
    Finding,
    JobFilter,
    LogLine,
    LogPage,
    Order,
    Page,
    QueueCounts,
    QueuePosition,
    RepairResult,
    Totals,
)
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord
from mrq_core.contract.services import SharedState
from mrq_core.contract.shared_state import PollResult, Versions
from mrq_core.drivers import damage, replacing
from mrq_core.drivers.answers import UNREADABLE, names_unreadable_answers, raise_if_unreadable

_Answer = TypeVar("_Answer")


@damage.sets_damaged_jobs_aside(*damage.METHODS)
@names_unreadable_answers(but_in=("enqueue", "claim", "renew", "settle"))
class RedisBroker(Broker):
    """Queues, records, logs and shared state under one prefix of a Redis server."""

    name = "redis"

    def __init__(self, opening: Opening) -> None:
        self._connection = Connection(location_of(opening), clock=opening.clock, timeout=opening.timeout)
        self.location = f"{self._connection.location.shown} prefix={self._connection.location.prefix}"
        self._records = Records(self._connection)
        self._state = RedisState(self._connection)
        self._rotation = Rotation()

    @property
    def state(self) -> SharedState:
        return self._state

    def past_damage(self, call: Callable[[], _Answer]) -> _Answer:
        """The answer of a call, after all damaged jobs that it meets are set aside."""
        return damaged.past_damage(self._connection, call)

    # --- a job's way -------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        try:
            return enqueueing.enqueue(self._connection, jobs)
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def claim(self, request: ClaimRequest) -> Claimed:
        try:
            return claiming.claim(self._connection, request, self._rotation)
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
        try:
            return renewing.renew(self._connection, claims, lease)
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def annotate(self, notes: Sequence[Note]) -> list[bool]:
        return renewing.annotate(self._connection, notes)

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        try:
            return settling.settle(self._connection, settlements)
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def requeue(self, ids: Sequence[str], how: Requeue) -> list[ChangeResult]:
        return replacing.act(self._records, ids, how)

    def cancel(self, ids: Sequence[str], how: Cancel) -> list[ChangeResult]:
        return replacing.act(self._records, ids, how)

    def move(self, ids: Sequence[str], how: Move) -> list[ChangeResult]:
        return replacing.act(self._records, ids, how)

    def edit(self, edits: Sequence[Edit]) -> list[ChangeResult]:
        return replacing.edit(self._records, edits)

    def remove(self, ids: Sequence[str]) -> list[ChangeResult]:
        return replacing.act(self._records, ids, Remove())

    def add_search_keys(self, added: Sequence[AddedKeys]) -> list[ChangeResult]:
        return replacing.add_search_keys(self._records, added)

    def prune(self, limit: int = 1000) -> int:
        return pruning.prune(self._connection, limit)

    def apply(
        self, wanted: JobFilter, action: Action, *, limit: int = 1000, cursor: str | None = None
    ) -> Applied:
        return searching.apply(self._connection, wanted, action, limit=limit, cursor=cursor)

    # --- looking -----------------------------------------------------------------------------

    def now(self) -> datetime:
        return self._records.read([])[0]

    def get(self, ids: Sequence[str]) -> list[JobRecord | None]:
        return searching.get(self._connection, ids)

    def find(
        self,
        wanted: JobFilter,
        *,
        order: Order = Order.NEWEST_FIRST,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        return searching.find(self._connection, wanted, order=order, cursor=cursor, limit=limit)

    def count(self, wanted: JobFilter, group_by: str | None = None, *, cursor: str | None = None) -> Counted:
        return searching.count(self._connection, wanted, group_by, cursor)

    def totals(self) -> Totals:
        return totals.totals(self._connection)

    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        return totals.counts(self._connection, queues)

    def queue_position(self, job_id: str) -> QueuePosition | None:
        return positions.position(self._connection, job_id)

    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        return totals.queue_names(self._connection, prefix, after, limit)

    # --- workers -----------------------------------------------------------------------------

    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        return waiting.wait(self._connection, wanted, timeout)

    def poll(self, worker: str, versions: Versions) -> PollResult:
        return signals.poll(self._connection, worker, versions)

    # --- logs and metrics --------------------------------------------------------------------

    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        logs.append(self._connection, lines, max_size)

    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        return logs.read(self._connection, job_id, cursor, limit)

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

    # --- raw queues --------------------------------------------------------------------------

    def raw(self, name: str) -> RawQueue:
        return RedisRawQueue(name, self._connection)

    # --- care --------------------------------------------------------------------------------

    def repair(self, limit: int = 1000, cursor: str | None = None) -> RepairResult:
        return repairing.repair(self._connection, limit, cursor)

    def repair_totals(self) -> int:
        return repairing.repair_totals(self._connection)

    def check(self) -> list[Finding]:
        return checks.check(self._connection, Contents.JOBS)

    def prepare(self) -> None:
        load_all()
        layout.prepare(self._connection, Contents.JOBS)

    def close(self) -> None:
        self._connection.close()
