"""Finding jobs: in the order of ids, within a bounded time.

What the filter says of fields is asked of the server; what it says of params, which compare by JSON's types,
is tested here once more. A filter that an index does not serve goes through the ids part by part, so that it
can say how far it got.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from bson import ObjectId

from mrq_broker_mongo.jobs.changing import Records
from mrq_broker_mongo.jobs.records import has_expired, object_ids, of_doc
from mrq_broker_mongo.jobs.trees import EVER
from mrq_broker_mongo.server.arrangement import WHOLE
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract import codec
from mrq_core.contract.matching import check_group, matches
from mrq_core.contract.messages import Action, Applied, JobFilter, Order, Page
from mrq_core.contract.naming import check_page_cursor
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import replacing

MAX_SECONDS = 0.25
_PART_FIRST, _PART_MOST = 2_000, 50_000
"""How many ids one part of a search has."""
_INDEXED = ("statuses", "paths", "queues", "exception_types", "schedules")


def get(connection: Connection, ids: Sequence[str]) -> list[JobRecord | None]:
    """See `Broker.get`."""
    now, found = Records(connection).read(ids)
    return [None if one is None or has_expired(one.doc, now) else one.record for one in found]


def find(connection: Connection, wanted: JobFilter, *, order: Order, cursor: str | None, limit: int) -> Page:
    """See `Broker.find`."""
    check_page_cursor(cursor)
    hits: list[JobRecord] = []
    newest = order is Order.NEWEST_FIRST
    deadline = time.monotonic() + MAX_SECONDS
    query = query_of(wanted, connection.now())
    at = None if cursor is None else ObjectId(cursor)
    if _is_served(wanted):
        hits = list(_matching(connection, query, wanted, newest, at, None, limit + 1))
        return _page(hits, limit)
    size = _PART_FIRST
    while True:
        end = _end_of_part(connection, newest, at, size)
        hits += _matching(connection, query, wanted, newest, at, end, limit + 1 - len(hits))
        if len(hits) > limit or end is None:
            return _page(hits, limit)
        at = end
        if time.monotonic() > deadline:
            return Page(records=tuple(hits), cursor=str(at), searched_until=str(at))
        size = min(2 * size, _PART_MOST)


def _page(hits: list[JobRecord], limit: int) -> Page:
    shown = tuple(hits[:limit])
    return Page(records=shown, cursor=shown[-1].id if shown and len(hits) > limit else None)


def _is_served(wanted: JobFilter) -> bool:
    """Whether an index leads to the matching jobs in the order of their ids."""
    if wanted.ids or wanted.is_empty:
        return True
    used = [name for name in wanted.__struct_fields__ if getattr(wanted, name) not in ((), None, {})]
    return len(used) == 1 and used[0] in _INDEXED and not any(queue.endswith("/") for queue in wanted.queues)


def _end_of_part(connection: Connection, newest: bool, at: ObjectId | None, size: int) -> ObjectId | None:
    """The last id of the next part; None: there are no more than that."""
    query = _behind(newest, at, None)
    found = connection.run(
        "jobs",
        lambda jobs: list(
            jobs.find(query, {"_id": 1}).sort("_id", -1 if newest else 1).skip(size - 1).limit(1)
        ),
    )
    return found[0]["_id"] if found else None


def _behind(newest: bool, at: ObjectId | None, end: ObjectId | None) -> Doc:
    bounds: Doc = {}
    if at is not None:
        bounds["$lt" if newest else "$gt"] = at
    if end is not None:
        bounds["$gte" if newest else "$lte"] = end
    return {"_id": bounds} if bounds else {}


def _matching(
    connection: Connection,
    query: Doc,
    wanted: JobFilter,
    newest: bool,
    at: ObjectId | None,
    end: ObjectId | None,
    limit: int,
) -> Iterator[JobRecord]:
    """The matching jobs of a part, up to the limit."""
    inside = {"$and": [query, _behind(newest, at, end)]}
    most = 0 if wanted.params else limit

    def look(jobs: Any) -> list[Doc]:
        cursor = jobs.find(inside).sort("_id", -1 if newest else 1).limit(most)
        if end is not None:
            cursor = cursor.hint("_id_")
        if not wanted.params:
            return list(cursor)
        found = []
        for doc in cursor:
            if _has_params(doc, wanted):
                found.append(doc)
                if len(found) == limit:
                    break
        return found

    for doc in connection.run("jobs", look):
        yield of_doc(doc, connection.arrangement)


def query_of(wanted: JobFilter, now: datetime) -> Doc:
    """What the filter says, as a query; of params it may let pass too many."""
    parts: list[Doc] = [{"expires_at": {"$not": {"$lte": now}}}]
    if wanted.ids:
        parts.append({"_id": {"$in": object_ids(wanted.ids)}})
    for field, values in (
        ("status", [status.value for status in wanted.statuses]),
        ("path", wanted.paths),
        ("worker", wanted.workers),
        ("exception_type", wanted.exception_types),
        ("schedule", wanted.schedules),
    ):
        if values:
            parts.append({field: {"$in": list(values)}})
    if wanted.queues:
        names = [name for name in wanted.queues if not name.endswith("/")]
        trees = [name for name in wanted.queues if name.endswith("/")]
        any_of: list[Doc] = [{"queue": {"$gt": tree, "$lt": tree[:-1] + "0"}} for tree in trees]
        if names:
            any_of.append({"queue": {"$in": names}})
        parts.append(any_of[0] if len(any_of) == 1 else {"$or": any_of})
    if wanted.since is not None:
        parts.append({"queued_at": {"$gte": wanted.since}})
    if wanted.until is not None:
        parts.append({"queued_at": {"$lt": wanted.until}})
    for name, value in wanted.params.items():
        is_plain = name and not name.startswith("$") and "." not in name and not name[0].isdigit()
        if is_plain and not isinstance(value, dict | list):
            parts.append({f"params.{name}": {"$eq": value}})
    return {"$and": parts}


def _has_params(doc: Doc, wanted: JobFilter) -> bool:
    return codec.has_values(_params_of(doc), wanted.params)


def count(connection: Connection, wanted: JobFilter, group_by: str | None) -> dict[str, int]:
    """See `Broker.count`. Looks at every job that the filter's indexes lead to."""
    check_group(group_by)
    query = query_of(wanted, connection.now())
    numbers: dict[str, int] = {} if group_by else {"": 0}
    if wanted.params:
        fields = {"params": 1, "renamed": 1, **({group_by: 1} if group_by else {})}
        for doc in connection.run("jobs", lambda jobs: list(jobs.find(query, fields))):
            group = "" if group_by is None else doc.get(group_by)
            if group is not None and codec.has_values(_params_of(doc), wanted.params):
                numbers[group] = numbers.get(group, 0) + 1
        return numbers
    pipeline = [{"$match": query}, {"$group": {"_id": f"${group_by}" if group_by else "", "n": {"$sum": 1}}}]
    for row in connection.run("jobs", lambda jobs: list(jobs.aggregate(pipeline))):
        if row["_id"] is not None:
            numbers[row["_id"]] = row["n"]
    return numbers


def _params_of(doc: Doc) -> Any:
    bare = {"path": "", "queue": "", "queued_at": EVER, "updated_at": EVER}
    own = {"_id": doc["_id"], "params": doc["params"], "renamed": doc.get("renamed", ())}
    return of_doc({**bare, **own}, WHOLE).params


def apply(
    connection: Connection, wanted: JobFilter, action: Action, *, limit: int, cursor: str | None
) -> Applied:
    """See `Broker.apply`."""
    page = find(connection, wanted, order=Order.OLDEST_FIRST, cursor=cursor, limit=limit)
    return replacing.apply(Records(connection), page, action, lambda record: matches(record, wanted))
