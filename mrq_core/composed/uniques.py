"""Unique keys of a pair: the queue knows the holder of a key, and the store whether the holder needs it.

The store alone holds keys until `record`, which it stores and deletes together with their records. None of
these functions concerns such keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from msgspec.structs import replace

from mrq_core.contract.messages import Unique
from mrq_core.contract.pair import JobQueue, JobStore, KeyHolder, KeyRequest, StoredJob
from mrq_core.contract.record import JobRecord, Status

_DOUBTFUL = timedelta(seconds=60)
"""A reservation that is younger may be of a call that is under way."""
_ATTEMPTS = 5


def reserve(
    queue: JobQueue, store: JobStore, wanted: Sequence[KeyRequest], now: datetime
) -> list[str | None]:
    """Gives each key to its job if it is free, and answers with the holders.

    Keys that crashes have left with jobs that do not need them are let go first.
    """
    holders: list[KeyHolder] = []
    for _ in range(_ATTEMPTS if wanted else 0):
        holders = queue.reserve(wanted)
        doubtful = {
            (one.unique.key, holder)
            for one, holder in zip(wanted, holders, strict=True)
            if holder.id not in (None, one.id)
            and holder.since is not None
            and holder.since + _DOUBTFUL <= now
        }
        stale = _without_need(store, list(doubtful))
        if not stale:
            break
        queue.free(stale)
    return [holder.id for holder in holders]


def _without_need(store: JobStore, held: Sequence[tuple[str, KeyHolder]]) -> list[tuple[str, KeyHolder]]:
    if not held:
        return []
    found = store.read([holder.id or "" for _, holder in held])
    return [
        (key, holder)
        for (key, holder), stored in zip(held, found, strict=True)
        if stored is None
        or stored.unique is None
        or stored.unique.key != key
        or not _is_needed(stored.unique, stored.record)
    ]


def _is_needed(unique: Unique, record: JobRecord) -> bool:
    if unique.is_of_record:
        return False
    if unique.until == "queued":
        return record.status is Status.QUEUED and record.started_at is None
    return unique.until == "period" or not record.is_ended


def of_entry(unique: Unique | None, record: JobRecord, *, begins: bool) -> Unique | None:
    """The key that the entry of a job reserves. None: the job needs no key. `begins`: the entry starts a
    period that no job holds."""
    if unique is None or not _is_needed(unique, record):
        return None
    return unique if begins else replace(unique, period=None)


def again(stored: StoredJob) -> KeyRequest | None:
    """The key that a job has to hold in order to be queued again."""
    if stored.unique is None or stored.unique.is_of_record:
        return None
    return KeyRequest(id=stored.record.id, unique=replace(stored.unique, period=None))


def to_let_go(unique: Unique | None) -> str | None:
    """The key of a job that has ended. A period goes on."""
    return None if unique is None or unique.until == "period" else of_queue(unique)


def of_queue(unique: Unique | None) -> str | None:
    """The key that the queue holds for a job."""
    return None if unique is None or unique.is_of_record else unique.key
