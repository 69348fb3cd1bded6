"""The page of one job: its attempts, its data, its relatives, and why it is not running."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.messages import CHUNK
from mrq_core.contract.naming import raw_kind
from mrq_core.contract.queries import LogLine
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.values import check_job_id
from mrq_core.errors import JobNotFound
from mrq_core.operations.explaining.explaining import explain_job
from mrq_core.operations.explaining.reasons import in_shell, quoted
from mrq_core.operations.jobs import read_log_tail, relatives
from mrq_core.operations.running_jobs import NOT_TRACED, running_now
from mrq_core.operations.views import death_of, duration_of, end_of, job_details, redacted
from mrq_dashboard.formats import json_line
from mrq_dashboard.pages.job_actions import actions_of
from mrq_dashboard.visit import Page, Visit

_MOST_LINES = 300
"""Log lines of one attempt that the page shows: the last."""
_MOST_LINE = 4000
"""Characters of a log line that the page shows."""
_LONGEST_COMMAND = 8000


class Line(NamedTuple):
    """A line of a log, cut to _MOST_LINE characters."""

    at: datetime
    level: str
    message: str


class Log(NamedTuple):
    """The last lines of a log, up to `most`, and the number of lines before them."""

    lines: Sequence[Line]
    left_out: int
    most: int = _MOST_LINES


_NO_LOG = Log((), 0)


class JobLog(NamedTuple):
    """The log of a job by attempt. `cursor` continues it."""

    by_claim: Mapping[int, Log]
    cursor: str


class Branch(NamedTuple):
    """One attempt. `start` and `length` are its share of the time from the first event to the last.
    `ended_at` None: it is running."""

    claim: int
    status: str
    tone: str
    worker: str
    started_at: datetime
    ended_at: datetime | None
    seconds: float
    death: str | None
    exception_type: str | None
    traceback: str
    original_traceback: str
    log: Log
    start: float
    length: float


def job(visit: Visit) -> Page:
    """One job."""
    broker = visit.broker
    job_id = visit.names["id"]
    [stored] = broker.get([check_job_id(job_id)])
    if stored is None:
        raise JobNotFound(job_id)
    record = visit.decoded(stored)
    now = visit.now
    log = _log_of(visit, record)
    branches = _branches(record, log.by_claim, now)
    shown = {branch.claim for branch in branches}
    params, result = redacted(record.params), redacted(record.result)
    context = {
        "record": record,
        "now": now,
        "details": job_details(record, now=now),
        "duration": duration_of(record, now),
        "waited": _waited(record, now),
        "reasons": explain_job(broker, job_id),
        "branches": branches,
        "log_cursor": log.cursor,
        "other_logs": [one for claim, one in log.by_claim.items() if claim not in shown],
        "params": params,
        "result": result,
        "has_secrets": params != record.params,
        "actions": actions_of(visit, record),
        "command": _run_command(record, params),
        "running": running_now(broker, record, now),
        "not_traced": NOT_TRACED,
        "parents": relatives(broker, record.parents),
        "children": relatives(broker, record.children),
        "has_result": record.result is not None or record.status is Status.SUCCESS,
    }
    return Page(template="jobs/one.html", title=f"{record.path} {record.id}", context=context)


def _log_of(visit: Visit, record: JobRecord) -> JobLog:
    """The last lines of each attempt. A long log is not read whole: each attempt costs a few reads."""
    try:
        page = visit.broker.read_logs(record.id, limit=CHUNK)
        by_claim: dict[int, list[LogLine]] = {}
        for line in page.lines:
            by_claim.setdefault(line.attempt, []).append(line)
        if len(page.lines) < CHUNK:
            return JobLog({claim: _log(lines) for claim, lines in by_claim.items()}, page.cursor)
        logs, cursor = {}, page.cursor
        claims = {*by_claim, *(attempt.claim for attempt in record.attempts), record.claims}
        for claim in sorted(claims):
            tail = read_log_tail(visit.broker, record.id, claim, _MOST_LINES)
            logs[claim], cursor = _log(tail.lines, tail.left_out), tail.cursor
        return JobLog(logs, cursor)
    except JobNotFound:  # removed since its record was read
        return JobLog({}, "")


def _log(lines: Sequence[LogLine], before: int = 0) -> Log:
    shown = [Line(line.at, line.level, line.message[:_MOST_LINE]) for line in lines[-_MOST_LINES:]]
    return Log(shown, before + len(lines) - len(shown))


def _branches(record: JobRecord, logs: Mapping[int, Log], now: datetime) -> list[Branch]:
    attempts = record.attempts
    begins = [record.queued_at, *(attempt.started_at for attempt in attempts)]
    first, last = min(begins), record.ended_at or max([now, *begins])
    whole = max((last - first).total_seconds(), 0.001)

    def share(moment: datetime) -> float:
        return min(1.0, max(0.0, (moment - first).total_seconds() / whole))

    branches = []
    for attempt in attempts:
        end = end_of(attempt)
        branches.append(
            Branch(
                claim=attempt.claim,
                status=end,
                tone=_tone(end),
                worker=attempt.worker,
                started_at=attempt.started_at,
                ended_at=attempt.ended_at,
                seconds=max(0.0, (attempt.ended_at - attempt.started_at).total_seconds()),
                death=death_of(attempt),
                exception_type=attempt.exception_type,
                traceback=attempt.traceback or "",
                original_traceback=attempt.original_traceback or "",
                log=logs.get(attempt.claim, _NO_LOG),
                start=share(attempt.started_at),
                length=share(attempt.ended_at) - share(attempt.started_at),
            )
        )
    if record.status is Status.STARTED and record.started_at is not None:
        branches.append(
            Branch(
                claim=record.claims,
                status="started",
                tone="now",
                worker=record.worker or "",
                started_at=record.started_at,
                ended_at=None,
                seconds=max(0.0, (now - record.started_at).total_seconds()),
                death=None,
                exception_type=None,
                traceback="",
                original_traceback="",
                log=logs.get(record.claims, _NO_LOG),
                start=share(record.started_at),
                length=1.0 - share(record.started_at),
            )
        )
    return branches


def _tone(end: str) -> str:
    if end == Status.SUCCESS:
        return "good"
    is_bad = end in (Status.FAILED, Status.TIMEOUT, Status.MAXRETRIES, Status.ABORT, "lost", "died")
    return "bad" if is_bad else "warn"


def _waited(record: JobRecord, now: datetime) -> float | None:
    """The seconds that the job waited for its latest attempt, or has waited for its first."""
    if record.started_at is None and record.is_ended:
        return None
    begin = record.waits_from or record.queued_at
    seconds = ((record.started_at or now) - begin).total_seconds()
    return seconds if seconds >= 0 else None


def _run_command(record: JobRecord, params: JsonValue) -> str | None:
    """The command that queues the same job. None: it is too long. A job of a raw queue goes to the queue of
    its task, because a raw queue holds no jobs."""
    given: JsonObject = params if isinstance(params, dict) else {}
    where = "--async" if raw_kind(record.queue) else f"--queue={in_shell(record.queue)}"
    text = f" {in_shell(json_line(given))}" if given else ""
    command = f"mrq run {where} {quoted(record.path)}{text}"
    return command if len(command) <= _LONGEST_COMMAND else None
