"""The page of jobs: a query, tabs by status, and the matching jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from mrq_core.contract.record import WAITING, JobRecord, Status
from mrq_core.errors import InvalidQuery
from mrq_core.operations.explaining.reasons import ReasonKind, of_queue, of_task, read_surroundings
from mrq_core.operations.queries.query import SearchQuery, parse_query
from mrq_core.operations.queries.query_parts import canonical
from mrq_core.operations.queries.saved_views import saved_views
from mrq_core.operations.queries.search import StatusCounts, counts_by_status, search
from mrq_core.operations.views import duration_of, redacted
from mrq_dashboard.auth import Role
from mrq_dashboard.formats import json_line
from mrq_dashboard.inputs import QueryText
from mrq_dashboard.pages.bulk import rows_of
from mrq_dashboard.visit import Page, Visit

ROWS = 50
"""Jobs on one page."""
_MOST_PARAMS = 160
"""Characters of the params that a row shows."""
_MOST_MESSAGE = 300
EXAMPLES = (
    ("status:failed,timeout,maxretries since:1h", "failed in the last hour"),
    ("is:still-failing", "tasks that have not succeeded since"),
    ("is:running duration:>10m", "running for more than 10 minutes"),
    ("status:retry", "waiting for a retry"),
)
"""Queries with their meaning, for a page that shows no job."""
_HOLDS = {
    ReasonKind.TASK_PAUSED: "its task is paused",
    ReasonKind.PAUSED: "its queue is paused",
    ReasonKind.NO_WORKER: "no worker claims from its queue",
    ReasonKind.DENIED: "its workers leave out its task",
    ReasonKind.WORKERS_FULL: "its workers are busy",
}
"""Why due jobs wait, in a few words."""


class JobsInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of the page."""

    q: QueryText = ""
    cursor: Annotated[str, Meta(max_length=100, description="Continues after this job.")] = ""


class Row(NamedTuple):
    """A job in the list."""

    record: JobRecord
    params: str
    message: str
    duration: float | None
    hold: str
    """Why a due job waits; empty where nothing holds it back, or the record says it."""


class Tab(NamedTuple):
    """A tab: a status, or "" for all, with the query that leads there."""

    status: str
    query: str
    number: int
    is_here: bool


def jobs(visit: Visit, inputs: JobsInputs) -> Page:
    """The jobs that match a query."""
    try:
        query = parse_query(visit.broker, inputs.q)
    except InvalidQuery as error:
        context = {"q": inputs.q, "error": error, "examples": EXAMPLES}
        return Page(template="jobs/wrong_query.html", title="Jobs", context=context, status=400)
    found = search(visit.broker, query, cursor=inputs.cursor or None, limit=ROWS)
    counts = counts_by_status(visit.broker, query)
    holds = _holds(visit, found.records)
    context = {
        "q": query.text,
        "query": query,
        "rows": [_row(visit, record, holds.get(record.id, "")) for record in found.records],
        "tabs": _tabs(query, counts.numbers),
        "counts": counts,
        "found": found,
        "inputs": inputs,
        "examples": EXAMPLES,
        "views": (views := [(view.query, view.name) for view in saved_views(visit.broker)]),
        "view_here": next((name for text, name in views if text == query.text), None),
        "may_save": visit.visitor.role >= Role.OPERATE,
        "may_remove": visit.visitor.role >= Role.WRITE,
        "total": _total(query, counts),
        "running": [row for row in rows_of(visit) if row.bulk.is_running],
    }
    return Page(template="jobs/list.html", title="Jobs", context=context)


def _holds(visit: Visit, records: Sequence[JobRecord]) -> dict[str, str]:
    """Why the due jobs among these wait, by id. Reads rules and workers once, if a job is due."""
    now = visit.now
    due = [record for record in records if record.status in WAITING and (record.due_at or now) <= now]
    if not due:
        return {}
    around = read_surroundings(visit.broker)
    kinds: dict[tuple[str, str], ReasonKind | None] = {}
    for place in {(record.queue, record.path) for record in due}:
        queue, path = place
        reasons = [of_task(path, around), *of_queue(queue, around, path)]
        kinds[place] = next((reason.kind for reason in reasons if reason is not None), None)
    words = {place: _HOLDS.get(kind, "") for place, kind in kinds.items() if kind is not None}
    return {record.id: words.get((record.queue, record.path), "") for record in due}


def _total(query: SearchQuery, counts: StatusCounts) -> int:
    """The number of jobs that match; a minimum unless the counts are complete."""
    statuses = query.filter.statuses
    return sum(number for status, number in counts.numbers.items() if not statuses or status in statuses)


def _row(visit: Visit, stored: JobRecord, hold: str) -> Row:
    record = visit.decoded(stored)
    params = json_line(redacted(record.params)) if record.params else ""
    return Row(
        record=record,
        params=params if len(params) <= _MOST_PARAMS else params[:_MOST_PARAMS] + "…",
        message=(record.exception_message or "")[:_MOST_MESSAGE],
        duration=duration_of(record, visit.now),
        hold=hold,
    )


def _tabs(query: SearchQuery, numbers: Mapping[Status, int]) -> list[Tab]:
    """All, and each status that jobs have or the query names."""
    rest, _ = canonical(part for part in query.parts if part.name != "status")
    named = [part for part in query.parts if part.name == "status"]
    here = {value.lower() for part in named for value in part.values}
    tabs = [Tab("", rest, sum(numbers.values()), not named)]
    for status in Status:
        if numbers.get(status) or status in here:
            text = f"{rest} status:{status}".strip()
            tabs.append(Tab(str(status), text, numbers.get(status, 0), status in here))
    return tabs
