"""Trees of subqueues: which subqueues have a due job, and which of them a claim or a wait visits.

The head of each subqueue, the time of its next due entry, is stored with every change, so that a tree is
never searched. A row is `ready` where an entry was due when the row was written, and stays ready until its
queue changes; the other rows are ordered by their times, and become ready when a claim reaches their time. A
walk over the ready rows of a tree therefore meets only names with something to claim. Queues outside of trees
have no rows.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, repeat
from typing import NamedTuple

from mrq_core.contract.messages import Wanted
from mrq_core.contract.naming import is_covered
from mrq_core.embedded.jobs.records import CLAIMED_RANK

MAX_PROMOTED = 200
"""How many subqueues of a tree become ready in one claim."""

_HEADS = f"""
SELECT (SELECT min((SELECT min(due_ms) FROM jobs INDEXED BY jobs_entries
                    WHERE queue = ? AND rank = column1 AND rank IS NOT NULL))
        FROM (VALUES (-4), (-3), (-2), (-1), (0), (1), (2), (3), (4))),
       (SELECT min(due_ms) FROM jobs INDEXED BY jobs_entries WHERE queue = ? AND rank = {CLAIMED_RANK})"""
_PUT = "INSERT OR REPLACE INTO subqueues VALUES (?, ?, ?, ?, ?, ?)"
_DROP = "DELETE FROM subqueues WHERE queue = ?"
_PROMOTE = """
UPDATE subqueues SET is_ready = 1 WHERE queue IN (
    SELECT queue FROM subqueues INDEXED BY subqueues_later
    WHERE root = ? AND NOT is_ready AND due_ms <= ? ORDER BY due_ms LIMIT ?)"""
MAX_SUBQUEUES = 32
MAX_STEPS = 1000
"""How many excluded subqueues one call steps over to find others."""

_ALL = "(VALUES (-4), (-3), (-2), (-1), (0), (1), (2), (3), (4), (9))"
_LEVELS = f"""
SELECT column1, (SELECT min(due_ms) FROM jobs INDEXED BY jobs_entries
                 WHERE queue = ? AND rank = column1 AND rank IS NOT NULL) AS due
FROM {_ALL} WHERE due IS NOT NULL"""
_READY = """
SELECT queue, waiting_ms, claimed_ms FROM subqueues INDEXED BY subqueues_ready
WHERE is_ready AND queue >= ? AND queue < ? ORDER BY queue LIMIT ?"""
_LATER = """
SELECT queue, waiting_ms, claimed_ms FROM subqueues INDEXED BY subqueues_later
WHERE root = ? AND NOT is_ready ORDER BY due_ms LIMIT ?"""


# --- heads ------------------------------------------------------------------------------------------


def is_in_tree(queue: str) -> bool:
    """Whether there is a tree that the queue belongs to."""
    return "/" in queue


def root_of(name: str) -> str:
    """The tree at the root of a subqueue, or of a tree."""
    return name.partition("/")[0] + "/"


def refresh(connection: sqlite3.Connection, queues: Iterable[str], now_ms: int) -> None:
    """Writes when these queues, whose entries have changed, are due."""
    for queue in queues:
        waiting_ms, claimed_ms = connection.execute(_HEADS, (queue, queue)).fetchone()
        times = [time_ms for time_ms in (waiting_ms, claimed_ms) if time_ms is not None]
        if times:
            due_ms = min(times)
            row = (queue, root_of(queue), waiting_ms, claimed_ms, due_ms, due_ms <= now_ms)
            connection.execute(_PUT, row)
        else:
            connection.execute(_DROP, (queue,))


def promote(connection: sqlite3.Connection, tree: str, now_ms: int) -> None:
    """Marks subqueues whose time has come as ready, a bounded number of them, the earliest first."""
    connection.execute(_PROMOTE, (root_of(tree), now_ms, MAX_PROMOTED))


# --- walks ------------------------------------------------------------------------------------------


class Level(NamedTuple):
    """The entries of one priority, or the claimed ones, and the earliest time among them."""

    rank: int
    due_ms: int

    @property
    def is_claimed(self) -> bool:
        return self.rank == CLAIMED_RANK


class Subqueue(NamedTuple):
    """A queue with entries: when the first of the waiting ones is due, and the first lease ends."""

    name: str
    waiting_ms: int | None
    claimed_ms: int | None


class Resolved(NamedTuple):
    """Subqueues of a tree with something to claim. `last`: the name up to which the walk came.

    `goes_on`: it stopped before the end of the tree without having found any, so that another walk
    from there may find some.
    """

    names: list[str]
    last: str
    goes_on: bool


def levels(connection: sqlite3.Connection, queue: str) -> list[Level]:
    """The levels of a queue that have entries, largest priority first, claimed ones last."""
    return [Level(*row) for row in connection.execute(_LEVELS, (queue,))]


def end_of(tree: str) -> str:
    """The first name behind all names in the tree."""
    return tree[:-1] + chr(ord("/") + 1)


def resolve(connection: sqlite3.Connection, wanted: Wanted, after: str) -> Resolved:
    """At most 32 subqueues with something to claim, behind `after` and then from the start."""
    names: list[str] = []
    last = ""
    steps = 0
    for subqueue in _ready(connection, wanted.name, after):
        last = subqueue.name
        steps += 1
        if not is_covered(last, wanted.exclude):
            names.append(last)
            if len(names) == MAX_SUBQUEUES:
                break
    return Resolved(names, last, goes_on=not names and steps == MAX_STEPS and last > after)


def next_due(
    connection: sqlite3.Connection, wanted: Sequence[Wanted], now_ms: int, *, leases_after_ms: int
) -> int | None:
    """The earliest time at which there may be something to claim; at most now_ms means now.

    Leases that ended up to `leases_after_ms` are left out, because the caller has seen to them.
    """
    found: int | None = None
    for time_ms in _times(connection, wanted, leases_after_ms):
        if found is None or time_ms < found:
            found = time_ms
            if found <= now_ms:
                break
    return found


def _times(connection: sqlite3.Connection, wanted: Sequence[Wanted], leases_after_ms: int) -> Iterator[int]:
    for one in wanted:
        if one.name.endswith("/"):
            yield from _times_in_tree(connection, one, leases_after_ms)
        elif not is_covered(one.name, one.exclude):
            for level in levels(connection, one.name):
                if not level.is_claimed or level.due_ms > leases_after_ms:
                    yield level.due_ms


def _times_in_tree(connection: sqlite3.Connection, wanted: Wanted, leases_after_ms: int) -> Iterator[int]:
    later = map(Subqueue._make, connection.execute(_LATER, (root_of(wanted.name), MAX_STEPS)))
    number, last_ms = 0, None
    for ready, subqueue in chain(
        zip(repeat(True), _ready(connection, wanted.name, "")), zip(repeat(False), later)
    ):
        times = [
            time_ms
            for time_ms in (
                subqueue.waiting_ms,
                subqueue.claimed_ms if (subqueue.claimed_ms or 0) > leases_after_ms else None,
            )
            if time_ms is not None
        ]
        if subqueue.name.startswith(wanted.name) and not is_covered(subqueue.name, wanted.exclude):
            yield from times
            if times and not ready:
                return  # the others are due later
        if not ready:
            number += 1
            last_ms = min(times, default=last_ms)
    if number == MAX_STEPS and last_ms is not None:
        yield last_ms  # none of those behind is due before


def _ready(connection: sqlite3.Connection, tree: str, after: str) -> Iterator[Subqueue]:
    """Subqueues with something due, by name from behind `after` and round to it again."""
    left = MAX_STEPS
    behind = after + "\0"
    parts = [(behind, end_of(tree)), (tree, behind)] if after else [(tree, end_of(tree))]
    for start, end in parts:
        for row in connection.execute(_READY, (start, end, left)):
            left -= 1
            yield Subqueue._make(row)
