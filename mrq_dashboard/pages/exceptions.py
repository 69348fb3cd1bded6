"""The pages of exceptions: groups by task, type and frame, and one group."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from mrq_core.contract.record import JobRecord
from mrq_core.operations.errors import ErrorGroup, ErrorOrder, error_groups
from mrq_core.operations.queries.query import parse_query
from mrq_core.operations.queries.query_parts import quoted_value
from mrq_core.operations.queries.search import search
from mrq_dashboard.charts import Chart, Curve, bar_chart, sparkline
from mrq_dashboard.visit import NotFound, Page, Visit

_ROWS = 25
_MOST_JOBS = 20
_MOST_PAGES = 4
"""The most pages of similar groups among which one group is sought."""


class ExceptionsInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of the page."""

    group: Annotated[str, Meta(max_length=4000, description="The error group to show.")] = ""
    find: Annotated[str, Meta(max_length=200, description="Words in task, type or frame.")] = ""
    sort: Annotated[Literal["recent", "number", "name"], Meta(description="The order of the list.")] = (
        "recent"
    )
    cursor: Annotated[str, Meta(max_length=100, description="Continues a list.")] = ""


class Row(NamedTuple):
    """A group in the list, and the query that finds its jobs."""

    group: ErrorGroup
    trend: Curve | None
    query: str


def exceptions(visit: Visit, inputs: ExceptionsInputs) -> Page:
    """All groups, or one."""
    if inputs.group:
        return _one(visit, inputs.group)
    found = error_groups(
        visit.broker,
        inputs.find,
        limit=_ROWS,
        order=ErrorOrder(inputs.sort),
        cursor=inputs.cursor or None,
        successes=visit.successes,
    )
    context = {
        "rows": [Row(group, sparkline(group.trend), _query(group.group)) for group in found.groups],
        "verbs": [verb for verb in _verbs(visit, "") if verb[0] != "cancel"],
        "cursor": found.cursor,
        "total": found.total,
        "inputs": inputs,
    }
    return Page(template="exceptions/list.html", title="Exceptions", context=context)


def _one(visit: Visit, name: str) -> Page:
    broker = visit.broker
    group = _find(visit, name)
    if group is None:
        raise NotFound(
            "no job has this error group any more: its jobs ran again, have expired or were removed"
        )
    query = parse_query(broker, _query(name))
    jobs = search(broker, query, limit=_MOST_JOBS)
    sample: JobRecord | None = jobs.records[0] if jobs.records else None
    context = {
        "group": group,
        "jobs": jobs,
        "query": query.text,
        "sample": sample,
        "trend": _trend(group, visit.now),
        "day": sum(group.trend),
        "periods": _periods(visit.now),
        "verbs": _verbs(visit, " all"),
    }
    return Page(template="exceptions/one.html", title=group.exception_type or name, context=context)


def _query(group: str) -> str:
    return f"group:{quoted_value(group)}"


def _verbs(visit: Visit, tail: str) -> list[tuple[str, str, str]]:
    """The bulk actions that the visitor's role allows: verb, words and icon."""
    allowed = [("requeue", "Requeue", "retry"), ("cancel", "Cancel", "ban")] if visit.may_operate else []
    allowed += [("remove", "Delete", "cross")] if visit.may_write else []
    return [(verb, words + tail, icon) for verb, words, icon in allowed]


def _periods(now: datetime) -> list[tuple[str, str]]:
    """Words for times, and the parts of a query that select the jobs that were queued then."""
    today = now.date()
    yesterday = today - timedelta(days=1)
    return [
        ("all its jobs", ""),
        ("last hour", " since:1h"),
        ("today", f" since:{today}"),
        ("yesterday", f" since:{yesterday} until:{today}"),
    ]


def _find(visit: Visit, name: str) -> ErrorGroup | None:
    """The group with exactly this name, among those that have its words."""
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        found = error_groups(
            visit.broker, name, order=ErrorOrder.NAME, cursor=cursor, successes=visit.successes
        )
        for group in found.groups:
            if group.group == name:
                return group
        cursor = found.cursor
        if cursor is None:
            return None
    return None


def _trend(group: ErrorGroup, now: datetime) -> Chart | None:
    hour = now.replace(minute=0, second=0, microsecond=0)
    begins = [hour - timedelta(hours=len(group.trend) - 1 - index) for index in range(len(group.trend))]
    titles = [
        f"{number:,} from {begin:%Y-%m-%d %H:%M} UTC"
        for number, begin in zip(group.trend, begins, strict=True)
    ]
    times = [f"{begins[index]:%H:%M}" for index in (0, len(begins) // 2)]
    return bar_chart([[number] for number in group.trend], titles, [*times, "now"])
