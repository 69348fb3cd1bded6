"""Taking due jobs for a worker: by queue, then by level, from the head of each level's line."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import count

from mrq_core import lifecycle
from mrq_core.clock import Clock, from_ms
from mrq_core.embedded import rows, signals, subqueues, uniques
from mrq_core.embedded.batch import Batch
from mrq_core.embedded.database import Database
from mrq_core.errors import NotSupported
from mrq_core.ids import new_nonce
from mrq_core.job import JobRecord
from mrq_core.messages import Claimed, ClaimRequest, Wanted

MAX_SUSPECTS = 20
"""How many jobs with a lost claim one call looks at in a queue, to end those that must not run again."""

_HEAD = """
SELECT seq, record, params FROM jobs INDEXED BY jobs_entries
WHERE queue = ? AND rank = ? AND due_ms <= ? ORDER BY due_ms, id LIMIT ?"""
_TAIL = """
SELECT seq, record, params FROM jobs INDEXED BY jobs_entries
WHERE queue = ? AND rank = ? AND due_ms <= ? ORDER BY due_ms DESC, id DESC LIMIT ?"""

Cursors = dict[str, str]
"""Where in each tree the next claim begins. A process's own: losing it costs no fairness for long."""


def claim(database: Database, clock: Clock, request: ClaimRequest, cursors: Cursors) -> Claimed:
    """See `Broker.claim`."""
    if request.limits:
        raise NotSupported(
            "the embedded broker has no limits on concurrency or rate yet: leave out the limits of the task, "
            "or use another broker"
        )
    wanted = _resolved(database, clock, request, cursors)
    claimed = database.write(lambda connection: _Round(connection, clock, request).run(wanted))
    _advance(cursors, wanted, claimed)
    if any(record.at_most_once for record in claimed.records):
        database.sync()  # that it was started must be known even after a power failure
    return claimed


def _resolved(
    database: Database, clock: Clock, request: ClaimRequest, cursors: Cursors
) -> list[tuple[Wanted, list[str]]]:
    """For each wanted queue or tree the queues to look at. Read before the lock is taken."""
    trees = [wanted for wanted in request.wanted if wanted.name.endswith("/")]
    found: dict[Wanted, list[str]] = {}
    if trees:

        def look(connection: sqlite3.Connection) -> None:
            now_ms = clock.now_ms()
            for tree in trees:
                resolved = subqueues.resolve(connection, tree, now_ms, cursors.get(tree.name, ""))
                found[tree] = resolved.names
                if not resolved.names:
                    cursors[tree.name] = resolved.last

        database.read(look)
    return [
        (wanted, found[wanted] if wanted in found else _unless_excluded(wanted)) for wanted in request.wanted
    ]


def _unless_excluded(wanted: Wanted) -> list[str]:
    return [] if subqueues.is_excluded(wanted.name, wanted.exclude) else [wanted.name]


def _advance(cursors: Cursors, wanted: list[tuple[Wanted, list[str]]], claimed: Claimed) -> None:
    """The next call begins behind the last subqueue that gave something to this one."""
    given = {record.queue for record in claimed.records}
    for tree, names in wanted:
        if tree.name.endswith("/") and names:
            cursors[tree.name] = next((name for name in reversed(names) if name in given), names[-1])


@dataclass(slots=True, kw_only=True)
class _Found:
    records: list[JobRecord] = field(default_factory=list)
    ended: list[JobRecord] = field(default_factory=list)
    suspects_due: bool = False


class _Round:
    """One claim, inside its transaction."""

    def __init__(self, connection: sqlite3.Connection, clock: Clock, request: ClaimRequest) -> None:
        self._connection = connection
        self._request = request
        self._now_ms = clock.now_ms()
        self._now: datetime = from_ms(self._now_ms)
        self._nonce = new_nonce()
        self._numbers = count()
        self._batch = Batch()
        self._found = _Found()

    def run(self, wanted: list[tuple[Wanted, list[str]]]) -> Claimed:
        """Suspects first: an idle worker takes one of them alone, or none is due."""
        queues = [name for _, names in wanted for name in names]
        levels = {name: subqueues.levels(self._connection, name) for name in queues}
        for name in queues:
            if any(level.is_claimed and level.due_ms <= self._now_ms for level in levels[name]):
                self._take_suspect(name)
        if not (self._request.idle and self._found.records):
            for one, names in wanted:
                self._take_waiting(one, names, levels)
        self._batch.flush(self._connection)
        found = self._found
        next_ms = subqueues.next_due(
            self._connection,
            self._request.wanted,
            self._now_ms,
            leases_after_ms=-1 if self._request.idle else self._now_ms,
        )
        return Claimed(
            records=tuple(found.records),
            next_due=rows.moment(next_ms),
            suspects_due=found.suspects_due,
            ended=tuple(found.ended),
            now=self._now,
        )

    def _take_suspect(self, queue: str) -> None:
        request, found = self._request, self._found
        for seq, before, params in self._head(queue, rows.CLAIMED_RANK, MAX_SUSPECTS):
            if before.cancel_requested:
                after = lifecycle.cancelled(before, now=self._now, ttl=request.cancel_ttl)
            elif lifecycle.is_condemned(before, request.max_lost_claims):
                after = lifecycle.condemned(before, now=self._now, ttl=request.failed_ttl)
            elif request.idle and not found.records and request.limit > 0:
                after = self._claimed(before, alone=True)
                found.records.append(rows.with_params(after, params))
            else:
                found.suspects_due = found.suspects_due or not request.idle
                continue
            if after.is_ended:
                found.ended.append(rows.with_params(after, params))
                if after.unique_key is not None:
                    uniques.released(self._connection, after)
                if after.cancel_requested:
                    signals.answered(self._connection, after)
            self._batch.replace(seq, before, after)

    def _take_waiting(
        self, wanted: Wanted, names: list[str], levels: dict[str, list[subqueues.Level]]
    ) -> None:
        request, found = self._request, self._found
        room = request.limit - len(found.records)
        if wanted.quota is not None:
            room = min(room, wanted.quota)
        for name in names:
            for level in levels[name]:
                if room <= 0:
                    return
                if level.is_claimed or level.due_ms > self._now_ms:
                    continue
                for seq, before, params in self._head(name, level.rank, room, wanted.reverse):
                    after = self._claimed(before, alone=False)
                    self._batch.replace(seq, before, after)
                    if after.unique_key is not None:
                        uniques.claimed(self._connection, after)
                    found.records.append(rows.with_params(after, params))
                    room -= 1
            # a queue may be wanted twice, by name and in a tree: it is looked at once
            levels[name] = []

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

    def _head(
        self, queue: str, rank: int, limit: int, reverse: bool = False
    ) -> Iterator[tuple[int, JobRecord, bytes]]:
        statement = _TAIL if reverse else _HEAD
        found = self._connection.execute(statement, (queue, rank, self._now_ms, limit)).fetchall()
        return ((seq, rows.decode(record), params) for seq, record, params in found)
