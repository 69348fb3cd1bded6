"""When each subqueue is next due: kept with every change, so that a tree need not be searched.

A row is `ready` where something was due when it was written, and stays so until its queue is changed
again; the others stand in the order of their times, and become ready when a claim finds their time
come. A walk over the ready ones of a tree therefore meets only names that have something to claim.
Queues outside of trees have no rows, and cost nothing.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from mrq_core.embedded.rows import CLAIMED_RANK

MAX_PROMOTED = 200
"""How many subqueues of a tree become ready in one claim."""

_HEADS = f"""
SELECT (SELECT min((SELECT min(due_ms) FROM jobs INDEXED BY jobs_entries
                    WHERE queue = ?1 AND rank = column1 AND rank IS NOT NULL))
        FROM (VALUES (-4), (-3), (-2), (-1), (0), (1), (2), (3), (4))),
       (SELECT min(due_ms) FROM jobs INDEXED BY jobs_entries WHERE queue = ?1 AND rank = {CLAIMED_RANK})"""
_PUT = "INSERT OR REPLACE INTO subqueues VALUES (?, ?, ?, ?, ?, ?)"
_DROP = "DELETE FROM subqueues WHERE queue = ?"
_PROMOTE = """
UPDATE subqueues SET is_ready = 1 WHERE queue IN (
    SELECT queue FROM subqueues INDEXED BY subqueues_later
    WHERE root = ? AND NOT is_ready AND due_ms <= ? ORDER BY due_ms LIMIT ?)"""


def is_in_tree(queue: str) -> bool:
    """Whether there is a tree that the queue belongs to."""
    return "/" in queue


def root_of(name: str) -> str:
    """The tree at the root of a subqueue, or of a tree."""
    return name.partition("/")[0] + "/"


def refresh(connection: sqlite3.Connection, queues: Iterable[str], now_ms: int) -> None:
    """Writes when these queues, whose entries have changed, are due."""
    for queue in queues:
        waiting_ms, claimed_ms = connection.execute(_HEADS, (queue,)).fetchone()
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
