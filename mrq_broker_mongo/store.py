"""The store of a pair on MongoDB. Each method calls the module of its verb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar, cast

from mrq_broker_mongo.half import starting, storing
from mrq_broker_mongo.half.starting import Start
from mrq_broker_mongo.jobs import damaged, pruning, settling
from mrq_broker_mongo.jobs.damaged import FAILURES
from mrq_broker_mongo.jobs.records import Stored
from mrq_broker_mongo.server import layout
from mrq_broker_mongo.server.arrangement import STORE
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.services import MongoServices
from mrq_core.contract.driver import Opening
from mrq_core.contract.messages import Enqueued, NewJob, Note, Settlement
from mrq_core.contract.pair import Entry, JobStore, Replacement, StoredJob, WriteResult
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import damage
from mrq_core.drivers.answers import UNREADABLE, names_unreadable_answers, raise_if_unreadable

_Answer = TypeVar("_Answer")


@damage.sets_damaged_jobs_aside("read", "write", "start", "succeed", "annotate", "find", "count", "prune")
@names_unreadable_answers(but_in=("insert", "start", "succeed"))
class MongoStore(MongoServices, JobStore):
    """Records, logs and shared state in the collections of one prefix; the queue is elsewhere."""

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening, STORE)
        self._held = settling.HeldJobs()

    @property
    def _jobs(self) -> Connection:
        """The connection, once it is known that the prefix holds no queue."""
        layout.recognize(self._connection)
        return self._connection

    def past_damage(self, call: Callable[[], _Answer]) -> _Answer:
        """The answer of a call, after all damaged jobs that it meets are set aside."""
        return damaged.past_damage(self._connection, call)

    # --- records -----------------------------------------------------------------------------

    def recognize(self) -> None:
        layout.recognize(self._connection)

    def insert(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        try:
            return storing.insert(self._connection, jobs)
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def read(self, ids: Sequence[str]) -> Sequence[StoredJob | None]:
        return storing.read(self._jobs, ids)

    def write(self, replacements: Sequence[Replacement[StoredJob]], now: datetime) -> list[WriteResult]:
        ours = cast(Sequence[Replacement[Stored]], replacements)  # only this store reads jobs
        return storing.write(self._jobs, ours, now)

    def start(
        self, entries: Sequence[Entry], *, worker: str, lease: float, now: datetime
    ) -> list[JobRecord | None]:
        try:
            return starting.start(self._jobs, entries, Start(worker, lease, now), self._held)
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def succeed(self, settlements: Sequence[Settlement], now: datetime) -> list[bool]:
        try:
            return storing.succeed(self._jobs, settlements, now, self._held)
        except FAILURES as error:
            if damaged.is_mended(error, lambda: damaged.set_aside_all(self._jobs, settlements)):
                return storing.succeed(self._jobs, settlements, now, self._held)
            raise_if_unreadable(error, self._connection)
            raise

    def annotate(self, notes: Sequence[Note], now: datetime) -> list[bool]:
        return storing.annotate(self._jobs, notes, now)

    def unfinished(self, limit: int, *, before: datetime | None = None) -> list[tuple[str, list[NewJob]]]:
        return storing.unfinished(self._jobs, limit, before)

    def finish(self, parent: str, followups: Sequence[str]) -> None:
        storing.finish(self._jobs, parent, followups)

    def prune(self, limit: int) -> int:
        return pruning.prune_records(self._connection, limit)
