"""The broker in one file. Each call is implemented by a module of the folders beside this module.

Every call that writes is one transaction, or one for each `CHUNK` items.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from sqlite3 import Connection
from typing import TypeVar

from mrq_core.clock import from_ms
from mrq_core.contract.broker import Broker
from mrq_core.contract.driver import Opening
from mrq_core.contract.messages import (
    CHUNK,
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
    Totals,
)
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord
from mrq_core.contract.services import SharedState
from mrq_core.contract.shared_state import PollResult, Versions
from mrq_core.drivers import damage
from mrq_core.drivers.answers import names_unreadable_answers
from mrq_core.embedded.jobs import (
    changing,
    claiming,
    damaged,
    enqueueing,
    positions,
    pruning,
    recounting,
    renewing,
    searching,
    settling,
    totals,
)
from mrq_core.embedded.raw.queue import EmbeddedRawQueue
from mrq_core.embedded.server import checks, connection, mending
from mrq_core.embedded.server.location import path_of
from mrq_core.embedded.shared import logs, metrics, signals, waiting
from mrq_core.embedded.shared.metrics import record as record_metrics
from mrq_core.embedded.shared.state import EmbeddedState

_Item = TypeVar("_Item")
_Answer = TypeVar("_Answer")


@damage.sets_damaged_jobs_aside(*damage.METHODS)
@names_unreadable_answers(but_in=("enqueue", "claim", "renew", "settle"), connection="_database")
class EmbeddedBroker(Broker):
    """Queue, records, logs and shared state in one SQLite file."""

    name = "sqlite"

    def __init__(self, opening: Opening, *, connect: connection.Connect = connection.connect) -> None:
        self._clock = opening.clock
        self._database = connection.Database(
            path_of(opening),
            timeout=opening.timeout,
            run_blocking=opening.run_blocking,
            connect=connect,
        )
        self.location = self._database.path
        self._state = EmbeddedState(self._database, self._clock)
        self._rotation = claiming.Rotation()

    @property
    def state(self) -> SharedState:
        return self._state

    def past_damage(self, call: Callable[[], _Answer]) -> _Answer:
        """The answer of a call, after all damaged jobs that it meets are set aside."""
        return damaged.past_damage(self._database, self._clock, call)

    # --- a job's way -------------------------------------------------------------------------

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        return self._write(jobs, lambda c, part: enqueueing.enqueue(c, self._clock, part), durable=True)

    def claim(self, request: ClaimRequest) -> Claimed:
        return claiming.claim(self._database, self._clock, request, self._rotation)

    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
        return self._write(claims, lambda c, part: renewing.renew(c, self._clock, part, lease))

    def annotate(self, notes: Sequence[Note]) -> list[bool]:
        return self._write(notes, lambda c, part: renewing.annotate(c, self._clock, part))

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        return self._write(settlements, lambda c, part: settling.settle(c, self._clock, part))

    def requeue(self, ids: Sequence[str], how: Requeue) -> list[ChangeResult]:
        return self._write(ids, lambda c, part: changing.change(c, self._clock, part, how), durable=True)

    def cancel(self, ids: Sequence[str], how: Cancel) -> list[ChangeResult]:
        return self._write(ids, lambda c, part: changing.change(c, self._clock, part, how), durable=True)

    def move(self, ids: Sequence[str], how: Move) -> list[ChangeResult]:
        return self._write(ids, lambda c, part: changing.change(c, self._clock, part, how), durable=True)

    def edit(self, edits: Sequence[Edit]) -> list[ChangeResult]:
        return self._write(edits, lambda c, part: changing.edit(c, self._clock, part), durable=True)

    def remove(self, ids: Sequence[str]) -> list[ChangeResult]:
        return self._write(ids, lambda c, part: changing.change(c, self._clock, part, Remove()), durable=True)

    def add_search_keys(self, added: Sequence[AddedKeys]) -> list[ChangeResult]:
        return self._write(
            added, lambda c, part: changing.add_search_keys(c, self._clock, part), durable=True
        )

    def prune(self, limit: int = 1000) -> int:
        return self._database.write(lambda c: pruning.prune(c, self._clock, limit))

    def apply(
        self, wanted: JobFilter, action: Action, *, limit: int = 1000, cursor: str | None = None
    ) -> Applied:
        return searching.apply(self._database, self._clock, wanted, action, limit=limit, cursor=cursor)

    # --- looking -----------------------------------------------------------------------------

    def now(self) -> datetime:
        return from_ms(self._clock.now_ms())

    def get(self, ids: Sequence[str]) -> list[JobRecord | None]:
        return self._database.read(lambda c: searching.get(c, self._clock, ids))

    def find(
        self,
        wanted: JobFilter,
        *,
        order: Order = Order.NEWEST_FIRST,
        cursor: str | None = None,
        limit: int = 50,
    ) -> Page:
        return self._database.read(
            lambda c: searching.find(c, self._clock, wanted, order=order, cursor=cursor, limit=limit)
        )

    def count(self, wanted: JobFilter, group_by: str | None = None, *, cursor: str | None = None) -> Counted:
        return self._database.read(lambda c: searching.count(c, self._clock, wanted, group_by, cursor))

    def totals(self) -> Totals:
        return self._database.read(totals.totals)

    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        return self._database.read(lambda c: totals.counts(c, self._clock, queues))

    def queue_position(self, job_id: str) -> QueuePosition | None:
        return self._database.read(lambda c: positions.position(c, self._clock, job_id))

    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        return self._database.read(lambda c: totals.queue_names(c, prefix, after, limit))

    # --- workers -----------------------------------------------------------------------------

    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        return waiting.wait(self._database, self._clock, wanted, timeout)

    def poll(self, worker: str, versions: Versions) -> PollResult:
        return self._database.read(lambda c: signals.poll(c, worker, versions, self._clock.now_ms()))

    # --- logs and metrics --------------------------------------------------------------------

    def append_logs(self, lines: Sequence[LogLine], max_size: int) -> None:
        self._database.write(lambda c: logs.append(c, self._clock, lines, max_size))

    def read_logs(self, job_id: str, cursor: str | None = None, limit: int = 1000) -> LogPage:
        return self._database.read(lambda c: logs.read(c, self._clock, job_id, cursor, limit))

    def record_metrics(self, metrics: Sequence[Metric]) -> None:
        self._database.write(lambda c: record_metrics(c, metrics))

    def read_metrics(
        self,
        names: Sequence[str],
        since: datetime,
        until: datetime,
        resolution: Resolution = Resolution.MINUTE,
    ) -> list[Metric]:
        return self._database.read(lambda c: metrics.read(c, names, since, until, resolution))

    # --- raw queues --------------------------------------------------------------------------

    def raw(self, name: str) -> RawQueue:
        return EmbeddedRawQueue(name, self._database, self._clock)

    # --- care --------------------------------------------------------------------------------

    def check(self) -> list[Finding]:
        return checks.check(self._database)

    def prepare(self) -> None:
        mending.mend(self._database, self._clock.now_ms(), recounting.recount)
        self._database.read(_nothing)

    def close(self) -> None:
        self._database.close()

    def _write(
        self,
        items: Sequence[_Item],
        work: Callable[[Connection, Sequence[_Item]], list[_Answer]],
        *,
        durable: bool = False,
    ) -> list[_Answer]:
        answers: list[_Answer] = []
        for start in range(0, len(items), CHUNK):
            part = items[start : start + CHUNK]
            answers += self._database.write(_bound(work, part), durable=durable)
        return answers


def _bound(
    work: Callable[[Connection, Sequence[_Item]], list[_Answer]], part: Sequence[_Item]
) -> Callable[[Connection], list[_Answer]]:
    return lambda connection: work(connection, part)


def _nothing(connection: Connection) -> None:
    """Opening the file creates its tables."""
