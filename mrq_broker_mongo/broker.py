"""The broker on MongoDB. Each method calls the module of its verb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from mrq_broker_mongo.jobs import (
    claiming,
    counts,
    damaged,
    effects,
    enqueueing,
    positions,
    pruning,
    renewing,
    searching,
    settling,
)
from mrq_broker_mongo.jobs.changing import Records
from mrq_broker_mongo.jobs.damaged import FAILURES
from mrq_broker_mongo.raw.queue import MongoRawQueue
from mrq_broker_mongo.server.arrangement import WHOLE
from mrq_broker_mongo.services import MongoServices
from mrq_broker_mongo.shared import waiting
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
from mrq_core.contract.queries import JobFilter, QueueCounts, QueuePosition
from mrq_core.contract.raw import RawQueue
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import damage, replacing
from mrq_core.drivers.answers import UNREADABLE, names_unreadable_answers, raise_if_unreadable

_Answer = TypeVar("_Answer")


@damage.sets_damaged_jobs_aside(*damage.METHODS)
@names_unreadable_answers(but_in=("enqueue", "claim", "renew", "settle"))
class MongoBroker(MongoServices, Broker):
    """Queues, records, logs and shared state in the collections of one prefix."""

    has_separate_entries = False

    def __init__(self, opening: Opening) -> None:
        super().__init__(opening, WHOLE)
        self._records = Records(self._connection)
        self._rotation = claiming.Rotation()
        self._held = settling.HeldJobs()

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
            return claiming.claim(self._connection, request, self._rotation, self._held)
        except FAILURES as error:
            if damaged.is_mended(error, lambda: damaged.set_aside_due(self._connection, request)):
                return claiming.claim(self._connection, request, self._rotation, self._held)
            raise_if_unreadable(error, self._connection)
            raise

    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool]:
        try:
            return renewing.renew(self._connection, claims, lease)
        except FAILURES as error:
            if damaged.is_mended(error, lambda: damaged.set_aside_all(self._connection, claims)):
                return renewing.renew(self._connection, claims, lease)
            raise_if_unreadable(error, self._connection)
            raise

    def annotate(self, notes: Sequence[Note]) -> list[bool]:
        try:
            return renewing.annotate(self._connection, notes)
        except FAILURES as error:
            if damaged.is_mended(error, lambda: damaged.set_aside_all(self._connection, notes)):
                return renewing.annotate(self._connection, notes)
            raise

    def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        try:
            return settling.settle(self._connection, settlements, self._held)
        except FAILURES as error:
            if damaged.is_mended(error, lambda: damaged.set_aside_all(self._connection, settlements)):
                return settling.settle(self._connection, settlements, self._held)
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

    def get(self, ids: Sequence[str]) -> list[JobRecord | None]:
        return searching.get(self._connection, ids)

    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        return counts.counts(self._connection, queues)

    def queue_position(self, job_id: str) -> QueuePosition | None:
        return positions.position(self._connection, job_id)

    def parent_of(self, followup: str) -> str | None:
        return effects.parent_of(self._connection, followup)

    # --- workers -----------------------------------------------------------------------------

    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        return waiting.wait(self._connection, wanted, timeout)

    # --- raw queues --------------------------------------------------------------------------

    def raw(self, name: str) -> RawQueue:
        return MongoRawQueue(name, self._connection)
