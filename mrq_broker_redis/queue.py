"""The queue half of a broker, on Redis: each method hands its work to the module that is made for it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from mrq_broker_redis import checks, figures, layout, placing, taking, waiting
from mrq_broker_redis.asking import Turns
from mrq_broker_redis.connection import Connection
from mrq_broker_redis.layout import Contents
from mrq_broker_redis.location import location_of
from mrq_broker_redis.rawlines import RedisRawLine
from mrq_core.contract.broker import RawParameters
from mrq_core.contract.driver import Opening
from mrq_core.contract.messages import ClaimRef, ClaimRequest, Finding, QueueCounts, RawClaim, Wanted
from mrq_core.contract.pair import ClaimedEntries, Entry, JobQueue, KeyHolder, KeyRequest, Removal


class RedisQueue(JobQueue):
    """Entries, limits, unique keys and raw parameters under one prefix of a Redis server, and no records."""

    name = "redis"

    def __init__(self, opening: Opening) -> None:
        self._connection = Connection(location_of(opening), clock=opening.clock, timeout=opening.timeout)
        self._turns = Turns()

    def now(self) -> datetime:
        # Everything that is to be changed asks for the time first.
        layout.ensure(self._connection, Contents.ENTRIES)
        return placing.now(self._connection)

    # --- unique keys -------------------------------------------------------------------------

    def reserve(self, wanted: Sequence[KeyRequest]) -> list[KeyHolder]:
        return placing.reserve(self._connection, wanted)

    def free(self, held: Sequence[tuple[str, KeyHolder]]) -> None:
        placing.free(self._connection, held)

    # --- entries -----------------------------------------------------------------------------

    def push(self, entries: Sequence[Entry], lease: float | None = None) -> list[bool]:
        return placing.push(self._connection, entries, lease)

    def claim(self, request: ClaimRequest, *, leave_suspects: bool = False) -> ClaimedEntries:
        return taking.claim(self._connection, request, self._turns, leave_suspects=leave_suspects)

    def take(self, suspects: Sequence[tuple[Entry, str]], request: ClaimRequest) -> list[bool]:
        return placing.take(self._connection, suspects, request)

    def release(self, claims: Sequence[ClaimRef]) -> list[bool]:
        return placing.release(self._connection, claims)

    def renew(self, claims: Sequence[ClaimRef], lease: float) -> list[bool | None]:
        return placing.renew(self._connection, claims, lease)

    def remove(self, removals: Sequence[Removal]) -> list[bool]:
        return placing.remove(self._connection, removals)

    def entries(self, ids: Sequence[str]) -> list[Entry | None]:
        return placing.read(self._connection, ids)

    # --- looking -----------------------------------------------------------------------------

    def counts(self, queues: Sequence[str]) -> list[QueueCounts]:
        return figures.counts(self._connection, queues)

    def queue_names(self, prefix: str = "", after: str = "", limit: int = 1000) -> list[str]:
        return figures.queue_names(self._connection, prefix, after, limit)

    def wait(self, wanted: Sequence[Wanted], timeout: float) -> bool:
        return waiting.wait(self._connection, wanted, timeout)

    # --- raw queues --------------------------------------------------------------------------

    def raw(self, name: str) -> RawParameters:
        return RedisRawLine(name, self._connection)

    def admit(self, name: str, claims: Sequence[tuple[RawClaim, Entry]], lease: float) -> list[bool]:
        return placing.admit(self._connection, name, claims, lease)

    def is_leased(self, name: str, ids: Sequence[str]) -> list[bool]:
        return RedisRawLine(name, self._connection).is_leased(ids)

    # --- care --------------------------------------------------------------------------------

    def prune(self, limit: int) -> None:
        self._connection.run("entry_prune", [max(0, limit)], repeatable=True)

    def check(self) -> list[Finding]:
        return checks.check(self._connection, Contents.ENTRIES)

    def prepare(self) -> None:
        layout.prepare(self._connection, Contents.ENTRIES)

    def close(self) -> None:
        self._connection.close()
