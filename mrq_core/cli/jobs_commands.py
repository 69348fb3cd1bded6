"""`mrq jobs list`, `show`, `logs` and `wait`: looking at jobs."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from mrq_core.cli.errors import EXIT_FAILED, UsageError
from mrq_core.cli.job_display import print_job, print_log_lines
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import console, note, print_json, say, seconds, show, table
from mrq_core.cli.session import opened
from mrq_core.client.client import Client
from mrq_core.client.handles import Job
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import CHUNK, JobFilter, LogLine, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.operations.filters import FilterTexts, filter_from, number_from_totals
from mrq_core.operations.views import job_details, job_row, log_view

if TYPE_CHECKING:
    from rich.console import RenderableType

_FOLLOW_EVERY = 0.25
_TAIL = 20
_NARROW = 120

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command("broker", "plugins")
def list_jobs(
    given: Given,
    wanted: FilterTexts,
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="How many to show at most.")] = 25,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Begin with the oldest.")] = False,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="CURSOR", help="Go on behind an earlier list.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lists jobs, newest first.

    Examples: `mrq jobs list --status failed,timeout --since 2h`, `mrq jobs list --params user=17`.
    """
    now = datetime.now(UTC)
    job_filter = filter_from(wanted, now=now)
    order = Order.OLDEST_FIRST if oldest_first else Order.NEWEST_FIRST
    with opened(given) as client:
        records, more = _find(client, job_filter, order, cursor, limit)
        total = None
        if more is not None:
            total = number_from_totals(job_filter, client.broker.totals())
    rows = [job_row(client.decoded(record), now=now) for record in records]
    if as_json:
        print_json(list(rows))
    elif rows:
        show(_jobs_table(rows))
    else:
        note("No jobs match." if not job_filter.is_empty else "There are no jobs.")
    if more is not None:
        shown = (
            f"{len(rows):,} of {total:,} jobs" if total is not None else f"{len(rows):,} jobs; there are more"
        )
        note(f"Shown: {shown}. Go on with --cursor {more}, or show more with --limit.")


def _find(
    client: Client, wanted: JobFilter, order: Order, cursor: str | None, limit: int
) -> tuple[list[JobRecord], str | None]:
    """Up to `limit` matching records, and the cursor behind them, or None where that was all."""
    records: list[JobRecord] = []
    told = False
    while True:
        page = client.broker.find(wanted, order=order, cursor=cursor, limit=min(limit - len(records), CHUNK))
        records += page.records
        cursor = page.cursor
        if cursor is None or len(records) >= limit:
            return records, cursor
        if page.searched_until is not None and not told:
            told = True
            note("Searching. No index serves this filter, so the search reads all jobs; Ctrl-C stops it.")


def _jobs_table(rows: list[JsonObject]) -> RenderableType:
    """On a narrow terminal only the last two parts of tasks' paths, which tell them apart."""
    narrow = console().width < _NARROW
    return table(
        ("id", "status", "task", "queue", "age", "duration", "error"),
        [
            (
                row["id"],
                row["status"],
                ".".join(str(row["path"]).split(".")[-2:]) if narrow else row["path"],
                row["queue"],
                seconds(_number(row["age"])),
                seconds(_number(row["duration"])),
                row["exception_type"],
            )
            for row in rows
        ],
    )


@command("broker", "plugins")
def show_job(given: Given, job_id: JobId, as_json: AsJson = False) -> None:
    """Shows everything about a job: its attempts, result or error, and the end of its log."""
    with opened(given) as client:
        record = client.fetch(job_id)
        lines = _read_all_logs(client, job_id)
    details = job_details(record, now=datetime.now(UTC))
    if as_json:
        print_json({**details, "logs": [log_view(line) for line in lines]})
    else:
        print_job(record, details, lines[-_TAIL:], left_out=max(0, len(lines) - _TAIL))


@command("broker", "plugins")
def logs(
    given: Given,
    job_id: JobId,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job has ended.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --follow one line for each.")
    ] = False,
) -> None:
    """Prints what a job has logged."""
    with opened(given) as client:
        if follow:
            _follow(client, job_id, as_json=as_json)
            return
        lines = _read_all_logs(client, job_id)
        if as_json:
            print_json([log_view(line) for line in lines])
        elif lines:
            print_log_lines(lines)
        else:
            note(f"Job {job_id} has logged nothing; its status is {client.fetch(job_id).status}.")


def _follow(client: Client, job_id: str, *, as_json: bool) -> None:
    cursor: str | None = None
    while True:
        # The status first: what was logged before the job ended is then read below.
        ended = client.fetch(job_id).is_ended
        lines: list[LogLine] = []
        while True:
            page = client.broker.read_logs(job_id, cursor=cursor, limit=CHUNK)
            cursor = page.cursor
            if not page.lines:
                break
            lines += page.lines
        if lines:
            print_log_lines(lines, as_json_lines=as_json)
            sys.stdout.flush()
        if ended:
            return
        time.sleep(_FOLLOW_EVERY)


def _read_all_logs(client: Client, job_id: str) -> list[LogLine]:
    lines: list[LogLine] = []
    cursor: str | None = None
    while True:
        page = client.broker.read_logs(job_id, cursor=cursor, limit=CHUNK)
        if not page.lines:
            return lines
        lines += page.lines
        cursor = page.cursor


@command("broker", "plugins")
def wait(
    given: Given,
    job_id: JobId,
    timeout: Annotated[
        float | None, typer.Option("--timeout", metavar="SECONDS", help="Give up after this many seconds.")
    ] = None,
) -> None:
    """Waits until a job has ended and prints its status; exits with 0 if that is success, else with 1."""
    if timeout is not None and not 0 <= timeout < 1e9:
        raise UsageError(f"--timeout is {timeout}: expected seconds, not negative")
    with opened(given) as client:
        record = Job(job_id, client=client).wait(timeout)
    say(str(record.status))
    if record.status is not Status.SUCCESS:
        sys.exit(EXIT_FAILED)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
