"""`mrq jobs list`, `show`, `logs` and `wait`: list and show jobs."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Annotated

import typer

from mrq_core.cli.errors import EXIT_FAILED, named_as_typed, notes_of
from mrq_core.cli.job_display import print_job, print_log_end, print_log_lines, print_running
from mrq_core.cli.options import Given, command, filter_of
from mrq_core.cli.output import console, counted, note, print_json, say, show_table
from mrq_core.cli.terminal import flush_result, is_output_gone
from mrq_core.client.client import Client
from mrq_core.client.handles import Job, wait_for_status
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.queries import Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import shown_error
from mrq_core.operations import jobs
from mrq_core.operations.queries.filters import FilterTexts, seconds_from
from mrq_core.operations.running_jobs import running_now, running_view
from mrq_core.operations.views import job_details, job_row, log_view, seconds

_FOLLOW_EVERY = 0.25
_TAIL = 20
_NARROW = 120

JobId = Annotated[str, typer.Argument(metavar="ID", help="The job's id.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command("broker", "plugins", needs_output=True)
def list_jobs(
    given: Given,
    wanted: FilterTexts,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=1, help="The largest number of jobs to show.")
    ] = 25,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Show the oldest jobs first.")] = False,
    cursor: Annotated[
        str | None, typer.Option("--cursor", metavar="CURSOR", help="Continue an earlier list.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Lists jobs, newest first.

    Examples: `mrq jobs list --status failed,timeout --since 2h`, `mrq jobs list --params user=17`.
    """
    job_filter = filter_of(wanted)
    order = Order.OLDEST_FIRST if oldest_first else Order.NEWEST_FIRST
    with given.client() as client, named_as_typed(cursor="--cursor"):
        found = jobs.list_jobs(
            client.broker, job_filter, limit=limit, order=order, cursor=cursor, on_scan=_note_scan
        )
        # The table has neither params nor results.
        records = _decoded(client, found.records) if as_json else found.records
        now = client.broker.now()
        rows = [job_row(record, now=now) for record in records]
    if as_json:
        print_json(list(rows))
    elif rows:
        _print_jobs(rows)
    else:
        more = "" if cursor is None else "more "
        note(f"There are no {more}jobs." if job_filter.is_empty else f"No {more}jobs match.")
    if found.cursor is not None:
        shown = f"{counted(len(rows), 'job')}; there are more"
        if found.total is not None:
            shown = f"{len(rows):,} of {found.total:,} jobs"
        note(f"Shown: {shown}. Continue with --cursor {found.cursor}, or show more with --limit.")


def _note_scan() -> None:
    note("Searching: there are many jobs to examine, or the broker is slow. Ctrl-C stops the search.")


def _decoded(client: Client, records: Sequence[JobRecord]) -> Sequence[JobRecord]:
    """The records with params and result as before `mrq_encode`; as stored where a plugin cannot decode them,
    which a remark says."""
    decoded: list[JobRecord] = []
    failed: list[tuple[str, str]] = []
    for record in records:
        try:
            decoded.append(client.decoded(record))
        except Exception as error:  # of a plugin
            decoded.append(record)
            failed.append((record.id, "; ".join([shown_error(error), *notes_of(error)[:1]])))
    if failed:
        job_id, reason = failed[0]
        others = f" and {counted(len(failed) - 1, 'other job')}" if len(failed) > 1 else ""
        note(f"Job {job_id}{others}: params and result are shown as they are stored, because {reason}.")
    return decoded


def _print_jobs(rows: list[JsonObject]) -> None:
    """Prints the rows as a table. On a narrow terminal a path shows its last two parts only."""
    narrow = console().width < _NARROW
    show_table(
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


@command("broker", "plugins", needs_output=True)
def show_job(given: Given, job_id: JobId, as_json: AsJson = False) -> None:
    """Shows all data of a job: its attempts, result or error, stack and I/O, and the end of its log."""
    with given.client() as client:
        [record] = _decoded(client, [client.stored(job_id)])
        lines = jobs.read_log(client.broker, job_id).lines
        now = client.broker.now()
        running = running_now(client.broker, record, now)
    details = job_details(record, now=now)
    if as_json:
        logged: list[JsonValue] = [log_view(line) for line in lines]
        print_json({**details, "running": running_view(running), "logs": logged})
        return
    print_job(record, details)
    if running is not None:
        print_running(running, now)
    print_log_end(record, lines[-_TAIL:], left_out=max(0, len(lines) - _TAIL))


@command("broker", "plugins", needs_output=True)
def logs(
    given: Given,
    job_id: JobId,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Print new lines until the job has ended.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print JSON; with --follow one line of JSON for each log line.")
    ] = False,
) -> None:
    """Prints the log of a job."""
    with given.client() as client:
        if follow:
            _follow(client, job_id, as_json=as_json)
            return
        lines = jobs.read_log(client.broker, job_id).lines
        if as_json:
            print_json([log_view(line) for line in lines])
        elif lines:
            print_log_lines(lines)
        else:
            note(f"Job {job_id} has logged nothing; its status is {client.stored(job_id).status}.")


def _follow(client: Client, job_id: str, *, as_json: bool) -> None:
    cursor: str | None = None
    while True:
        # The status first: the lines of an ended job are then read completely.
        ended = client.stored(job_id).is_ended
        page = jobs.read_log(client.broker, job_id, cursor)
        cursor = page.cursor
        if page.lines:
            print_log_lines(page.lines, as_json_lines=as_json)
            flush_result()
        if ended or is_output_gone():
            return
        time.sleep(_FOLLOW_EVERY)


@command("broker", "plugins")
def wait(
    given: Given,
    job_id: JobId,
    timeout: Annotated[
        str | None,
        typer.Option("--timeout", metavar="DURATION", help="Stop waiting after this time: 30s, 5m."),
    ] = None,
) -> None:
    """Waits until a job has ended and prints its status; exits with 0 for success, else with 1."""
    patience = None if timeout is None else seconds_from(timeout, name="--timeout")
    with given.client() as client:
        status = wait_for_status(Job(job_id, client=client), patience)
    say(str(status))
    if status is not Status.SUCCESS:
        sys.exit(EXIT_FAILED)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) else None
