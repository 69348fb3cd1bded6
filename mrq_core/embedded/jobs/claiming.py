"""Claiming due jobs for a worker, in one transaction: lost claims first, then waiting jobs.

The claim of an at_most_once job is synced to the disk, because a power failure must not hide that it started.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

from mrq_core import failpoints
from mrq_core.clock import Clock, from_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Claimed, ClaimRequest, Wanted
from mrq_core.contract.naming import is_covered
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import encoding
from mrq_core.embedded.jobs import lost_claims, parking, records, trees, uniques
from mrq_core.embedded.jobs.batch import Batch
from mrq_core.embedded.jobs.limits import Limiter
from mrq_core.embedded.jobs.lost_claims import Found
from mrq_core.embedded.server.connection import Database
from mrq_core.errors import BrokerCorrupt
from mrq_core.ids import new_nonce

MIN_BLOCKED = 100
"""How many jobs one call may park or push back, and let go; four times what it may take, if that is more."""
SWEEP_MS = 1000
"""How often a call that took all that it could looks for parked jobs with room nevertheless."""

_HEAD = """
SELECT seq, record, params, allowed_ms FROM jobs INDEXED BY jobs_entries
WHERE queue = ? AND rank = ? AND due_ms <= ? ORDER BY due_ms, id LIMIT ?"""
_TAIL = """
SELECT seq, record, params, allowed_ms FROM jobs INDEXED BY jobs_entries
WHERE queue = ? AND rank = ? AND due_ms <= ? ORDER BY due_ms DESC, id DESC LIMIT ?"""

Choice = list[tuple[Wanted, list[str]]]
"""For each wanted queue or tree the queues to look at."""


@dataclass(slots=True, kw_only=True)
class Rotation:
    """Where the next claim of this process continues, in trees and among parked jobs. Its loss costs little
    fairness, and only for a short time."""

    trees: dict[str, str] = field(default_factory=dict)
    parked: str = ""
    swept_ms: int = 0


def claim(database: Database, clock: Clock, request: ClaimRequest, rotation: Rotation) -> Claimed:
    """See `Broker.claim`."""
    claimed = database.write(lambda connection: _Claim(connection, clock, request, rotation).run())
    if any(record.at_most_once for record in claimed.records):
        failpoints.reach("claim.unsynced")
        database.sync()
    return claimed


class _Claim:
    """One claim, inside its transaction."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Clock, request: ClaimRequest, rotation: Rotation
    ) -> None:
        self._connection = connection
        self._request = request
        self._rotation = rotation
        self._now_ms = clock.now_ms()
        self._now: datetime = from_ms(self._now_ms)
        self._nonce = new_nonce()
        self._numbers = count()
        self._batch = Batch(self._now_ms)
        self._limiter = Limiter(connection, request, self._now_ms)
        self._has_pauses = bool(request.paused_tasks)
        self._may_block = self._may_step_over = max(MIN_BLOCKED, 4 * request.limit)
        self._chooses = request.chooses_tasks
        if not self._chooses:
            self._may_step_over = 0
        self._has_stepped_over = False
        self._has_blocked = False
        self._found = Found(self._now)
        self._may_take_suspects = request.lost_limit > 0
        self._goes_on = False
        self._given: dict[int, int] = {}

    def run(self) -> Claimed:
        choice = self._choose()
        expired, parked = parking.pending(self._connection, self._now_ms)
        levels = self._levels(choice)
        for name, ranks in levels.items():
            if any(level.is_claimed and level.due_ms <= self._now_ms for level in ranks):
                lost_claims.see_to(self._connection, name, self._request, self._batch, self._found)
        if self._found.suspects:
            self._take_suspects()
        if expired:  # after the lost claims: a job that is claimed again keeps its slot
            self._flush()
            parking.free_expired(self._connection, self._now_ms)
            levels = self._levels(choice)
        self._take_waiting(choice, levels)
        if parked and self._sweep():
            self._take_waiting(choice, self._levels(choice))
        self._flush()
        self._advance(choice)
        return self._answer()

    def _choose(self) -> Choice:
        """The queues to look at: those that are wanted by name, and due ones of the trees."""
        choice: Choice = []
        for wanted in self._request.wanted:
            if not wanted.name.endswith("/"):
                excluded = is_covered(wanted.name, wanted.exclude)
                choice.append((wanted, [] if excluded else [wanted.name]))
                continue
            trees.promote(self._connection, wanted.name, self._now_ms)
            after = self._rotation.trees.get(wanted.name, "")
            names, last, goes_on = trees.resolve(self._connection, wanted, after)
            if not names:
                self._rotation.trees[wanted.name] = last
            self._goes_on = self._goes_on or goes_on
            choice.append((wanted, names))
        return choice

    def _advance(self, choice: Choice) -> None:
        """The next call begins behind the last subqueue that gave something to this one."""
        given = {record.queue for record in self._found.records}
        for tree, names in choice:
            if tree.name.endswith("/") and names:
                last = next((name for name in reversed(names) if name in given), names[-1])
                self._rotation.trees[tree.name] = last

    def _answer(self) -> Claimed:
        found = self._found
        known_ms = -1 if self._may_take_suspects else self._now_ms
        next_ms = trees.next_due(
            self._connection, self._request.wanted, self._now_ms, leases_after_ms=known_ms
        )
        opens_ms = self._limiter.opens_ms()
        if opens_ms is not None:
            next_ms = opens_ms if next_ms is None else min(next_ms, opens_ms)
        if self._goes_on:
            next_ms = self._now_ms
        return Claimed(
            records=tuple(found.records),
            next_due=records.moment(next_ms),
            ended=tuple(found.ended),
            now=self._now,
            is_denied=self._has_stepped_over and not (self._has_blocked or found.records),
        )

    def _take_suspects(self) -> None:
        most = min(self._request.lost_limit, self._request.limit)
        lost_claims.take(self._connection, self._batch, self._limiter, self._found, self._claimed, most)
        self._may_take_suspects = len(self._found.records) < self._request.lost_limit

    def _take_waiting(self, choice: Choice, levels: dict[str, list[trees.Level]]) -> None:
        for number, (wanted, names) in enumerate(choice):
            room = self._room(number, wanted)
            for name in names:
                if room <= 0 or self._may_block <= 0:
                    break
                # a queue may be wanted twice, by name and in a tree, and is read once
                for level in levels.pop(name, ()):
                    if not level.is_claimed and level.due_ms <= self._now_ms:
                        taken = self._take_from(name, level.rank, room, reverse=wanted.reverse)
                        self._given[number] = self._given.get(number, 0) + taken
                        room -= taken

    def _room(self, number: int, wanted: Wanted) -> int:
        room = self._request.limit - len(self._found.records)
        if wanted.quota is not None:
            room = min(room, wanted.quota - self._given.get(number, 0))
        return room

    def _take_from(self, queue: str, rank: int, room: int, *, reverse: bool) -> int:
        """Claims up to `room` jobs of one priority. Parks or pushes back jobs that a limit blocks."""
        taken = 0
        if room <= 0 or self._may_block <= 0:
            return 0
        # The rows come one by one: rows after the last claimed job are never read.
        most = room + self._may_block + self._may_step_over
        for seq, before, params, allowed_ms in self._due_entries(queue, rank, most, reverse):
            if self._chooses and self._request.leaves(before.path):
                self._has_stepped_over = True
                self._may_step_over -= 1
                if self._may_step_over <= 0:
                    break
                continue
            if (before.limit_keys or self._has_pauses) and self._is_blocked(seq, before, allowed_ms):
                self._has_blocked = True
                self._may_block -= 1
                if self._may_block <= 0:
                    break
                continue
            after = self._claimed(before)
            self._batch.take(seq, before, after)
            if after.unique_key is not None:
                uniques.claimed(self._connection, after)
            self._found.records.append(encoding.with_params(after, params))
            taken += 1
            if taken == room:
                break
        return taken

    def _is_blocked(self, seq: int, record: JobRecord, allowed_ms: int | None) -> bool:
        """Whether a limit or a pause blocks the job, which is then parked or pushed back."""
        key = self._limiter.full_of(record)
        if key is not None:
            self._batch.park(seq, record, key)
            return True
        # A job that comes at the time that its rates allowed is not charged again.
        is_reserved = allowed_ms is not None and allowed_ms <= self._now_ms
        if not (is_reserved and self._limiter.may_start(record.limit_keys)):
            allowed = self._limiter.allowed_ms(record, is_late=is_reserved)
            if isinstance(allowed, str):
                self._batch.park(seq, record, allowed)
                return True
            if allowed > self._now_ms:
                self._batch.push_back(seq, record, allowed)
                return True
        self._limiter.starts(record.limit_keys)
        return False

    def _sweep(self) -> bool:
        """Lets parked jobs go that have room; whether there were any, and this call can take more."""
        has_room = len(self._found.records) < self._request.limit and self._may_block > 0
        if not has_room and 0 <= self._now_ms - self._rotation.swept_ms < SWEEP_MS:
            return False
        self._rotation.swept_ms = self._now_ms
        self._flush()
        number, self._rotation.parked = parking.let_go_where_room(
            self._connection,
            self._limiter,
            self._rotation.parked,
            max(MIN_BLOCKED, 4 * self._request.limit),
            self._now_ms,
        )
        return has_room and number > 0

    def _flush(self) -> None:
        self._batch.flush(self._connection)
        self._limiter.flush()
        self._batch = Batch(self._now_ms)

    def _levels(self, choice: Choice) -> dict[str, list[trees.Level]]:
        return {name: trees.levels(self._connection, name) for _, names in choice for name in names}

    def _claimed(self, record: JobRecord) -> JobRecord:
        request = self._request
        return lifecycle.claimed(
            record,
            now=self._now,
            worker=request.worker,
            nonce=f"{self._nonce}{next(self._numbers):03x}",
            lease=request.lease,
        )

    def _due_entries(
        self, queue: str, rank: int, limit: int, reverse: bool
    ) -> Iterator[tuple[int, JobRecord, bytes, int | None]]:
        statement = _TAIL if reverse else _HEAD
        cursor = self._connection.execute(statement, (queue, rank, self._now_ms, limit))
        try:
            for seq, record, params, allowed_ms in cursor:
                yield seq, encoding.decode(record), params, allowed_ms
        except BrokerCorrupt as error:
            raise records.damaged_at(self._connection, seq, error) from error
        finally:
            cursor.close()
