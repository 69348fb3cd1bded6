"""Letting parked jobs go where a claim finds room that no settle gave: leases that ended, limits that grew,
starts under a rate that come within its horizon.

Each call does a bounded part, and goes on with the next keys where the last one stopped.
"""

from __future__ import annotations

import sqlite3

from mrq_core.embedded.jobs import slots
from mrq_core.embedded.jobs.batch import let_go, let_go_to_slots
from mrq_core.embedded.jobs.limits import Limiter

MAX_SLOTS = 100
"""How many slots whose lease has ended one call frees."""
MAX_KEYS = 20
"""How many keys with parked jobs one call looks at."""

_PENDING = "SELECT EXISTS (SELECT 1 FROM slots WHERE until_ms <= ?), EXISTS (SELECT 1 FROM parked)"
_KEYS = """
WITH RECURSIVE keys (name, step) AS (
    SELECT (SELECT min(limit_key) FROM parked WHERE limit_key > :after), 1
    UNION ALL
    SELECT (SELECT min(limit_key) FROM parked WHERE limit_key > name), step + 1 FROM keys
    WHERE name IS NOT NULL AND step < :steps
)
SELECT name FROM keys WHERE name IS NOT NULL"""


def pending(connection: sqlite3.Connection, now_ms: int) -> tuple[bool, bool]:
    """Whether there are slots whose lease has ended, and whether there are parked jobs."""
    expired, parked = connection.execute(_PENDING, (now_ms,)).fetchone()
    return bool(expired), bool(parked)


def free_expired(connection: sqlite3.Connection, now_ms: int) -> int:
    """Gives the slots of ended leases to parked jobs; answers with how many were let go."""
    return let_go_to_slots(connection, slots.free_expired(connection, now_ms, MAX_SLOTS), now_ms)


def let_go_where_room(
    connection: sqlite3.Connection, limiter: Limiter, after: str, limit: int, now_ms: int
) -> tuple[int, str]:
    """Lets up to `limit` jobs go whose key has room, or is not limited any more.

    Looks at some keys, by name from behind `after`; answers with how many jobs were let go, and where
    the next call begins.
    """
    keys = [key for (key,) in connection.execute(_KEYS, {"after": after, "steps": MAX_KEYS})]
    last = keys[-1] if len(keys) == MAX_KEYS else ""
    number = 0
    for key in keys:
        room = limiter.room_to_let_go(key)
        allowed = limit - number if room is None else min(room, limit - number)
        if allowed > 0:
            number += let_go(connection, {key: allowed}, now_ms)
    return number, last
