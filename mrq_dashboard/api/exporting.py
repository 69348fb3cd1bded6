"""Exports jobs as JSON lines or CSV, in a stream of bounded memory."""

from __future__ import annotations

import csv
import io
import logging
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct
from starlette.responses import Response, StreamingResponse
from starlette.types import Send

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.messages import CHUNK
from mrq_core.contract.queries import Order
from mrq_core.errors import BrokerError, InvalidValue
from mrq_core.operations.queries.query import SearchQuery, parse_query
from mrq_core.operations.queries.search import search
from mrq_core.operations.views import job_details
from mrq_dashboard.actions.bulk import selected
from mrq_dashboard.inputs import QueryText
from mrq_dashboard.visit import Visit

JSON_LINES, CSV = "application/x-ndjson", "text/csv"
COLUMNS = (
    "id", "status", "path", "queue", "priority", "queued_at", "due_at", "started_at", "ended_at", "duration",
    "claims", "retry_count", "worker", "exception_type", "exception_message", "error_group", "schedule",
    "params",
)  # fmt: skip
"""The columns of CSV: a part of what JSON lines have. `duration` is seconds, `params` JSON."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A spreadsheet runs a text that begins so."""
_PAGE = 200
"""Jobs in memory at a time."""

_log = logging.getLogger("mrq.dashboard")


class ExportInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which jobs to export."""

    q: QueryText = ""
    ids: Annotated[
        tuple[str, ...], Meta(max_length=CHUNK, description="Ids of jobs, instead of the query.")
    ] = ()
    all: Annotated[bool, Meta(description="All jobs of the query, also if ids are given.")] = False
    format: Annotated[
        Literal["jsonl", "csv"], Meta(description="JSON lines with all data, or CSV with some columns.")
    ] = "jsonl"
    limit: Annotated[Annotated[int, Meta(ge=1)] | None, Meta(description="The most jobs.")] = None


def export(visit: Visit, inputs: ExportInputs) -> Response:
    """Exports the jobs of a query, oldest first: as JSON lines with all data of a job in each, or as CSV.

    CSV has a header and fixed columns. A text there that a spreadsheet would run as a formula begins with an
    apostrophe. An error of the broker after the first 200 jobs cuts the stream off without its end."""
    if inputs.ids and not inputs.all:
        query = selected(visit, inputs.ids)
    else:
        query = parse_query(visit.broker, inputs.q)
    if inputs.limit is not None and inputs.limit > 2**53:
        raise InvalidValue("limit is too large: expected at most 2^53", path="limit")
    is_csv = inputs.format == "csv"
    disposition = f'attachment; filename="jobs.{inputs.format}"'
    header = _table(COLUMNS) if is_csv else b""
    parts = _parts(visit, query, inputs.limit, _rows if is_csv else _lines)
    first = next(parts, b"")  # an outage is answered with its own status, before the stream begins
    return _Export(
        chain((header + first,), parts),
        media_type=CSV if is_csv else JSON_LINES,
        headers={"content-disposition": disposition, "x-accel-buffering": "no"},
    )


class _Export(StreamingResponse):
    """A stream that the server cuts off, because it has no end, when the broker fails meanwhile."""

    async def stream_response(self, send: Send) -> None:
        """Sends the parts."""
        try:
            await super().stream_response(send)
        except BrokerError as error:
            _log.error("export.cut_off error=%s", error)


def _parts(
    visit: Visit,
    query: SearchQuery,
    limit: int | None,
    encode: Callable[[Sequence[JsonObject]], bytes],
) -> Iterator[bytes]:
    """Parts of the answer: up to _PAGE jobs each. Runs in a thread, while the client reads."""
    cursor: str | None = None
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        page = search(visit.broker, query, cursor=cursor, limit=size, order=Order.OLDEST_FIRST)
        jobs = [job_details(visit.decoded(record), now=visit.now) for record in page.records]
        if jobs:
            yield encode(jobs)
        left = None if left is None else left - len(jobs)
        cursor = page.cursor
        if cursor is None:
            return


def _lines(jobs: Sequence[JsonObject]) -> bytes:
    return b"".join(msgspec.json.encode(job) + b"\n" for job in jobs)


def _rows(jobs: Sequence[JsonObject]) -> bytes:
    return _table(*([_cell(job[name]) for name in COLUMNS] for job in jobs))


def _table(*rows: Sequence[str]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _cell(value: JsonValue) -> str:
    """A text that a spreadsheet shows and does not run. Numbers stay numbers."""
    if value is None:
        return ""
    if not isinstance(value, str):
        return msgspec.json.encode(value).decode()
    return f"'{value}" if value.startswith(_FORMULA) else value
