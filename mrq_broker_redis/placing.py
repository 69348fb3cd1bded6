"""Entries and unique keys: arguments of the scripts `entry_*.lua`, and answers. A batch is one script."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from mrq_broker_redis import asking
from mrq_broker_redis.connection import Connection
from mrq_broker_redis.rows import binary, moment
from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import ClaimRef, ClaimRequest, RawClaim, Unique
from mrq_core.contract.pair import Entry, KeyHolder, KeyRequest, Removal

BATCH = 500
"""How many entries one script changes: a longer one would keep others waiting."""
_RENEWED = (False, True, None)
"""By the script's answer."""

_pack = msgspec.msgpack.Encoder().encode
_unpack_names = msgspec.msgpack.Decoder(tuple[str, ...]).decode


# --- unique keys ------------------------------------------------------------------------------------


def reserve(connection: Connection, wanted: Sequence[KeyRequest]) -> list[KeyHolder]:
    """See `JobQueue.reserve`."""
    answers: list[KeyHolder] = []
    for start in range(0, len(wanted), BATCH):
        part = [[one.id, *_unique(one.unique)] for one in wanted[start : start + BATCH]]
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
        connection.run("entry_free", part, repeatable=True)


def _unique(unique: Unique) -> list[object]:
    """How a script takes it. A period without its length takes no key."""
    is_period = unique.until == "period" and unique.period is not None
    return [unique.key, unique.until, round((unique.period or 0.0) * 1000) if is_period else False]


# --- entries ----------------------------------------------------------------------------------------


def push(connection: Connection, entries: Sequence[Entry], lease: float | None) -> list[bool]:
    """See `JobQueue.push`. Raises ValueError where an entry comes as claimed and there is no lease for it."""
    if lease is None and any(entry.token is not None for entry in entries):
        raise ValueError("an entry with a token comes as claimed: expected the length of its lease")
    lease_ms = round((lease or 0.0) * 1000)
    answers: list[bool] = []
    for start in range(0, len(entries), BATCH):
        places: dict[tuple[str, str], int] = {}
        part = [_placed(entry, places) for entry in entries[start : start + BATCH]]
        arguments = [lease_ms, list(places), part]
        answers += map(bool, connection.run("entry_push", arguments, repeatable=True))
    return answers


def admit(
    connection: Connection, name: str, claims: Sequence[tuple[RawClaim, Entry]], lease: float
) -> list[bool]:
    """See `JobQueue.admit`. Id and token are the claim's, whatever the entry says."""
    answers: list[bool] = []
    for start in range(0, len(claims), BATCH):
        places: dict[tuple[str, str], int] = {}
        part = []
        for claim, entry in claims[start : start + BATCH]:
            entry = msgspec.structs.replace(entry, id=claim.job_id, token=claim.token)
            part.append([claim.param, _placed(entry, places)])
        arguments = [name, round(lease * 1000), list(places), part]
        answers += map(bool, connection.run("entry_admit", arguments, repeatable=True))
    return answers


def _placed(entry: Entry, places: dict[tuple[str, str], int]) -> list[object]:
    """An entry as lua/entries.lua takes it, with the number of its queue and rank among the places."""
    place = places.setdefault((entry.queue, str(-entry.priority)), len(places) + 1)
    due = False if entry.due_at is None else str(to_ms(entry.due_at))
    if not (entry.claims or entry.token or entry.limit_keys or entry.unique):
        return [entry.id, place, due, entry.version]
    limit_keys = binary(_pack(entry.limit_keys)) if entry.limit_keys else False
    unique = False if entry.unique is None else _unique(entry.unique)
    return [entry.id, place, due, entry.version, entry.claims, entry.token or False, limit_keys, unique]


def take(connection: Connection, suspects: Sequence[tuple[Entry, str]], request: ClaimRequest) -> list[bool]:
    """See `JobQueue.take`. Repeated with the same tokens, it answers as before."""
    answers: list[bool] = []
    for start in range(0, len(suspects), BATCH):
        part = [
            [entry.id, entry.version, entry.token or "", token]
            for entry, token in suspects[start : start + BATCH]
        ]
        arguments = [request.worker, round(request.lease * 1000), asking.limits_as_map(request.limits), part]
        answers += map(bool, connection.run("entry_take", arguments, repeatable=True))
    return answers


def release(connection: Connection, claims: Sequence[ClaimRef]) -> list[bool]:
    """See `JobQueue.release`. Repeated while nothing else has happened to the entry, it answers as before."""
    answers: list[bool] = []
    for start in range(0, len(claims), BATCH):
        part = [[claim.id, claim.token] for claim in claims[start : start + BATCH]]
        answers += map(bool, connection.run("entry_release", part, repeatable=True))
    return answers


def renew(connection: Connection, claims: Sequence[ClaimRef], lease: float) -> list[bool | None]:
    """See `JobQueue.renew`."""
    answers: list[bool | None] = []
    for start in range(0, len(claims), BATCH):
        part = [[claim.id, claim.token] for claim in claims[start : start + BATCH]]
        found = connection.run("entry_renew", [round(lease * 1000), part], repeatable=True)
        answers += [_RENEWED[answer] for answer in found]
    return answers


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
        answers += map(bool, connection.run("entry_remove", part, repeatable=True))
    return answers


# --- looking ----------------------------------------------------------------------------------------


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
    """The time by which the scripts go."""
    return from_ms(int(connection.run("entry_read", [], repeatable=True)[0]))


def entry_in(job_id: str, row: Sequence[Any]) -> Entry:
    """The entry of a row with the fields that lua/entries.lua lists."""
    queue, rank, due, version, claims, token, limit_keys, key, until, period, place = row
    is_parked = token is None and place == b"p"
    return Entry(
        id=job_id,
        queue=queue.decode(),
        version=int(version or 1),
        priority=-int(rank or 0),
        due_at=None if is_parked else moment(due),
        claims=int(claims or 0),
        token=None if token is None else token.decode(),
        limit_keys=limit_keys_in(limit_keys),
        unique=unique_in(key, until, period),
    )


def limit_keys_in(packed: bytes | None) -> tuple[str, ...]:
    """The limit keys as they are stored."""
    return () if packed is None else _unpack_names(packed)


def unique_in(key: bytes | None, until: bytes | None, period: bytes | None) -> Unique | None:
    """The unique key as an entry stores it, the period in milliseconds."""
    if key is None or until is None:
        return None
    seconds = None if period is None else int(period) / 1000
    return Unique(key=key.decode(), until=until.decode(), period=seconds)
