"""Exports jobs as JSON lines, in a stream of bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response, StreamingResponse

from mrq_core.contract.messages import CHUNK
from mrq_core.contract.queries import Order
from mrq_core.errors import InvalidValue
from mrq_core.operations.query import SearchQuery, parse_query
from mrq_core.operations.search import search
from mrq_core.operations.views import job_details
from mrq_dashboard.actions.bulk import selected
from mrq_dashboard.visit import Visit

KIND = "application/x-ndjson"
_PAGE = 200
"""Jobs in memory at a time."""


class ExportInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which jobs to export."""

    q: Annotated[str, Meta(max_length=8000, description="A query; the ids count, if there are any.")] = ""
    ids: Annotated[tuple[str, ...], Meta(max_length=CHUNK, description="Ids of jobs.")] = ()
    all: Annotated[bool, Meta(description="All jobs of the query, also if ids are given.")] = False
    limit: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="The most jobs.")] = None


def export(visit: Visit, inputs: ExportInputs) -> Response:
    """Exports the jobs of a query as JSON lines, oldest first: one object with all data of a job in each
    line.

    An error of the broker cuts the stream off without its end."""
    if inputs.ids and not inputs.all:
        query = selected(visit, inputs.ids)
    else:
        query = parse_query(visit.broker, inputs.q)
    if inputs.limit is not None and inputs.limit > 2**53:
        raise InvalidValue("limit is too large: expected at most 2^53", path="limit")
    visit.broker.now()  # an outage is answered with its own status, before the stream begins
    return StreamingResponse(
        _lines(visit, query, inputs.limit),
        media_type=KIND,
        headers={"content-disposition": 'attachment; filename="jobs.jsonl"', "x-accel-buffering": "no"},
    )


def _lines(visit: Visit, query: SearchQuery, limit: int | None) -> Iterator[bytes]:
    """Parts of the answer: up to _PAGE lines each. Runs in a thread, while the client reads."""
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        page = search(visit.broker, query, cursor=cursor, limit=size, order=Order.OLDEST_FIRST)
        lines = [
            msgspec.json.encode(job_details(visit.decoded(record), now=visit.now)) for record in page.records
        ]
        if lines:
            yield b"\n".join(lines) + b"\n"
        left = None if left is None else left - len(lines)
        cursor = page.cursor
        if cursor is None:
            return
