"""Rates: when the next start under a limit key may come, in the documents of `limits`.

GCRA, with a second time by the jobs that have started; see `mrq_core.drivers.limits`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import ReturnDocument

from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import from_ms, to_ms
from mrq_core.contract.messages import Limit
from mrq_core.drivers.limits import HORIZON_US, Spacing, limit_of, spacing_of

Limits = Mapping[str, Limit]
_FAR_US = 10**15
"""Microseconds: a horizon that no rate exceeds."""


def spacing_under(key: str, limits: Limits) -> Spacing | None:
    rule = limit_of(key, limits)
    return None if rule is None else spacing_of(rule)


def stored_spacing(doc: Doc | None) -> Spacing | None:
    stored = (doc or {}).get("spacing")
    return None if stored is None else Spacing(*map(int, stored))


def even_us_of(doc: Doc, spacing: Spacing, now_us: int, name: str = "even_at") -> int:
    """The time of the key of this document, under this name. Where the rule has changed, the time is cut."""
    even_us = int(doc.get(name, now_us))
    return max(even_us if stored_spacing(doc) == spacing else spacing.cut(even_us, now_us), now_us)


def _plan_us_of(doc: Doc, spacing: Spacing, now_us: int) -> int:
    """The time from which the next start is reserved, before the burst is taken off."""
    return max(even_us_of(doc, spacing, now_us, name) for name in ("even_at", "start_at"))


def rates_of(keys: Iterable[str], limits: Limits) -> list[tuple[str, Spacing]]:
    """The keys with a rate, each once, and their spacings."""
    found = ((key, spacing_under(key, limits)) for key in dict.fromkeys(keys))
    return [(key, spacing) for key, spacing in found if spacing is not None]


def may_start(connection: Connection, keys: Iterable[str], limits: Limits, now: datetime) -> bool:
    """Whether a job may start at a time that was reserved for it. If so, it is counted as started."""
    now_us = to_ms(now) * 1000
    rates = rates_of(keys, limits)
    if len(rates) > 1:
        docs = _docs_of(connection, rates)
        for key, spacing in rates:
            start_us = even_us_of(docs.get(key, {}), spacing, now_us, "start_at")
            if not spacing.may_start(start_us, now_us):
                return False
    for key, spacing in rates:
        found = connection.run("limits", _count_start(key, spacing, now_us), repeatable=False) or {}
        if not spacing.may_start(even_us_of(found, spacing, now_us, "start_at"), now_us):
            return False
    return True


def allowed_at(
    connection: Connection, keys: Iterable[str], limits: Limits, now: datetime, *, is_late: bool
) -> datetime | str:
    """Reserves the next start under all rates of the keys (GCRA), and returns its time. If it is now, the job
    is counted as started. A key: its rate allows a start beyond the horizon. Then nothing is reserved, unless
    other claims came in between. `is_late`: the job had a reserved start, could not take it, and always gets
    another."""
    now_us = to_ms(now) * 1000
    rates = rates_of(keys, limits)
    if len(rates) > 1 and not is_late:
        latest = _latest(connection, rates, now_us)
        if latest is not None:
            return latest
    allowed_us = now_us
    horizon_us = _FAR_US if is_late else HORIZON_US
    for key, spacing in rates:
        charge = _charge(key, spacing, now_us, horizon_us, is_alone=len(rates) == 1)
        found = connection.run("limits", charge, repeatable=False) or {}
        of_key = _plan_us_of(found, spacing, now_us) - spacing.burst_us
        if of_key > now_us + horizon_us:
            return key
        allowed_us = max(allowed_us, of_key)
    if len(rates) > 1 and allowed_us <= now_us:
        for key, spacing in rates:
            connection.run("limits", _count_start(key, spacing, now_us), repeatable=False)
    return from_us(allowed_us)


def _docs_of(connection: Connection, rates: Sequence[tuple[str, Spacing]]) -> dict[str, Doc]:
    wanted = {"_id": {"$in": [key for key, _ in rates]}}
    return {doc["_id"]: doc for doc in connection.run("limits", lambda limits: list(limits.find(wanted)))}


def _latest(connection: Connection, rates: Sequence[tuple[str, Spacing]], now_us: int) -> str | None:
    """The key whose rate allows the latest start. None: all allow a start within the horizon."""
    docs = _docs_of(connection, rates)
    starts = {
        key: _plan_us_of(docs.get(key, {}), spacing, now_us) - spacing.burst_us for key, spacing in rates
    }
    latest = max(starts, key=starts.__getitem__)
    return latest if starts[latest] > now_us + HORIZON_US else None


def _stored_times(spacing: Spacing, now_us: int) -> tuple[Doc, Doc]:
    """The expressions of both times of a document, cut where the rule has changed."""
    is_same = {"$eq": ["$spacing", list(spacing)]}
    even, start = {"$ifNull": ["$even_at", now_us]}, {"$ifNull": ["$start_at", 0]}
    latest = now_us + spacing.interval_us
    return (
        {"$cond": [is_same, even, {"$min": [even, latest]}]},
        {"$cond": [is_same, start, {"$min": [start, latest]}]},
    )


def _charge(key: str, spacing: Spacing, now_us: int, horizon_us: int, *, is_alone: bool) -> Any:
    """Moves the time of the key on by one interval, if it allows a start within the horizon; and its time by
    starts, if that start is now and no other rate can put it off. Returns the document before."""
    even, start = _stored_times(spacing, now_us)
    plan = {"$max": [even, start, now_us]}
    is_near = {"$lte": [plan, now_us + horizon_us + spacing.burst_us]}
    is_now = {"$lte": [plan, now_us + spacing.burst_us]} if is_alone else False
    started = {"$add": [{"$max": [start, now_us]}, spacing.interval_us]}
    return _changer(
        key,
        {
            "even_at": {"$cond": [is_near, {"$add": [plan, spacing.interval_us]}, even]},
            "start_at": {"$cond": [is_now, started, start]},
            "spacing": list(spacing),
        },
    )


def _count_start(key: str, spacing: Spacing, now_us: int) -> Any:
    """Counts a job as started, if the rate of the key lets it start at a reserved time. Returns the document
    before."""
    even, start = _stored_times(spacing, now_us)
    is_allowed = {"$lte": [start, now_us + spacing.burst_us + spacing.interval_us]}
    started = {"$cond": [is_allowed, {"$add": [{"$max": [start, now_us]}, spacing.interval_us]}, start]}
    return _changer(
        key, {"even_at": {"$max": [even, started]}, "start_at": started, "spacing": list(spacing)}
    )


def _changer(key: str, fields: Doc) -> Any:
    return lambda limits: limits.find_one_and_update(
        {"_id": key}, [{"$set": fields}], upsert=True, return_document=ReturnDocument.BEFORE
    )


def from_us(microseconds: int) -> datetime:
    """The first whole millisecond that is not before the time."""
    return from_ms(math.ceil(microseconds / 1000))
