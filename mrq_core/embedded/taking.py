"""One claim inside its transaction: suspects, then waiting jobs from the head of each line."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

from mrq_core.clock import Clock, from_ms
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Claimed, ClaimRequest, Wanted
from mrq_core.contract.naming import is_covered
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import encoding
from mrq_core.embedded import heads, parking, rows, signals, slots, subqueues, uniques
from mrq_core.embedded.batch import Batch
from mrq_core.embedded.limiting import Limiter
from mrq_core.ids import new_nonce

MAX_SUSPECTS = 20
"""How many jobs with a lost claim one call looks at in a queue, to end those that must not run again."""
MIN_BLOCKED = 100
"""How many jobs one call may park or push back, and let go; four times what it may take, if that is more."""
SUSPECT_PAUSE_MS = 1000
"""When a suspect that lost its slot under a limit is looked at again."""
SWEEP_MS = 1000
"""How often a call that took all that it could looks for parked jobs with room nevertheless."""

_HEAD = """
SELECT seq, record, params, turn_ms FROM jobs INDEXED BY jobs_entries
WHERE queue = ? AND rank = ? AND due_ms <= ? ORDER BY due_ms, id LIMIT ?"""
_SUSPECTS = f"""
SELECT seq, params, {rows.COLUMNS} FROM jobs INDEXED BY jobs_entries
WHERE queue = ? AND rank = {rows.CLAIMED_RANK} AND due_ms <= ? ORDER BY due_ms, id LIMIT ?"""
_TAIL = """
SELECT seq, record, params, turn_ms FROM jobs INDEXED BY jobs_entries
WHERE queue = ? AND rank = ? AND due_ms <= ? ORDER BY due_ms DESC, id DESC LIMIT ?"""

Choice = list[tuple[Wanted, list[str]]]
"""For each wanted queue or tree the queues to look at."""


@dataclass(slots=True, kw_only=True)
class Turns:
    """Where the next claim goes on, in trees and among parked jobs. A process's own: losing it costs no
    fairness for long."""

    trees: dict[str, str] = field(default_factory=dict)
    parked: str = ""
    swept_ms: int = 0


@dataclass(slots=True, kw_only=True)
class _Found:
    records: list[JobRecord] = field(default_factory=list)
    ended: list[JobRecord] = field(default_factory=list)
    suspects_due: bool = False


class Round:
    """One claim, inside its transaction."""

    def __init__(
        self, connection: sqlite3.Connection, clock: Clock, request: ClaimRequest, turns: Turns
    ) -> None:
        self._connection = connection
        self._request = request
        self._turns = turns
        self._now_ms = clock.now_ms()
        self._now: datetime = from_ms(self._now_ms)
        self._nonce = new_nonce()
        self._numbers = count()
        self._batch = Batch(self._now_ms)
        self._limiter = Limiter(connection, request.limits, self._now_ms)
        self._may_block = max(MIN_BLOCKED, 4 * request.limit)
        self._found = _Found()
        self._goes_on = False
        self._given: dict[int, int] = {}

    def run(self) -> Claimed:
        """Suspects first: an idle worker takes one of them alone, or none is due."""
        choice = self._choose()
        expired, parked = parking.pending(self._connection, self._now_ms)
        levels = self._levels(choice)
        for name, ranks in levels.items():
            if any(level.is_claimed and level.due_ms <= self._now_ms for level in ranks):
                self._take_suspect(name)
        if expired:  # behind the suspects: one that is claimed again keeps its slot
            self._flush()
            parking.free_expired(self._connection, self._now_ms)
            levels = self._levels(choice)
        if not (self._request.idle and self._found.records):
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
            heads.promote(self._connection, wanted.name, self._now_ms)
            after = self._turns.trees.get(wanted.name, "")
            names, last, goes_on = subqueues.resolve(self._connection, wanted, after)
            if not names:
                self._turns.trees[wanted.name] = last
            self._goes_on = self._goes_on or goes_on
            choice.append((wanted, names))
        return choice

    def _advance(self, choice: Choice) -> None:
        """The next call begins behind the last subqueue that gave something to this one."""
        given = {record.queue for record in self._found.records}
        for tree, names in choice:
            if tree.name.endswith("/") and names:
                last = next((name for name in reversed(names) if name in given), names[-1])
                self._turns.trees[tree.name] = last

    def _answer(self) -> Claimed:
        found = self._found
        next_ms = subqueues.next_due(
            self._connection,
            self._request.wanted,
            self._now_ms,
            leases_after_ms=-1 if self._request.idle else self._now_ms,
        )
        if self._goes_on:
            next_ms = self._now_ms
        return Claimed(
            records=tuple(found.records),
            next_due=rows.moment(next_ms),
            suspects_due=found.suspects_due,
            ended=tuple(found.ended),
            now=self._now,
        )

    def _take_suspect(self, queue: str) -> None:
        request, found = self._request, self._found
        for seq, params, *columns in self._connection.execute(
            _SUSPECTS, (queue, self._now_ms, MAX_SUSPECTS)
        ).fetchall():
            before = rows.read(*columns)
            ended = lifecycle.after_lost_claim(before, request, self._now)
            if ended is not None:
                after = ended
            elif before.limit_keys and not self._has_slots(before):
                self._batch.look_again(seq, before, self._now_ms + SUSPECT_PAUSE_MS)
                continue
            elif request.idle and not found.records and request.limit > 0:
                after = self._claimed(before, alone=True)
                found.records.append(encoding.with_params(after, params))
            else:
                found.suspects_due = found.suspects_due or not request.idle
                continue
            if after.is_ended:
                found.ended.append(encoding.with_params(after, params))
                uniques.released(self._connection, after)
                if after.cancel_requested:
                    signals.answered(self._connection, after)
            self._batch.replace(seq, before, after)

    def _has_slots(self, suspect: JobRecord) -> bool:
        """Whether the suspect still has its slots, or there is room for those that it lost."""
        held = slots.held_by(self._connection, suspect.id)
        return self._limiter.full([key for key in suspect.limit_keys if key not in held]) is None

    def _take_waiting(self, choice: Choice, levels: dict[str, list[subqueues.Level]]) -> None:
        for number, (wanted, names) in enumerate(choice):
            room = self._room(number, wanted)
            for name in names:
                if room <= 0 or self._may_block <= 0:
                    break
                # a queue may be wanted twice, by name and in a tree: it is looked at once
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
        """Takes up to `room` jobs from a line. Those that a limit blocks are moved out of the way."""
        taken = 0
        if room <= 0 or self._may_block <= 0:
            return 0
        # The rows come one by one: what is behind the last one taken is not even read.
        for seq, before, params, turn_ms in self._line(queue, rank, room + self._may_block, reverse):
            if before.limit_keys and self._is_blocked(seq, before, turn_ms):
                self._may_block -= 1
                if self._may_block <= 0:
                    break
                continue
            after = self._claimed(before, alone=False)
            self._batch.take(seq, before, after)
            if after.unique_key is not None:
                uniques.claimed(self._connection, after)
            self._found.records.append(encoding.with_params(after, params))
            taken += 1
            if taken == room:
                break
        return taken

    def _is_blocked(self, seq: int, record: JobRecord, turn_ms: int | None) -> bool:
        """Whether a limit holds the job back; it is then parked, or pushed back to its turn."""
        key = self._limiter.full(record.limit_keys)
        if key is not None:
            self._batch.park(seq, record, key)
            return True
        if turn_ms is None or turn_ms > self._now_ms:  # and does not come at the turn it was given
            turn_ms = self._limiter.turn_ms(record.limit_keys)
            if turn_ms > self._now_ms:
                self._batch.push_back(seq, record, turn_ms)
                return True
        self._limiter.took(record.limit_keys)
        return False

    def _sweep(self) -> bool:
        """Lets parked jobs go that have room; whether there were any, and this call can take more."""
        has_room = len(self._found.records) < self._request.limit and self._may_block > 0
        if not has_room and 0 <= self._now_ms - self._turns.swept_ms < SWEEP_MS:
            return False
        self._turns.swept_ms = self._now_ms
        self._flush()
        number, self._turns.parked = parking.let_go_where_room(
            self._connection,
            self._limiter,
            self._turns.parked,
            max(MIN_BLOCKED, 4 * self._request.limit),
            self._now_ms,
        )
        return has_room and number > 0

    def _flush(self) -> None:
        self._batch.flush(self._connection)
        self._limiter.flush()
        self._batch = Batch(self._now_ms)

    def _levels(self, choice: Choice) -> dict[str, list[subqueues.Level]]:
        return {name: subqueues.levels(self._connection, name) for _, names in choice for name in names}

    def _claimed(self, record: JobRecord, *, alone: bool) -> JobRecord:
        request = self._request
        return lifecycle.claimed(
            record,
            now=self._now,
            worker=request.worker,
            nonce=f"{self._nonce}{next(self._numbers):03x}",
            lease=request.lease,
            alone=alone,
        )

    def _line(
        self, queue: str, rank: int, limit: int, reverse: bool
    ) -> Iterator[tuple[int, JobRecord, bytes, int | None]]:
        statement = _TAIL if reverse else _HEAD
        cursor = self._connection.execute(statement, (queue, rank, self._now_ms, limit))
        try:
            for seq, record, params, turn_ms in cursor:
                yield seq, encoding.decode(record), params, turn_ms
        finally:
            cursor.close()
