"""What is done to many jobs at once: to those that a query finds, or to those with these ids."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal, NamedTuple

from msgspec import Meta, Struct
from msgspec.structs import replace

from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import CHUNK, Cancel, ChangeResult, Move, Remove, Requeue
from mrq_core.contract.naming import check_job_queue_name, is_covered, is_tree
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.values import check_job_id, check_priority
from mrq_core.errors import InvalidValue
from mrq_core.operations.actions import Change, SetPriority, allows, expected_answer, summary
from mrq_core.operations.bulk.bulk_actions import begin_bulk, bulk_view, bulk_words, stop_bulk
from mrq_core.operations.bulk.bulk_changes import bounded, change_if_few
from mrq_core.operations.queries.query import SearchQuery, parse_query
from mrq_core.operations.queries.query_parts import quoted_value
from mrq_core.operations.queries.search import counts_by_status, search
from mrq_dashboard.auth import Role
from mrq_dashboard.inputs import QueryText
from mrq_dashboard.visit import Done, NotFound, Visit

_MOST_NAMED = 30
"""Ids that the audit log names."""
Verb = Literal["requeue", "cancel", "move", "priority", "remove"]
_OPTIONS = ("queue", "priority", "interrupt")
_TAKEN: dict[str, tuple[str, ...]] = {
    "requeue": ("queue",),
    "cancel": ("interrupt",),
    "move": ("queue",),
    "priority": ("priority",),
    "remove": (),
}
"""The options of each change. Another one may be meant as a filter, so it is refused."""
Names = str | list[str]
"""One name, or alternatives."""
Target = Annotated[str, Meta(max_length=1000, description="The queue to move or requeue the jobs to.")]
Scalar = str | int | float | bool | None
Ids = Annotated[tuple[str, ...], Meta(max_length=CHUNK, description="Ids of jobs.")]


class FilterInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A filter by parts, all of which must match, as in a query: names may have wildcards."""

    status: Names | None = None
    queue: Names | None = None
    path: Names | None = None
    worker: Names | None = None
    error: Names | None = None
    message: Names | None = None
    group: Names | None = None
    schedule: Names | None = None
    since: str | None = None
    until: str | None = None
    params: dict[str, Scalar] = {}
    key: dict[str, Scalar] = {}


class BulkInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """What to do to which jobs: one of `query`, `filter` and `ids`."""

    action: Annotated[Verb, Meta(description="What to do. `remove` needs the role write.")]
    query: QueryText | None = None
    filter: FilterInputs | None = None
    ids: Ids = ()
    everything: Annotated[bool, Meta(description="Allow a query or filter without parts.")] = False
    queue: (
        Annotated[str, Meta(max_length=1000, description="The queue to move or requeue the jobs to.")] | None
    ) = None
    priority: Annotated[int, Meta(ge=-4, le=4, description="The new priority.")] | None = None
    interrupt: Annotated[bool, Meta(description="A cancel also stops running jobs.")] = False
    dry_run: Annotated[bool, Meta(description="Count the jobs, and change none.")] = False


class Foreseen(NamedTuple):
    """The numbers of jobs by status that a change would change and would leave. `is_complete` is False if the
    numbers are minimums."""

    changed: Mapping[str, int]
    left: Mapping[str, int]
    is_complete: bool

    @property
    def number(self) -> int:
        """The number of jobs that would change."""
        return sum(self.changed.values())

    @property
    def total(self) -> int:
        """The number of jobs that the query finds."""
        return self.number + sum(self.left.values())


def start(visit: Visit, inputs: BulkInputs) -> Done:
    """Changes many jobs: all that a query finds, or those with these ids.

    Up to 1,000 jobs are changed when the answer comes. More are changed by and by: the answer has the status
    202 and `bulk`, whose `id` leads to its progress. `dry_run` counts by status. Jobs that are queued after
    the request are left alone."""
    change = change_of(visit, inputs.action, inputs)
    query = query_of(visit, inputs)
    if inputs.dry_run:
        return _dry(_foresee_in_full(visit, query, change), inputs.action, query)
    number = foresee(visit, query, change)
    wanted = bounded(visit.broker, query)
    counts = change_if_few(visit.broker, wanted, change)
    if counts is not None:
        return _few(inputs.action, query, change, counts)
    bulk = begin_bulk(
        visit.broker, wanted, change, visit.visitor.name, expected=number.total,
        is_counted=number.is_complete, bulk_id=visit.made_id,
    )  # fmt: skip
    visit.runner.wake()
    least = "" if number.is_complete else "at least "
    return Done(
        action=f"begin bulk {inputs.action}",
        target=query.text or "all jobs",
        counts={"matching": number.total},
        text=f"The bulk action on {least}{number.total:,} jobs has begun: this page shows how far it is",
        value={"bulk": bulk_view(bulk)},
        url=visit.url("/jobs/bulk"),
        status=202,
    )


def stop(visit: Visit) -> Done:
    """Stops a bulk action after its step of up to 1,000 jobs. Jobs that it has changed stay changed."""
    bulk = stop_bulk(visit.broker, visit.names["id"], visit.visitor.name)
    if bulk is None:
        raise NotFound(f"there is no bulk action {visit.names['id']}: it ended more than a week ago")
    visit.runner.wake()
    text = "The bulk action stops after its step" if bulk.is_running else "The bulk action has ended already"
    return Done(
        action="stop bulk",
        target=f"{bulk.change.verb} {bulk.text}",
        text=f"{text}: {bulk_words(bulk)}",
        counts={"handled": bulk.handled},
        value={"bulk": bulk_view(bulk)},
        tone="" if bulk.is_running else "warn",
    )


def change_of(visit: Visit, verb: str, inputs: BulkInputs) -> Change:
    """The change that the inputs describe. Raises InvalidValue, and Forbidden for a role that is too low."""
    for name in _OPTIONS:
        if getattr(inputs, name) not in (None, False) and name not in _TAKEN[verb]:
            raise InvalidValue(
                f"{name} is given, and {verb} does not take it: `query`, `filter` or `ids` name the jobs",
                path=name,
            )
    queue = None if inputs.queue is None else check_job_queue_name(inputs.queue)
    match verb:
        case "requeue":
            return Requeue(queue=queue)
        case "cancel":
            return Cancel(interrupt=inputs.interrupt, ttl=visit.config.default_job_cancel_ttl)
        case "move":
            if queue is None:
                raise InvalidValue("queue is missing: expected the queue to move the jobs to", path="queue")
            return Move(queue=queue)
        case "priority":
            if inputs.priority is None:
                raise InvalidValue("priority is missing: expected -4 to 4", path="priority")
            return SetPriority(priority=check_priority(inputs.priority))
    visit.need(Role.WRITE, "removing jobs")
    return Remove()


def query_of(visit: Visit, inputs: BulkInputs) -> SearchQuery:
    """The query that the inputs name. Raises InvalidValue unless they name jobs in one way."""
    given = [inputs.query is not None, inputs.filter is not None, bool(inputs.ids)]
    if sum(given) != 1 and not (inputs.everything and not any(given)):
        found = "jobs are named in more than one way" if any(given) else "no jobs are named"
        raise InvalidValue(f"{found}: expected query, filter or ids", path="query")
    if inputs.ids:
        return selected(visit, inputs.ids)
    text = inputs.query or _text_of(inputs.filter or FilterInputs())
    query = parse_query(visit.broker, text)
    if query.filter == JobFilter() and not query.has_conditions and not inputs.everything:
        raise InvalidValue(
            "the query has no parts, and would change all jobs: add a part, or everything=true", path="query"
        )
    return query


def selected(visit: Visit, ids: tuple[str, ...]) -> SearchQuery:
    """A query for the jobs with these ids. Raises InvalidValue for a malformed id."""
    unique = tuple(dict.fromkeys(map(check_job_id, ids)))
    query = parse_query(visit.broker, "")
    words = (
        f"job {unique[0]}" if len(unique) == 1 else f"{len(unique):,} jobs: {', '.join(unique[:_MOST_NAMED])}"
    )
    words += ", ..." if len(unique) > _MOST_NAMED else ""
    return replace(query, text=words, filter=JobFilter(ids=unique), tab_filter=JobFilter(ids=unique))


def foresee(visit: Visit, query: SearchQuery, change: Change) -> Foreseen:
    """What a change would do to the jobs of a query, as far as their status tells. Counts for 250 ms at
    most."""
    # Unlike the tabs of the list, with the statuses of the query: an index may have few jobs of them.
    counted = counts_by_status(visit.broker, replace(query, tab_filter=query.filter))
    numbers = counted.numbers
    changed = {str(status): n for status, n in numbers.items() if allows(change, status, visit.now)}
    left = {str(status): n for status, n in numbers.items() if str(status) not in changed}
    return Foreseen(changed, left, counted.is_complete)


def _foresee_in_full(visit: Visit, query: SearchQuery, change: Change) -> Foreseen:
    """What a change would do to the jobs of a query: job by job up to 1,000 of them. Of more, as far as their
    status tells, and for a move their queue. Reads and counts for 250 ms each at most."""
    page = search(visit.broker, query, limit=CHUNK)
    if page.cursor is not None:
        return _less_those_there(visit, query, change, foresee(visit, query, change))
    changed: Counter[str] = Counter()
    left: Counter[str] = Counter()
    for record in page.records:
        is_change = expected_answer(change, record, visit.now) is ChangeResult.DONE
        (changed if is_change else left)[str(record.status)] += 1
    return Foreseen(changed, left, is_complete=True)


def _less_those_there(visit: Visit, query: SearchQuery, change: Change, by_status: Foreseen) -> Foreseen:
    """The numbers of a move by status, less the jobs that are in its target queue already. The filter of a
    target that ends with a slash would select its tree: then the numbers stay."""
    queues = frozenset(query.filter.queues)
    if not isinstance(change, Move) or is_tree(change.queue):
        return by_status
    if queues and not is_covered(change.queue, queues):
        return by_status
    inside = replace(query.filter, queues=(change.queue,))
    counted = counts_by_status(visit.broker, replace(query, tab_filter=inside))
    there = Counter({str(s): n for s, n in counted.numbers.items() if str(s) in by_status.changed})
    return Foreseen(
        # Of an incomplete count the rest may be there too.
        Counter(by_status.changed) - there if counted.is_complete else {},
        Counter(by_status.left) + there,
        by_status.is_complete and counted.is_complete,
    )


def _dry(foreseen: Foreseen, verb: str, query: SearchQuery) -> Done:
    value: JsonObject = {
        "dry_run": True,
        "changed": dict(foreseen.changed),
        "left": dict(foreseen.left),
        "is_complete": foreseen.is_complete,
    }
    least = "" if foreseen.is_complete else "At least "
    jobs = "job" if foreseen.number == 1 else "jobs"
    text = (
        f"{least}{foreseen.number:,} {jobs} would change, and {foreseen.total - foreseen.number:,} would not"
    )
    return Done(action=verb, target=query.text, text=text, value=value, is_audited=False)


def _few(verb: str, query: SearchQuery, change: Change, counts: Counter[ChangeResult]) -> Done:
    missing = max(0, len(query.filter.ids) - counts.total())
    if missing:
        counts = counts + Counter({ChangeResult.UNKNOWN: missing})
    changes = {str(name): number for name, number in counts.items()}
    is_all = set(counts) <= {ChangeResult.DONE, ChangeResult.REQUESTED}
    value: JsonObject = {"changes": dict(changes), "is_exact": True}
    text = summary(counts, change)
    return Done(
        action=f"bulk {verb}", target=query.text or "all jobs", text=text[0].upper() + text[1:],
        counts=changes, value=value, tone="" if is_all and counts else "warn",
    )  # fmt: skip


def _text_of(wanted: FilterInputs) -> str:
    """The text of the query with these parts."""
    parts = []
    for name in ("status", "queue", "path", "worker", "error", "message", "group", "schedule"):
        names: Names | None = getattr(wanted, name)
        if names is None:
            continue
        if not names:
            raise InvalidValue(
                f"filter.{name} is empty: expected a name, or no part of that name", path=f"filter.{name}"
            )
        for value in [names] if isinstance(names, str) else names:
            parts.append(f"{name}:{quoted_value(value, force=not value)}")
    for name, moment in (("since", wanted.since), ("until", wanted.until)):
        if moment is not None:
            parts.append(f"{name}:{quoted_value(moment, force=True)}")
    for stem, values in (("params", wanted.params), ("key", wanted.key)):
        for key, one in values.items():
            text = quoted_value(one, force=True) if isinstance(one, str) else json.dumps(one)
            parts.append(f"{stem}.{quoted_value(key)}:{text}")
    return " ".join(parts)
