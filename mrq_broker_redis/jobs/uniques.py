"""Unique keys of a queue whose records are in another store, and unique keys as arguments of scripts.

A broker that keeps whole jobs reserves keys in its scripts; see lua/jobs/uniques.lua.
"""

from __future__ import annotations

from collections.abc import Sequence

from mrq_broker_redis.jobs.records import moment
from mrq_broker_redis.server.connection import Connection
from mrq_core.clock import to_ms
from mrq_core.contract.messages import Unique
from mrq_core.contract.pair import KeyHolder, KeyRequest

BATCH = 500
"""The number of keys that one script changes."""


def reserve(connection: Connection, wanted: Sequence[KeyRequest]) -> list[KeyHolder]:
    """See `JobQueue.reserve`."""
    answers: list[KeyHolder] = []
    for start in range(0, len(wanted), BATCH):
        part = [[one.id, *unique_as_list(one.unique)] for one in wanted[start : start + BATCH]]
        found = connection.run("entry_reserve", part, repeatable=True)
        answers += [
            KeyHolder(id=None if holder is None else holder.decode(), since=moment(since))
            for holder, since in zip(found[::2], found[1::2], strict=True)
        ]
    return answers


def free(connection: Connection, held: Sequence[tuple[str, KeyHolder]]) -> None:
    """See `JobQueue.free`."""
    for start in range(0, len(held), BATCH):
        part = [
            [key, holder.id or "", False if holder.since is None else str(to_ms(holder.since))]
            for key, holder in held[start : start + BATCH]
        ]
        connection.run("entry_free", part, repeatable=True, even_if_full=True)


def unique_as_list(unique: Unique) -> list[object]:
    """A unique key as arguments of a script. A period without its length reserves no key."""
    is_period = unique.until == "period" and unique.period is not None
    return [unique.key, unique.until, round((unique.period or 0.0) * 1000) if is_period else False]


def unique_in(key: bytes | None, until: bytes | None, period: bytes | None) -> Unique | None:
    """The unique key as an entry stores it, the period in milliseconds."""
    if key is None or until is None:
        return None
    seconds = None if period is None else int(period) / 1000
    return Unique(key=key.decode(), until=until.decode(), period=seconds)
