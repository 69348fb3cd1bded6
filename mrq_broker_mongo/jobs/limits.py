"""Limits: who runs under each limit key. The times of rates are in `rates`, parked jobs in `parking`.

One document a key:

    held     [{job, token, until}]: the slots that are taken, each for one claim of a job, to the end of its
             lease; earlier versions wrote no token
    even_at  the time of the next claim if all claims came evenly, in Unix microseconds
    start_at the same time by the jobs that have started; see `mrq_core.drivers.limits`
    spacing  [interval, burst] in microseconds, in which both were counted; earlier versions wrote none

A slot is taken before the job is started and given back after it has ended, so that no crash lets more run
than the limit; a slot that a crash leaves ends with its lease. Two workers may try to claim the same lost
job: each changes only the slots of its claim and of the lost one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from bson import ObjectId
from pymongo import ReturnDocument, UpdateOne
from pymongo.errors import DuplicateKeyError

from mrq_broker_mongo.jobs.rates import Limits, even_us_of, from_us, spacing_under, stored_spacing
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import to_ms
from mrq_core.contract.messages import ClaimRef, Limit
from mrq_core.drivers.limits import limit_of, spacing_of

_ATTEMPTS = 20


class Claim(NamedTuple):
    """Who holds a slot: a claim of a job. `token`: None stands for each claim of the job."""

    job: ObjectId
    token: str | None


def room_to_let_go(connection: Connection, key: str, limits: Limits, now: datetime) -> int | None:
    """The number of parked jobs that may go now, by the concurrency and the rate of the key. None: any
    number."""
    return _room_in(connection, key, limits, now)[0]


def opens_at(connection: Connection, key: str, limits: Limits, now: datetime) -> datetime | None:
    """The time from which the rate of the key lets a parked job go. None: the key has no rate, or no room
    under its concurrency."""
    spacing = spacing_under(key, limits)
    if spacing is None:
        return None
    room, even_us = _room_in(connection, key, limits, now)
    if even_us is None:
        return None
    return now if room else from_us(spacing.opens_at_us(even_us))


def _room_in(
    connection: Connection, key: str, limits: Limits, now: datetime
) -> tuple[int | None, int | None]:
    """The room of a key, and the time of its rate unless the concurrency leaves no room."""
    rule = limit_of(key, limits)
    if rule is None:
        return None, None
    found = _find(connection, key)
    room = None
    if rule.concurrency is not None:
        held = [slot for slot in found.get("held", ()) if slot["until"] > now]
        room = max(0, rule.concurrency - len(held))
    spacing = spacing_of(rule)
    if spacing is None or room == 0:
        return room, None
    now_us = to_ms(now) * 1000
    even_us = even_us_of(found, spacing, now_us)
    if "even_at" in found and stored_spacing(found) != spacing:
        same = {name: found.get(name, {"$exists": False}) for name in ("even_at", "start_at", "spacing")}
        start_us = spacing.cut(int(found.get("start_at", 0)), now_us)
        cut = {"$set": {"even_at": even_us, "start_at": start_us, "spacing": list(spacing)}}
        connection.run("limits", lambda all_limits: all_limits.update_one({"_id": key, **same}, cut))
    of_rate = spacing.room(even_us, now_us)
    return of_rate if room is None else min(room, of_rate), even_us


def _find(connection: Connection, key: str) -> Doc:
    return connection.run("limits", lambda all_limits: all_limits.find_one({"_id": key})) or {}


def has_room(
    connection: Connection, job: ObjectId, keys: Iterable[str], limits: Limits, now: datetime
) -> bool:
    """Whether the job could take its slots. One that it still has counts for it."""
    for key in dict.fromkeys(keys):
        rule = limit_of(key, limits)
        if rule is not None and rule.concurrency is not None:
            found = connection.run("limits", lambda all_limits, key=key: all_limits.find_one({"_id": key}))  # type: ignore[misc]
            held = [
                slot for slot in (found or {}).get("held", ()) if slot["until"] > now and slot["job"] != job
            ]
            if len(held) >= rule.concurrency:
                return False
    return True


def take_slots(
    connection: Connection,
    claim: Claim,
    keys: Iterable[str],
    limits: Limits,
    now: datetime,
    until: datetime,
    *,
    instead_of: Claim,
) -> str | None:
    """Takes a slot under each key, in one order for all; the key that has none left, and then none is
    kept. A slot of the claim before, `instead_of`, counts as free."""
    ordered = sorted(set(keys))
    over = {"$or": [{"until": {"$lte": now}}, _slots_of([instead_of])]}
    for number, key in enumerate(ordered):
        if not _take_slot(connection, claim, key, limit_of(key, limits), over, until):
            give_back(connection, {key: [claim] for key in ordered[:number]}, now)
            return key
    return None


def _slots_of(claims: Sequence[Claim]) -> Doc:
    """The condition for slots of these claims, also for those of an earlier version."""
    of_any = [claim.job for claim in claims if claim.token is None]
    of_some = [{"job": claim.job, "token": {"$in": [claim.token, None]}} for claim in claims if claim.token]
    return {"$or": [*([{"job": {"$in": of_any}}] if of_any else ()), *of_some]}


def _take_slot(
    connection: Connection, claim: Claim, key: str, rule: Limit | None, over: Doc, until: datetime
) -> bool:
    connection.run(
        "limits",
        lambda limits: limits.update_one(
            {"_id": key, "held": {"$elemMatch": over}}, {"$pull": {"held": over}}
        ),
    )
    wanted: Doc = {"_id": key, "held.job": {"$ne": claim.job}}
    most = None if rule is None else rule.concurrency
    if most is not None:
        if most <= 0:
            return False
        wanted[f"held.{most - 1}"] = {"$exists": False}
    slot = {"job": claim.job, "token": claim.token, "until": until}
    for _ in range(_ATTEMPTS):
        try:
            connection.run(
                "limits", lambda limits: limits.update_one(wanted, {"$push": {"held": slot}}, upsert=True)
            )
            return True
        except DuplicateKeyError:
            # All slots are taken; or this one was taken by an attempt whose reply was lost; or another claim
            # of this job has one; or another process has created the document at this moment.
            found = connection.run("limits", lambda limits: limits.find_one({"_id": key})) or {}
            held = found.get("held", ())
            for one in held:
                if one["job"] == claim.job:
                    return bool(one.get("token") == claim.token)
            if most is not None and len(held) >= most:
                return False
    return False


def give_back(
    connection: Connection,
    held: Mapping[str, Sequence[Claim]],
    now: datetime,
) -> dict[str, int]:
    """Gives slots of claims back. Returns by key the number of parked jobs that may go instead: as many as
    there were slots, and no more than the rate of the key lets start within its horizon."""
    freed = {}
    for key, claims in held.items():
        before = connection.run("limits", _puller(key, _slots_of(claims)))
        tokens = {claim.job: claim.token for claim in claims}
        number = 0
        for slot in (before or {}).get("held", ()):
            if slot["job"] in tokens:
                number += tokens[slot["job"]] is None or slot.get("token") in (tokens[slot["job"]], None)
        spacing = stored_spacing(before)
        if before is not None and spacing is not None:
            number = min(number, spacing.room(int(before.get("even_at", 0)), to_ms(now) * 1000))
        freed[key] = number
    return freed


def _puller(key: str, those: Doc) -> Any:
    return lambda limits: limits.find_one_and_update(
        {"_id": key, "held": {"$elemMatch": those}},
        {"$pull": {"held": those}},
        return_document=ReturnDocument.BEFORE,
    )


def prolong(connection: Connection, claims: Sequence[ClaimRef], until: datetime) -> None:
    """Extends the slots of running claims that are renewed, and takes slots again that had ended.

    A slot that its job has just given back is not there any more: so those that are missing are taken only
    for jobs that still run.
    """
    limited = {
        "_id": {"$in": [ObjectId(ref.id) for ref in claims]},
        "token": {"$in": [ref.token for ref in claims]},
        "limit_keys": {"$exists": True},
        "status": "started",
    }
    fields = {"limit_keys": 1, "token": 1}
    found = connection.run("jobs", lambda all_jobs: list(all_jobs.find(limited, fields).hint("_id_")))
    pairs = [
        (key, Claim(doc["_id"], doc["token"])) for doc in found for key in sorted(set(doc["limit_keys"]))
    ]
    if not pairs:
        return
    moves = [
        UpdateOne({"_id": key, "held": {"$elemMatch": _slots_of([claim])}}, {"$set": {"held.$.until": until}})
        for key, claim in pairs
    ]
    result = connection.run("limits", lambda limits: limits.bulk_write(moves, ordered=False))
    if result.matched_count == len(moves):
        return
    keys = {"_id": {"$in": sorted({key for key, _ in pairs})}}
    held = {
        (doc["_id"], slot["job"], slot.get("token"))
        for doc in connection.run("limits", lambda limits: list(limits.find(keys)))
        for slot in doc.get("held", ())
    }
    missing = [
        (key, claim)
        for key, claim in pairs
        if not {(key, claim.job, claim.token), (key, claim.job, None)} & held
    ]
    running = {**limited, "_id": {"$in": [claim.job for _, claim in missing]}}
    there = {
        doc["_id"]
        for doc in connection.run(
            "jobs", lambda all_jobs: list(all_jobs.find(running, {"_id": 1}).hint("_id_"))
        )
    }
    again = [
        UpdateOne({"_id": key}, _slot_again(claim, until), upsert=True)
        for key, claim in missing
        if claim.job in there
    ]
    if again:
        connection.run("limits", lambda limits: limits.bulk_write(again, ordered=True))


def _slot_again(claim: Claim, until: datetime) -> list[Doc]:
    same_token = {"$eq": [{"$ifNull": ["$$this.token", claim.token]}, claim.token]}
    is_other = {"$not": [{"$and": [{"$eq": ["$$this.job", claim.job]}, same_token]}]}
    others = {"$filter": {"input": {"$ifNull": ["$held", []]}, "cond": is_other}}
    slot = {"job": claim.job, "token": claim.token, "until": until}
    return [{"$set": {"held": {"$concatArrays": [others, [slot]]}}}]


def prune(connection: Connection, now: datetime) -> None:
    """Forgets keys that nothing runs under, and whose rates are at rest."""
    now_us = to_ms(now) * 1000
    over = {"until": {"$lte": now}}
    connection.run(
        "limits",
        lambda limits: limits.update_many({"held": {"$elemMatch": over}}, {"$pull": {"held": over}}),
    )
    quiet = {
        "$and": [
            {"$or": [{"held": {"$exists": False}}, {"held": []}]},
            {"$or": [{"even_at": {"$exists": False}}, {"even_at": {"$lte": now_us}}]},
        ]
    }
    connection.run("limits", lambda limits: limits.delete_many(quiet))
