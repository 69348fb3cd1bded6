"""Which queues a claim or a wait looks at, and when each of them is due.

A tree is resolved by stepping from name to name in the index over entries, so its cost is that of
its subqueues with entries and never of the entries themselves.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from mrq_core.embedded.rows import CLAIMED_RANK
from mrq_core.messages import Wanted

MAX_SUBQUEUES = 32
MAX_STEPS = 1000
"""How many subqueues with entries one call steps over to find due ones."""

_WAITING = "(VALUES (-4), (-3), (-2), (-1), (0), (1), (2), (3), (4))"
_ALL = "(VALUES (-4), (-3), (-2), (-1), (0), (1), (2), (3), (4), (9))"
_LEVELS = f"""
SELECT column1, (SELECT min(due_ms) FROM jobs INDEXED BY jobs_entries
                 WHERE queue = ?1 AND rank = column1 AND rank IS NOT NULL) AS due
FROM {_ALL} WHERE due IS NOT NULL"""
_NEXT_NAME = """
(SELECT min(queue) FROM jobs INDEXED BY jobs_entries
 WHERE rank IS NOT NULL AND queue > {after} AND queue < :end)"""
_WALK = f"""
WITH RECURSIVE names (name, step) AS (
    SELECT {_NEXT_NAME.format(after=":after")}, 1
    UNION ALL
    SELECT {_NEXT_NAME.format(after="name")}, step + 1 FROM names WHERE name IS NOT NULL AND step < :steps
)
SELECT name,
       (SELECT min((SELECT min(due_ms) FROM jobs INDEXED BY jobs_entries
                    WHERE queue = name AND rank = column1 AND rank IS NOT NULL)) FROM {_WAITING}),
       (SELECT min(due_ms) FROM jobs INDEXED BY jobs_entries WHERE queue = name AND rank = {CLAIMED_RANK})
FROM names WHERE name IS NOT NULL"""


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

    def is_due(self, now_ms: int) -> bool:
        """Whether there is something to claim: a waiting job, or one whose lease ran out."""
        return (self.waiting_ms is not None and self.waiting_ms <= now_ms) or (
            self.claimed_ms is not None and self.claimed_ms <= now_ms
        )


class Resolved(NamedTuple):
    """Subqueues of a tree with something to claim. `last`: the name up to which the walk came."""

    names: list[str]
    last: str


def levels(connection: sqlite3.Connection, queue: str) -> list[Level]:
    """The levels of a queue that have entries, largest priority first, claimed ones last."""
    return [Level(*row) for row in connection.execute(_LEVELS, (queue,))]


def is_excluded(name: str, exclude: frozenset[str]) -> bool:
    """Whether the queue, or a tree that it is in, is to be left out."""
    if not exclude:
        return False
    if name in exclude:
        return True
    return any(name[: index + 1] in exclude for index, letter in enumerate(name) if letter == "/")


def end_of(tree: str) -> str:
    """The first name behind all names in the tree."""
    return tree[:-1] + chr(ord("/") + 1)


def resolve(connection: sqlite3.Connection, wanted: Wanted, now_ms: int, after: str) -> Resolved:
    """At most 32 subqueues with something to claim, behind `after` and then from the start."""
    names: list[str] = []
    last = ""
    for subqueue in _walk(connection, wanted.name, after):
        last = subqueue.name
        if subqueue.is_due(now_ms) and not is_excluded(subqueue.name, wanted.exclude):
            names.append(subqueue.name)
            if len(names) == MAX_SUBQUEUES:
                break
    return Resolved(names, last)


def next_due(
    connection: sqlite3.Connection, wanted: Sequence[Wanted], now_ms: int, *, leases_after_ms: int
) -> int | None:
    """The earliest time at which there may be something to claim; at most now_ms means now.

    Leases that ended up to `leases_after_ms` are left out: whoever asks knows of them already,
    and may be in no position to take a suspect.
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
        if not one.name.endswith("/"):
            if not is_excluded(one.name, one.exclude):
                for level in levels(connection, one.name):
                    if not level.is_claimed or level.due_ms > leases_after_ms:
                        yield level.due_ms
            continue
        for subqueue in _walk(connection, one.name, ""):
            if is_excluded(subqueue.name, one.exclude):
                continue
            if subqueue.waiting_ms is not None:
                yield subqueue.waiting_ms
            if subqueue.claimed_ms is not None and subqueue.claimed_ms > leases_after_ms:
                yield subqueue.claimed_ms


def _walk(connection: sqlite3.Connection, tree: str, after: str) -> Iterator[Subqueue]:
    """Subqueues with entries, by name from behind `after` and round to it again."""
    steps = 0
    parts = [(after, end_of(tree)), (tree, after + "\0")] if after else [(tree, end_of(tree))]
    for start, end in parts:
        values = {"after": start, "end": end, "steps": MAX_STEPS - steps}
        for row in connection.execute(_WALK, values):
            steps += 1
            yield Subqueue(*row)
        if steps >= MAX_STEPS:
            return
