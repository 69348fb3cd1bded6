"""Jobs as JSON: lists, records, logs, and why a job does not run."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from mrq_core.contract.codec import JsonObject
from mrq_core.contract.queries import Order
from mrq_core.contract.values import check_job_id
from mrq_core.operations.explaining.explaining import explain_job
from mrq_core.operations.explaining.reasons import reason_view
from mrq_core.operations.queries.query import parse_query
from mrq_core.operations.queries.search import counts_by_status, search
from mrq_core.operations.running_jobs import running_now, running_view
from mrq_core.operations.views import iso, job_details, job_row, log_view
from mrq_dashboard.inputs import QueryText
from mrq_dashboard.visit import Visit

Cursor = Annotated[str, Meta(max_length=200, description="`cursor` of the page before.")]


class JobsInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which jobs to list."""

    q: QueryText = ""
    cursor: Cursor = ""
    limit: Annotated[int, Meta(ge=1, le=1000, description="The most jobs to answer.")] = 50
    order: Annotated[Literal["newest", "oldest"], Meta(description="By the time of creation.")] = "newest"


class CountsInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which jobs to count."""

    q: QueryText = ""


class LogsInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which lines of a log to answer."""

    cursor: Cursor = ""
    limit: Annotated[int, Meta(ge=1, le=1000, description="The most lines to answer.")] = 1000


def list_all(visit: Visit, inputs: JobsInputs) -> JsonObject:
    """Lists the jobs of a query. `cursor` continues the list; null: there are no more jobs.

    A query without an index is searched for 250 ms. `searched_back_to` then says how far the search got: the
    page may be empty, and the cursor continues."""
    query = parse_query(visit.broker, inputs.q)
    page = search(
        visit.broker, query, cursor=inputs.cursor or None, limit=inputs.limit, order=Order(inputs.order)
    )
    return {
        "jobs": [job_row(visit.decoded(record), now=visit.now) for record in page.records],
        "cursor": page.cursor,
        "searched_back_to": iso(page.searched_back_to),
    }


def counts(visit: Visit, inputs: CountsInputs) -> JsonObject:
    """Counts the jobs of a query by status, without the part `status` of the query.

    `is_complete` is false if the time ran out: the numbers are minimums."""
    counted = counts_by_status(visit.broker, parse_query(visit.broker, inputs.q))
    numbers: JsonObject = {str(status): number for status, number in counted.numbers.items()}
    return {"numbers": numbers, "is_complete": counted.is_complete}


def show(visit: Visit) -> JsonObject:
    """Shows all data of a job.

    `running` is the job in the latest report of its worker: its stack, and in `io` the calls that it waits
    for. `io` null: the worker does not trace I/O. `stale`: the worker has not reported lately."""
    record = visit.decoded(visit.client.stored(visit.names["id"]))
    running = running_now(visit.broker, record, visit.now)
    return {**job_details(record, now=visit.now), "running": running_view(running)}


def logs(visit: Visit, inputs: LogsInputs) -> JsonObject:
    """Answers lines of a job's log, in order. `cursor` continues after them, also after an empty page."""
    job_id = check_job_id(visit.names["id"])
    page = visit.broker.read_logs(job_id, cursor=inputs.cursor or None, limit=inputs.limit)
    return {"lines": [log_view(line) for line in page.lines], "cursor": page.cursor}


def explain(visit: Visit) -> JsonObject:
    """Says why a job does not run, with the commands that change it."""
    reasons = explain_job(visit.broker, check_job_id(visit.names["id"]))
    return {"reasons": [reason_view(reason) for reason in reasons]}
