"""How one job and its log look on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from mrq_core.cli.output import (
    STATUS_STYLES,
    console,
    counted,
    json_text,
    print_json,
    safe,
    safe_line,
)
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import JobRecord
from mrq_core.operations.running_jobs import (
    NOT_TRACED,
    RunningNow,
    io_call_text,
    io_left_out_text,
    io_totals_text,
)
from mrq_core.operations.views import end_of, iso, log_view, seconds, timeline

if TYPE_CHECKING:
    from rich.console import Console

_LEVEL_STYLES = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "bold red", "DEBUG": "dim"}


def print_job(record: JobRecord, details: JsonObject) -> None:
    """Prints a job: facts, timeline, params, result and attempts."""
    to = console()
    _title(to, record, details)
    _section(to, "timeline")
    for at, event in timeline(record):
        to.print(f"  {iso(at)}  {safe_line(event)}", soft_wrap=True)
    _section(to, "params")
    _json(to, details["params"])
    if record.result is not None or str(record.status) == "success":
        _section(to, "result")
        _json(to, details["result"])
    for attempt in record.attempts:
        if attempt.traceback or attempt.lost:
            _section(to, f"attempt {attempt.claim}: {end_of(attempt)}")
            for text in (attempt.original_traceback, attempt.traceback):
                if text:
                    to.print(_indented(text), soft_wrap=True)
    if record.traceback and not record.attempts:
        _section(to, "error")
        to.print(_indented(record.traceback), soft_wrap=True)


def print_running(running: RunningNow, now: datetime) -> None:
    """Prints the stack and the I/O of a running job."""
    to = console()
    age = seconds((now - running.report.reported_at).total_seconds())
    _section(to, f"stack and I/O, reported {age} ago{' (stale)' if running.is_stale else ''}")
    if running.job is None:
        lines = ["The latest report of its worker does not name this job: `mrq stack` does."]
    else:
        io = running.job.io
        lines = [NOT_TRACED] if io is None else [*map(io_call_text, io.calls)] or ["waits for no traced I/O"]
        if io is not None and io.left_out:
            lines.append(io_left_out_text(io))
        if io is not None and io.totals:
            lines.append(f"so far: {io_totals_text(io.totals)}")
        lines += running.job.stack
    for line in lines:
        to.print(f"  {safe_line(line)}", soft_wrap=True)


def print_log_end(record: JobRecord, lines: Sequence[LogLine], *, left_out: int) -> None:
    """Prints the last lines of a log, of which `left_out` lines are left out."""
    to = console()
    if lines:
        _section(to, "log" if not left_out else f"log: the last lines; `mrq jobs logs {record.id}` shows all")
        print_log_lines(lines, indent="  ")


def print_log_lines(lines: Sequence[LogLine], *, as_json_lines: bool = False, indent: str = "") -> None:
    """Prints lines of a log as a person reads them, or each as one line of JSON."""
    to = console()
    for line in lines:
        if as_json_lines:
            print_json(log_view(line), indent=None)
            continue
        text = f"{indent}{iso(line.at)} {line.level:<7} {safe(line.message)}"
        to.print(text, style=_LEVEL_STYLES.get(line.level), soft_wrap=True)


def _title(to: Console, record: JobRecord, details: JsonObject) -> None:
    from rich.text import Text

    status = str(record.status)
    to.print(
        Text.assemble(
            (f"{safe_line(record.path)}  ", "bold"), (status, STATUS_STYLES.get(status, "")), f"  {record.id}"
        ),
        soft_wrap=True,
    )
    duration = details["duration"]
    lost = record.lost_claims - record.solo_deaths
    facts = {
        "queue": record.queue,
        "priority": record.priority or None,
        "worker": record.worker,
        "duration": seconds(duration) if isinstance(duration, float | int) else None,
        "progress": f"{record.progress:.0%}" if 0 < record.progress < 1 else None,
        "attempts": f"{record.claims}" if record.claims > 1 else None,
        "retries": record.retry_count or None,
        "edits": record.edits or None,
        "deaths": f"{record.solo_deaths} in a row" if record.solo_deaths else None,
        "lost claims": f"{lost} in a row" if lost else None,
        "error": record.exception_type,
        "error group": record.error_group,
        "search keys": _pairs(details["search_keys"]),
        "unique key": record.unique_key,
        "schedule": record.schedule,
        "cancel": "requested" if record.cancel_requested else None,
        "parents": " ".join(record.parents) or None,
        "children": counted(len(record.children), "job") if record.children else None,
    }
    for name, value in facts.items():
        if value is not None:
            to.print(f"  {name:<11} {safe_line(str(value))}", soft_wrap=True)


def _pairs(values: JsonValue) -> str | None:
    pairs = values.items() if isinstance(values, dict) else ()
    return " ".join(f"{name}={json_text(value)}" for name, value in pairs) or None


def _section(to: Console, title: str) -> None:
    to.print(f"\n{safe_line(title)}", style="bold", soft_wrap=True)


def _json(to: Console, value: JsonValue) -> None:
    to.print(_indented(json_text(value)), soft_wrap=True)


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in safe(text).rstrip().split("\n"))
