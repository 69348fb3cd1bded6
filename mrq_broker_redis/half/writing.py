"""Entries: arguments and answers of the scripts in lua/half. Each batch is one script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from mrq_broker_redis.jobs import limits, uniques
from mrq_broker_redis.jobs.records import binary, moment
from mrq_broker_redis.server.connection import Connection
from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import ClaimRef, ClaimRequest, RawClaim
from mrq_core.contract.pair import Entry, Parking, Removal
from mrq_core.drivers.limits import rules_of

BATCH = 500
"""The most entries of one script. The server runs no other script meanwhile."""
RESTORED = 100
"""The most entries of one script that looks for their places, of which parked ones have many."""
_RENEWED = (False, True, None)
"""The result by the answer of the script."""

_pack = msgspec.msgpack.Encoder().encode
_unpack_names = msgspec.msgpack.Decoder(tuple[str, ...]).decode


# --- entries ----------------------------------------------------------------------------------------


def push(connection: Connection, entries: Sequence[Entry], lease: float | None) -> list[bool]:
    """See `JobQueue.push`. Raises ValueError for a claimed entry without a lease."""
    if lease is None and any(entry.token is not None for entry in entries):
        raise ValueError("an entry with a token is claimed: expected the length of its lease")
    lease_ms = round((lease or 0.0) * 1000)
    answers: list[bool] = []
    for start in range(0, len(entries), BATCH):
        queues: dict[tuple[str, str], int] = {}
        part = [_numbered(entry, queues) for entry in entries[start : start + BATCH]]
        arguments = [lease_ms, list(queues), part]
        is_change = all(entry.version > 1 for entry in entries[start : start + BATCH])
        found = connection.run("entry_push", arguments, repeatable=True, even_if_full=is_change)
        answers += map(bool, found)
    return answers


def admit(
    connection: Connection, name: str, claims: Sequence[tuple[RawClaim, Entry]], lease: float
) -> list[bool]:
    """See `JobQueue.admit`. The entry gets the id and the token of the claim."""
    answers: list[bool] = []
    for start in range(0, len(claims), BATCH):
        queues: dict[tuple[str, str], int] = {}
        part = []
        for claim, entry in claims[start : start + BATCH]:
            entry = msgspec.structs.replace(entry, id=claim.job_id, token=claim.token)
            part.append([claim.param, _numbered(entry, queues)])
        arguments = [name, round(lease * 1000), list(queues), part]
        answers += map(bool, connection.run("entry_admit", arguments, repeatable=True))
    return answers


def _numbered(entry: Entry, queues: dict[tuple[str, str], int]) -> list[object]:
    """An entry as lua/half/entries.lua takes it, with the number of its queue and rank among the queues."""
    number = queues.setdefault((entry.queue, str(-entry.priority)), len(queues) + 1)
    due = False if entry.due_at is None else str(to_ms(entry.due_at))
    if not (entry.claims or entry.token or entry.limit_keys or entry.unique):
        return [entry.id, number, due, entry.version]
    limit_keys = binary(_pack(entry.limit_keys)) if entry.limit_keys else False
    unique = False if entry.unique is None else uniques.unique_as_list(entry.unique)
    return [entry.id, number, due, entry.version, entry.claims, entry.token or False, limit_keys, unique]


def reclaim(
    connection: Connection, suspects: Sequence[tuple[Entry, str]], request: ClaimRequest
) -> list[bool]:
    """See `JobQueue.reclaim`. A repetition with the same tokens answers the same."""
    answers: list[bool] = []
    for start in range(0, len(suspects), BATCH):
        part = [
            [entry.id, entry.version, entry.token or "", token]
            for entry, token in suspects[start : start + BATCH]
        ]
        arguments = [
            request.worker,
            round(request.lease * 1000),
            limits.limits_as_map(rules_of(request)),
            part,
        ]
        answers += map(bool, connection.run("entry_reclaim", arguments, repeatable=True))
    return answers


def release(connection: Connection, claims: Sequence[ClaimRef]) -> list[bool]:
    """See `JobQueue.release`. A repetition answers the same while the entry has not changed."""
    answers: list[bool] = []
    for start in range(0, len(claims), BATCH):
        part = [[claim.id, claim.token] for claim in claims[start : start + BATCH]]
        answers += map(bool, connection.run("entry_release", part, repeatable=True, even_if_full=True))
    return answers


def park(connection: Connection, parkings: Sequence[Parking]) -> list[bool]:
    """See `JobQueue.park`."""
    answers: list[bool] = []
    for start in range(0, len(parkings), BATCH):
        part = [
            [one.claim.id, one.claim.token, one.key, str(to_ms(one.due_at))]
            for one in parkings[start : start + BATCH]
        ]
        answers += map(bool, connection.run("entry_park", part, repeatable=True))
    return answers


def renew(connection: Connection, claims: Sequence[ClaimRef], lease: float) -> list[bool | None]:
    """See `JobQueue.renew`."""
    answers: list[bool | None] = []
    for start in range(0, len(claims), BATCH):
        part = [[claim.id, claim.token] for claim in claims[start : start + BATCH]]
        arguments = [round(lease * 1000), part]
        found = connection.run("entry_renew", arguments, repeatable=True, even_if_full=True)
        answers += [_RENEWED[answer] for answer in found]
    return answers


def put_off(connection: Connection, claims: Sequence[ClaimRef], seconds: float) -> None:
    """See `JobQueue.put_off`."""
    for start in range(0, len(claims), BATCH):
        part = [[claim.id, claim.token] for claim in claims[start : start + BATCH]]
        arguments = [round(seconds * 1000), part]
        connection.run("entry_put_off", arguments, repeatable=True, even_if_full=True)


def remove(connection: Connection, removals: Sequence[Removal]) -> list[bool]:
    """See `JobQueue.remove`."""
    answers: list[bool] = []
    for start in range(0, len(removals), BATCH):
        part = [
            [
                one.id,
                False if one.version is None else one.version,
                False if one.token is None else one.token,
                False if one.key is None else one.key,
            ]
            for one in removals[start : start + BATCH]
        ]
        answers += map(bool, connection.run("entry_remove", part, repeatable=True, even_if_full=True))
    return answers


def restore(connection: Connection, ids: Sequence[str]) -> list[str]:
    """See `JobQueue.restore`."""
    answers: list[str] = []
    for start in range(0, len(ids), RESTORED):
        found = connection.run("entry_restore", list(ids[start : start + RESTORED]), repeatable=True)
        answers += [job_id.decode() for job_id in found]
    return answers


# --- reading ----------------------------------------------------------------------------------------


def read(connection: Connection, ids: Sequence[str]) -> list[Entry | None]:
    """See `JobQueue.entries`."""
    answers: list[Entry | None] = []
    for start in range(0, len(ids), BATCH):
        part = list(ids[start : start + BATCH])
        _, *rows = connection.run("entry_read", part, repeatable=True)
        answers += [
            None if row is None else entry_in(job_id, row) for job_id, row in zip(part, rows, strict=True)
        ]
    return answers


def now(connection: Connection) -> datetime:
    """The time that the scripts use."""
    return from_ms(int(connection.run("entry_read", [], repeatable=True)[0]))


def entry_in(job_id: str, row: Sequence[Any]) -> Entry:
    """The entry of a row with the fields that lua/half/entries.lua lists."""
    queue, rank, due, version, claims, token, limit_keys, key, until, period, state = row
    is_parked = token is None and state == b"p"
    return Entry(
        id=job_id,
        queue=queue.decode(),
        version=int(version or 1),
        priority=-int(rank or 0),
        due_at=None if is_parked else moment(due),
        claims=int(claims or 0),
        token=None if token is None else token.decode(),
        limit_keys=limit_keys_in(limit_keys),
        unique=uniques.unique_in(key, until, period),
    )


def limit_keys_in(packed: bytes | None) -> tuple[str, ...]:
    """The limit keys that an entry stores."""
    return () if packed is None else _unpack_names(packed)
