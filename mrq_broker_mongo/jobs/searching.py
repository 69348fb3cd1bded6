"""Finding jobs: in the order of ids, within a bounded time.

A search reads the entries of one index: of the part of the filter that has the fewest, or of the ids if no
index serves the filter. The server tests the other parts on the documents. Params, which compare by JSON
type, are tested here once more. The entries are read part by part, so that a page can say how far the search
got.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any, NamedTuple

from bson import ObjectId

from mrq_broker_mongo.jobs import indexes, totals, trees
from mrq_broker_mongo.jobs.changing import Records
from mrq_broker_mongo.jobs.indexes import Chosen, Served
from mrq_broker_mongo.jobs.records import has_expired, object_ids, of_doc, stored
from mrq_broker_mongo.server.arrangement import WHOLE
from mrq_broker_mongo.server.connection import Connection, Jobs
from mrq_broker_mongo.server.location import Doc
from mrq_core.contract import codec
from mrq_core.contract.matching import check_group, matches
from mrq_core.contract.messages import Action, Applied
from mrq_core.contract.naming import check_page_cursor, is_tree
from mrq_core.contract.queries import Counted, JobFilter, Order, Page
from mrq_core.contract.record import JobRecord
from mrq_core.drivers import replacing
from mrq_core.drivers.pacing import Pace
from mrq_core.errors import JobDamaged

FIRST_DOCUMENTS = 500
"""The documents that a search reads before it narrows the entries by other indexes."""
MOST_COUNTED = 10_000
"""Above this number totals answer a count, where they have the numbers."""
MOST_ENTRIES = 50_000
"""Below this number the entries of an index are counted at once."""
MOST_ERRORS = 5_000
"""Below this number the jobs with an exception are grouped at once."""
MOST_EXPIRED = 10_000
"""With more expired jobs, which totals and indexes still have, jobs are counted one by one."""


def get(connection: Connection, ids: Sequence[str]) -> list[JobRecord | None]:
    """See `Broker.get`."""
    now, found = Records(connection).read(ids)
    return [None if one is None or has_expired(one.doc, now) else one.record for one in found]


def find(connection: Connection, wanted: JobFilter, *, order: Order, cursor: str | None, limit: int) -> Page:
    """See `Broker.find`."""
    check_page_cursor(cursor)
    served, others = Chosen(None) if wanted.ids else indexes.choose(connection, wanted)
    query = query_of(wanted, connection.now(), served)
    look = _Look(connection, query, wanted, served, order is Order.NEWEST_FIRST)
    at = None if cursor is None else ObjectId(cursor)
    if wanted.ids or wanted.is_empty or _is_served_by(served, wanted):
        return _page(list(look.matching(at, None, limit + 1)), limit)
    hits: list[JobRecord] = []
    pace = Pace(FIRST_DOCUMENTS if others else None)
    while True:
        end = look.end_of_part(at, pace.size)
        hits += look.matching(at, end, limit + 1 - len(hits))
        if len(hits) > limit or end is None:
            return _page(hits, limit)
        at = end
        look = look._replace(
            others=others
        )  # few of the entries match: the other parts of the filter tell which
        if not pace.goes_on():
            return Page(records=tuple(hits), cursor=str(at), searched_until=str(at))


def _page(hits: list[JobRecord], limit: int) -> Page:
    shown = tuple(hits[:limit])
    return Page(records=shown, cursor=shown[-1].id if shown and len(hits) > limit else None)


def _is_served_by(served: Served | None, wanted: JobFilter) -> bool:
    """Whether the index has the matching jobs and no others."""
    used = [name for name in wanted.__struct_fields__ if getattr(wanted, name) not in ((), None, {})]
    return served is not None and len(used) == 1 and len(indexes.wanted_texts(wanted)) < 2


class _Look(NamedTuple):
    """Reads the jobs of a search, in the order of their ids, from the index that serves it."""

    connection: Connection
    query: Doc
    wanted: JobFilter
    served: Served | None
    is_newest_first: bool
    others: tuple[Served, ...] = ()
    """Parts of the filter whose indexes narrow the entries before documents are read."""

    def end_of_part(self, at: ObjectId | None, size: int) -> ObjectId | None:
        """The last id of the next part of the index, which has `size` entries. None: the rest is smaller."""
        query = {"$and": [self.served.condition if self.served else {}, self.behind(at, None)]}
        found = self.connection.run(
            "jobs",
            lambda jobs: list(
                jobs.find(query, {"_id": 1}, hint=self._index)
                .sort("_id", self._direction)
                .skip(size - 1)
                .limit(1)
            ),
        )
        return found[0]["_id"] if found else None

    def matching(self, at: ObjectId | None, end: ObjectId | None, limit: int) -> Iterator[JobRecord]:
        """The matching jobs of a part, up to the limit."""
        inside, index = self.part(at, end)
        wanted = self.wanted

        def look(jobs: Any) -> list[Doc]:
            cursor = jobs.find(inside).sort("_id", self._direction).hint(index)
            if not wanted.params:
                return list(cursor.limit(limit))
            return list(islice((doc for doc in cursor if _has_params(doc, wanted)), limit))

        for doc in self.connection.run("jobs", look):
            yield stored(doc, self.connection.arrangement).record

    def part(self, at: ObjectId | None, end: ObjectId | None) -> tuple[Doc, str]:
        """The condition of the jobs of a part, and the index to read."""
        if not self.others or self.served is None:
            return {"$and": [self.query, self.behind(at, end)]}, self._index
        ids = self._ids({"$and": [self.served.condition, self.behind(at, end)]}, self.served.field)
        for other in self.others:
            if ids:
                ids = self._ids({**other.condition, "_id": {"$in": ids}}, other.field)
        return {"$and": [{"_id": {"$in": ids}}, self.query]}, "_id_"

    def _ids(self, condition: Doc, index: str) -> list[ObjectId]:
        """The ids of the entries, without a look at their documents."""
        found = self.connection.run("jobs", lambda jobs: list(jobs.find(condition, {"_id": 1}, hint=index)))
        return list({doc["_id"]: None for doc in found})

    @property
    def _index(self) -> str:
        return self.served.field if self.served else "_id_"

    @property
    def _direction(self) -> int:
        return -1 if self.is_newest_first else 1

    def behind(self, at: ObjectId | None, end: ObjectId | None) -> Doc:
        """The condition that an id comes after `at`, up to `end`."""
        first, last = ("$lt", "$gte") if self.is_newest_first else ("$gt", "$lte")
        bounds = {name: job for name, job in ((first, at), (last, end)) if job is not None}
        return {"_id": bounds} if bounds else {}


def query_of(wanted: JobFilter, now: datetime, served: Served | None = None) -> Doc:
    """The filter as a query for jobs that have not expired."""
    return {"$and": [*_conditions(wanted, served), {"expires_at": {"$not": {"$lte": now}}}]}


def _conditions(wanted: JobFilter, served: Served | None) -> list[Doc]:
    """The parts of the filter. The condition on params may let too many jobs pass. Of the terms, only the
    served part has a form for which an index is used."""
    parts: list[Doc] = [] if served is None else [served.condition]
    if wanted.ids:
        parts.append({"_id": {"$in": object_ids(wanted.ids)}})
    for field, values in (
        ("status", [status.value for status in wanted.statuses]),
        ("path", wanted.paths),
        ("worker", wanted.workers),
        ("schedule", wanted.schedules),
    ):
        if values and (served is None or served.field != field):
            parts.append({field: {"$in": list(values)}})
    if wanted.queues and (served is None or served.field != "queue"):
        parts.append(_in_queues(wanted.queues))
    parts += [indexes.has_texts(texts) for texts in indexes.wanted_texts(wanted) if not _is_of(served, texts)]
    if wanted.since is not None:
        parts.append({"queued_at": {"$gte": wanted.since}})
    if wanted.until is not None:
        parts.append({"queued_at": {"$lt": wanted.until}})
    for name, value in wanted.params.items():
        is_plain = name and not name.startswith("$") and "." not in name and not name[0].isdigit()
        if is_plain and not isinstance(value, dict | list):
            parts.append({f"params.{name}": {"$eq": value}})
    return parts


def _is_of(served: Served | None, texts: tuple[str, ...]) -> bool:
    return served is not None and served.field == "terms" and served.values == texts


def _in_queues(queues: Sequence[str]) -> Doc:
    names = [name for name in queues if not is_tree(name)]
    any_of: list[Doc] = [
        {"queue": {"$gte": tree, "$lt": trees.end_of(tree)}} for tree in queues if is_tree(tree)
    ]
    if names:
        any_of.append({"queue": {"$in": names}})
    return any_of[0] if len(any_of) == 1 else {"$or": any_of}


def _has_params(doc: Doc, wanted: JobFilter) -> bool:
    return codec.has_values(_params_of(doc), wanted.params)


def count(connection: Connection, wanted: JobFilter, group_by: str | None, cursor: str | None) -> Counted:
    """See `Broker.count`. Totals answer for more than 10,000 jobs where they have the numbers; a process that
    died can leave them wrong for a minute."""
    check_group(group_by)
    check_page_cursor(cursor)
    pace = Pace()
    now = connection.now()
    numbers: dict[str, int] | None
    if cursor is None:
        numbers = totals.sum_of(connection, wanted, group_by)
        if numbers is not None and sum(numbers.values()) > MOST_COUNTED:
            numbers = _without_expired(connection, numbers, wanted, group_by, now)
            if numbers is not None:
                return Counted(numbers=numbers)
    served, others = Chosen(None) if wanted.ids else indexes.choose(connection, wanted)
    if cursor is None and group_by is None and served is not None and _is_served_by(served, wanted):
        number = connection.run("jobs", _counter(served))
        if number < MOST_ENTRIES:
            numbers = _without_expired(connection, {"": number}, wanted, group_by, now)
            if numbers is not None:
                return Counted(numbers=numbers)
    if served is None and group_by in indexes.WITH_ERROR and not wanted.ids:
        if cursor is None and _number_of_errors(connection) < MOST_ERRORS:
            query = {"$and": [*query_of(wanted, now)["$and"], indexes.WITH_ERROR[group_by]]}
            return Counted(numbers=_grouped(connection, query, wanted, group_by, "terms"))
        served = indexes.with_values(connection, group_by or "")
    look = _Look(connection, query_of(wanted, now, served), wanted, served, False, others)
    return _count_in_parts(look, group_by, cursor, pace)


def _number_of_errors(connection: Connection) -> int:
    return sum(totals.numbers_of(connection, "t", ()).values())


def _count_in_parts(look: _Look, group_by: str | None, cursor: str | None, pace: Pace) -> Counted:
    """The numbers of the jobs after the cursor, counted one by one until the time is over."""
    wanted = look.wanted
    numbers: dict[str, int] = {} if group_by else {"": 0}
    at = None if cursor is None else ObjectId(cursor)
    pace.begin_part()
    while True:
        end = None if wanted.ids else look.end_of_part(at, pace.size)
        inside, hint = look.part(at, end)
        for name, number in _grouped(look.connection, inside, wanted, group_by, hint).items():
            numbers[name] = numbers.get(name, 0) + number
        if end is None:
            return Counted(numbers=numbers)
        at = end
        if not pace.goes_on():
            return Counted(numbers=numbers, cursor=str(at))


def _counter(served: Served) -> Callable[[Jobs], int]:
    return lambda jobs: jobs.count_documents(served.condition, hint=served.field, limit=MOST_ENTRIES)


def _without_expired(
    connection: Connection, numbers: dict[str, int], wanted: JobFilter, group_by: str | None, now: datetime
) -> dict[str, int] | None:
    """The numbers without the jobs that have expired and are not deleted yet. None: there are many."""
    expired_at = {"expires_at": {"$lte": now}}
    many = connection.run(
        "jobs", lambda jobs: jobs.count_documents(expired_at, hint="expiry", limit=MOST_EXPIRED)
    )
    if many == MOST_EXPIRED:
        return None
    query = {"$and": [*_conditions(wanted, None), expired_at]}
    expired = _grouped(connection, query, wanted, group_by, "expiry") if many else {}
    left = {name: max(0, number - expired.get(name, 0)) for name, number in numbers.items()}
    return {name: number for name, number in left.items() if number or group_by is None}


def _grouped(
    connection: Connection, query: Doc, wanted: JobFilter, group_by: str | None, index: str | None
) -> dict[str, int]:
    """The numbers of jobs that the query finds, read one by one."""
    numbers: dict[str, int] = {}
    hint: dict[str, Any] = {} if index is None else {"hint": index}
    if wanted.params:
        fields = {"params": 1, "renamed": 1, **({group_by: 1} if group_by else {})}
        for doc in connection.run("jobs", lambda jobs: list(jobs.find(query, fields, **hint))):
            group = "" if group_by is None else doc.get(group_by)
            if group is not None and codec.has_values(_params_of(doc), wanted.params):
                numbers[group] = numbers.get(group, 0) + 1
        return numbers
    pipeline = [{"$match": query}, {"$group": {"_id": f"${group_by}" if group_by else "", "n": {"$sum": 1}}}]
    for row in connection.run("jobs", lambda jobs: list(jobs.aggregate(pipeline, **hint))):
        if row["_id"] is not None:
            numbers[row["_id"]] = row["n"]
    return numbers


def _params_of(doc: Doc) -> Any:
    bare = {"path": "", "queue": "", "queued_at": trees.EVER, "updated_at": trees.EVER}
    own = {"_id": doc["_id"], "params": doc.get("params"), "renamed": doc.get("renamed", ())}
    try:
        return of_doc({**bare, **own}, WHOLE).params
    except JobDamaged:  # params that cannot be read match nothing
        return None


def apply(
    connection: Connection, wanted: JobFilter, action: Action, *, limit: int, cursor: str | None
) -> Applied:
    """See `Broker.apply`."""
    page = find(connection, wanted, order=Order.OLDEST_FIRST, cursor=cursor, limit=limit)
    return replacing.apply(Records(connection), page, action, lambda record: matches(record, wanted))
