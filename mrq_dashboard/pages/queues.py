"""The pages of queues: all of them, and one queue or tree."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct

from mrq_core.contract.naming import RawKind, check_served_name, is_in, is_tree, raw_kind
from mrq_core.contract.queries import QueueCounts
from mrq_core.contract.shared_state import Pause
from mrq_core.operations.explaining.explaining import explain_queue
from mrq_core.operations.explaining.reasons import Reason, of_queue, read_surroundings
from mrq_core.operations.queries.query import parse_query
from mrq_core.operations.queries.query_parts import exact_value
from mrq_core.operations.queries.search import counts_by_status
from mrq_core.operations.queues import QueueOrder, queue_page
from mrq_core.operations.raw_queues import Future, raw_queue_view, raw_size
from mrq_core.operations.statistics import QueueStatistics, queue_statistics
from mrq_core.operations.workers import listening
from mrq_dashboard.charts import Chart, bar_chart
from mrq_dashboard.visit import Page, Redirect, Visit

_ROWS = 100
"""Queues on one page."""
_MOST_MEASURED = 200
"""The number of queues up to which the list shows rates: to read them costs more with each queue."""
KINDS = {
    RawKind.LIST: "raw list",
    RawKind.SET: "raw set",
    RawKind.SORTED_SET: "raw sorted set",
    RawKind.TIMED_SET: "raw timed set",
}
"""The kinds of raw queues in words."""


class QueuesInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of the page."""

    name: Annotated[str, Meta(max_length=1000, description="The queue or tree to show.")] = ""
    find: Annotated[str, Meta(max_length=200, description="Text in the names of the listed queues.")] = ""
    sort: Annotated[
        Literal["name", "due", "waiting", "running", "oldest"], Meta(description="The order of the list.")
    ] = "name"
    page: Annotated[int, Meta(ge=1, le=1_000_000, description="The page of the list.")] = 1


class Row(NamedTuple):
    """A queue in the list. `waiting`: its jobs, or the parameters of a raw queue. `paused`: the queue, or the
    tree with which it is paused. `statistics` None: not read."""

    counts: QueueCounts
    waiting: int
    kind: str
    paused: str | None
    pause: Pause | None
    reason: Reason | None
    statistics: QueueStatistics | None


def queues(visit: Visit, inputs: QueuesInputs) -> Page:
    """All queues, or one."""
    if inputs.name:
        return _one(visit, inputs.name)
    first = (inputs.page - 1) * _ROWS
    found = queue_page(visit.broker, inputs.find, order=QueueOrder(inputs.sort), first=first, limit=_ROWS)
    around = read_surroundings(visit.broker)
    measured: dict[str, QueueStatistics] = {}
    if found.queues and found.total <= _MOST_MEASURED:
        names = [queue.queue for queue in found.queues]
        measured = {one.name: one for one in queue_statistics(visit.broker, names, day=visit.day)}
    rows = [
        Row(
            queue,
            raw_size(visit.broker, queue.queue) if raw_kind(queue.queue) else queue.waiting,
            _kind(queue.queue),
            (paused := found.paused_as(queue.queue)),
            found.pauses.get(paused or ""),
            next(iter(of_queue(queue.queue, around)), None),
            measured.get(queue.queue),
        )
        for queue in found.queues
    ]
    context = {
        "rows": rows,
        "has_rates": bool(measured),
        "number": found.number,
        "total": found.total,
        "inputs": inputs,
        "first": first,
        "more": found.number > first + _ROWS,
        "other_paused": found.other_paused,
    }
    return Page(template="queues/list.html", title="Queues", context=context)


def by_path(visit: Visit) -> Redirect:
    """Leads from ``/queues/NAME`` to the page of the queue. A name in a query may contain any text."""
    return Redirect(url=visit.url("/queues", name=visit.names["name"]))


def _one(visit: Visit, text: str) -> Page:
    name = check_served_name(text)
    broker = visit.broker
    [statistics] = queue_statistics(broker, [name], day=visit.day)
    around = read_surroundings(broker)
    query = parse_query(broker, f"queue:{exact_value(name)}")
    is_raw = raw_kind(name) is not None and not is_tree(name)
    raw = raw_queue_view(broker, name) if is_raw else None
    pauses = [(paused, pause) for paused, pause in sorted(around.rules.queues.items()) if paused == name]
    around_it = [paused for paused in sorted(around.rules.queues) if paused != name and is_in(name, paused)]
    context = {
        "name": name,
        "is_tree": is_tree(name),
        "kind": _kind(name),
        "statistics": statistics,
        "reasons": explain_queue(broker, name),
        "workers": listening(name, around.workers),
        "query": query.text,
        "counts": counts_by_status(broker, query),
        "pause": pauses[0][1] if pauses else None,
        "paused_trees": around_it,
        "raw": raw,
        "items": [(item.param, _score(name, item.score)) for item in raw.items] if raw is not None else [],
        "future": _future_chart(raw.future, visit.now)
        if raw is not None and raw.future is not None
        else None,
    }
    return Page(template="queues/one.html", title=f"Queue {name}", context=context)


def _score(name: str, score: float | None) -> datetime | float | None:
    """The score of a parameter; in a timed set, the time at which it becomes due."""
    if score is None or raw_kind(name) is not RawKind.TIMED_SET:
        return score
    try:
        return datetime.fromtimestamp(score, UTC)
    except (OverflowError, ValueError, OSError):
        return score


def _kind(name: str) -> str:
    kind = raw_kind(name)
    return "" if kind is None else KINDS[kind]


def _future_chart(future: Future, now: datetime) -> Chart | None:
    step = future.seconds / len(future.numbers)
    begins = [now + timedelta(seconds=step * index) for index in range(len(future.numbers))]
    titles = [
        f"{number:,} due from {begin:%Y-%m-%d %H:%M:%S} UTC on"
        for number, begin in zip(future.numbers, begins, strict=True)
    ]
    return bar_chart([[number] for number in future.numbers], titles, _time_labels(now, future.seconds))


def _time_labels(now: datetime, seconds: float) -> Sequence[str]:
    form = "%H:%M" if seconds <= 86_400 else "%b %d"
    return [f"{now + timedelta(seconds=seconds * part):{form}}" for part in (0, 0.5, 1)]
