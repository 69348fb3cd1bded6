"""The updates that end claims with success.

The server takes half as long for one update of many documents as for one of each. So those of a claim are
written together, as far as they set the same fields; the values that differ stand in lists in the update, by
the jobs' ids.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId
from pymongo import UpdateMany, UpdateOne

from mrq_broker_mongo.jobs.records import pack_result, rename
from mrq_broker_mongo.server.location import Doc
from mrq_core.clock import after
from mrq_core.contract import codec
from mrq_core.contract.messages import Settlement

_TOGETHER = 100
"""How many jobs one update ends at most: the server looks each of them up in a list."""
_LARGE = 1000
"""A result of more bytes, or characters, goes alone: an update takes 16 MB at most."""
_MEASURED = ("result", "total_time", "greenlet_time", "switches", "memory_diff")


def successes(
    settlements: Sequence[Settlement], now: datetime, number: int, lease: str
) -> list[UpdateMany | UpdateOne]:
    """What ends these claims if they are the latest, of plain jobs, and running. `lease`: the field that says
    to when."""
    updates: list[UpdateMany | UpdateOne] = []
    groups: dict[tuple[str, float | None, tuple[str, ...]], list[tuple[ObjectId, Doc]]] = {}
    for one in settlements:
        outcome = one.outcome
        values = {name: value for name in _MEASURED if (value := getattr(outcome, name)) is not None}
        job = ObjectId(one.id)
        if _is_large(outcome.result):
            updates.append(_alone(job, one.token, _fields(now, number, outcome.ttl), values, lease))
        else:
            groups.setdefault((one.token, outcome.ttl, tuple(values)), []).append((job, values))
    for (token, ttl, names), members in groups.items():
        fields = _fields(now, number, ttl)
        for start in range(0, len(members), _TOGETHER):
            part = members[start : start + _TOGETHER]
            if len(part) == 1:
                updates.append(_alone(part[0][0], token, fields, part[0][1], lease))
            else:
                updates.append(_together(part, token, fields, names, lease))
    return updates


def _fields(now: datetime, number: int, ttl: float | None) -> Doc:
    fields: Doc = {"status": "success", "updated_at": now, "ended_at": now, "progress": 1.0, "by": number}
    if ttl is not None:
        fields["expires_at"] = after(now, ttl)
    return fields


def _guard(jobs: Any, token: str) -> Doc:
    return {"_id": jobs, "status": "started", "token": token, "special": {"$exists": False}}


def _alone(job: ObjectId, token: str, fields: Doc, values: Doc, lease: str) -> UpdateOne:
    put = {**fields, **values}
    pack_result(put)
    rename(put, ("result",))
    renamed = put.pop("renamed", None)
    update: Doc = {"$set": put, "$unset": {lease: ""}, "$inc": {"v": 1}}
    if renamed is not None:
        update["$addToSet"] = {"renamed": {"$each": renamed}}
    return UpdateOne(_guard(job, token), update, hint="_id_")


def _together(
    members: Sequence[tuple[ObjectId, Doc]], token: str, fields: Doc, names: tuple[str, ...], lease: str
) -> UpdateMany:
    jobs = [job for job, _ in members]
    put: Doc = {name: {"$literal": value} for name, value in fields.items()}
    index = {"$indexOfArray": [{"$literal": jobs}, "$_id"]}
    for name in names:
        column = [values[name] for _, values in members]
        if all(type(value) is type(column[0]) and value == column[0] for value in column):
            put[name] = {"$literal": column[0]}
        else:
            put[name] = {"$arrayElemAt": [{"$literal": column}, index]}
    put["v"] = {"$add": ["$v", 1]}
    return UpdateMany(_guard({"$in": jobs}, token), [{"$set": put}, {"$unset": lease}], hint="_id_")


def _is_large(value: Any) -> bool:
    """Whether a result goes alone: also where the names in it might mean something to the server."""
    if value is None or isinstance(value, bool | int | float):
        return False
    if isinstance(value, str):
        return len(value) > _LARGE
    encoded = codec.encode(value)
    return len(encoded) > _LARGE or b"$" in encoded
