"""The queue of a pair on Redis. Each method calls the module of its verb."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mrq_broker_redis.half import claiming, writing
from mrq_broker_redis.jobs import positions, pruning, totals, uniques
from mrq_broker_redis.jobs.trees import Rotation
from mrq_broker_redis.raw import claiming as raw_claiming
from mrq_broker_redis.raw.queue import RedisRawParameters
from mrq_broker_redis.server import checks, layout
from mrq_broker_redis.server.connection import Connection
from mrq_broker_redis.server.layout import Contents
from mrq_broker_redis.server.location import location_of
from mrq_broker_redis.server.scripts import load_all
from mrq_broker_redis.shared import waiting
from mrq_core.contract.driver import Opening
from mrq_core.contract.messages import ClaimRef, ClaimRequest, RawClaim, Wanted
from mrq_core.contract.pair import ClaimedEntries, Entry, JobQueue, KeyHolder, KeyRequest, Parking, Removal
from mrq_core.contract.queries import Finding, QueueCounts, QueuePosition
from mrq_core.contract.raw import RawParameters
from mrq_core.drivers.answers import UNREADABLE, names_unreadable_answers, raise_if_unreadable


@names_unreadable_answers(but_in=("push", "claim", "renew", "remove"))
class RedisQueue(JobQueue):
    """Entries, limits, unique keys and raw parameters under one prefix of a Redis server, and no records."""

    name = "redis"

    def __init__(self, opening: Opening) -> None:
        self._connection = Connection(location_of(opening), clock=opening.clock, timeout=opening.timeout)
        self.location = f"{self._connection.location.shown} prefix={self._connection.location.prefix}"
        self._rotation = Rotation()

    def now(self) -> datetime:
        # Every change asks for the time first.
        layout.ensure(self._connection, Contents.ENTRIES)
        return writing.now(self._connection)

    # --- unique keys -------------------------------------------------------------------------

    def reserve(self, wanted: Sequence[KeyRequest]) -> list[KeyHolder]:
        return uniques.reserve(self._connection, wanted)

    def free(self, held: Sequence[tuple[str, KeyHolder]]) -> None:
        uniques.free(self._connection, held)

    # --- entries -----------------------------------------------------------------------------

    def push(self, entries: Sequence[Entry], lease: float | None = None) -> list[bool]:
        try:
            return writing.push(self._connection, entries, lease)
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def claim(self, request: ClaimRequest, *, leave_suspects: bool = False) -> ClaimedEntries:
        try:
            return claiming.claim(self._connection, request, self._rotation, leave_suspects=leave_suspects)
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def reclaim(self, suspects: Sequence[tuple[Entry, str]], request: ClaimRequest) -> list[bool]:
        return writing.reclaim(self._connection, suspects, request)

    def release(self, claims: Sequence[ClaimRef]) -> list[bool]:
        return writing.release(self._connection, claims)

    def park(self, parkings: Sequence[Parking]) -> list[bool]:
        return writing.park(self._connection, parkings)

    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool | None]:
        try:
            return writing.renew(self._connection, claims, lease)
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def put_off(self, claims: Sequence[ClaimRef], seconds: float) -> None:
        writing.put_off(self._connection, claims, seconds)

    def remove(self, removals: Sequence[Removal]) -> list[bool]:
        try:
            return writing.remove(self._connection, removals)
        except UNREADABLE as error:
            raise_if_unreadable(error, self._connection)
            raise

    def entries(self, ids: Sequence[str]) -> list[Entry | None]:
        return writing.read(self._connection, ids)

    def restore(self, ids: Sequence[str]) -> list[str]:
        return writing.restore(self._connection, ids)

    # --- looking -----------------------------------------------------------------------------

    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        return totals.counts(self._connection, queues)

    def position(self, job_id: str) -> QueuePosition | None:
        return positions.entry_position(self._connection, job_id)

    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        return totals.queue_names(self._connection, prefix, after, limit)

    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        return waiting.wait(self._connection, wanted, timeout)

    # --- raw queues --------------------------------------------------------------------------

    def raw(self, name: str) -> RawParameters:
        return RedisRawParameters(name, self._connection)

    def admit(self, name: str, claims: Sequence[tuple[RawClaim, Entry]], lease: float) -> list[bool]:
        return writing.admit(self._connection, name, claims, lease)

    def is_leased(self, name: str, ids: Sequence[str]) -> list[bool]:
        return raw_claiming.is_leased(self._connection, name, ids)

    # --- care --------------------------------------------------------------------------------

    def prune(self, limit: int) -> None:
        pruning.prune_entries(self._connection, limit)

    def check(self) -> list[Finding]:
        return checks.check(self._connection, Contents.ENTRIES)

    def prepare(self) -> None:
        load_all()
        layout.prepare(self._connection, Contents.ENTRIES)

    def close(self) -> None:
        self._connection.close()
