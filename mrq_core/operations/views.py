"""Records, queues, workers and findings as plain data: JSON values with times in ISO 8601, UTC; secrets as
``***``."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from datetime import UTC, datetime

import msgspec

from mrq_core.clock import DATETIMES, from_ms
from mrq_core.config.secrets import HIDDEN, is_secret
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.driver import Driver
from mrq_core.contract.naming import is_covered
from mrq_core.contract.queries import Finding, LogLine, QueueCounts
from mrq_core.contract.record import Attempt, JobRecord, Status
from mrq_core.ids import seconds_of
from mrq_core.operations.schedules import StoredSchedule
from mrq_core.operations.statistics import QueueStatistics
from mrq_core.operations.workers import IoState, WorkerReport
from mrq_core.scheduler.definitions import trigger_words

_DIED = "mrq_core.errors.ProcessDied"
_DEATHS = frozenset({_DIED, "mrq_core.errors.ClaimLost"})
_DEATH = re.compile(r"own process \d+ of this job (.+?),? after .+?peak memory was (\d+ MB)")
_REQUEUED_AFTER = 2.0
"""Seconds between the creation of a job's id and `queued_at` from which on the job was queued again."""


def iso(moment: datetime | None) -> str | None:
    """The time in ISO 8601 with milliseconds, such as ``2025-01-31T12:00:00.000Z``."""
    if moment is None:
        return None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def seconds(value: float | None) -> str:
    """A duration for people: ``120 ms``, ``4.2 s``, ``3 min``, ``5 h``, ``2 d``. None is negative."""
    if value is None:
        return ""
    value = max(0.0, value)
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    for size, unit in ((86_400 * 2, "d"), (7200, "h")):
        if value >= size:
            return f"{value / (86_400 if unit == 'd' else 3600):.0f} {unit}"
    return f"{value / 60:.0f} min"


def redacted(value: JsonValue) -> JsonValue:
    """The value with ``***`` for the values of keys that look secret, at any depth."""
    if isinstance(value, dict):
        return {key: HIDDEN if is_secret(key, item) else redacted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redacted(item) for item in value]
    return value


def struct_view(struct: msgspec.Struct) -> JsonObject:
    """A struct of this package with its fields: times as `iso` has them, statuses as words, tuples as lists.
    Hides nothing: for values that no job has given."""
    fields = msgspec.to_builtins(struct, builtin_types=DATETIMES)
    view = _with_iso(fields)
    assert isinstance(view, dict)
    return view


def _with_iso(value: object) -> JsonValue:
    if isinstance(value, datetime):
        return iso(value)
    if isinstance(value, dict):
        return {str(key): _with_iso(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_iso(item) for item in value]
    assert value is None or isinstance(value, str | int | float)
    return value


def duration_of(record: JobRecord, now: datetime) -> float | None:
    """The seconds that the latest attempt took, or has taken so far. None: before the first attempt."""
    if record.status is Status.STARTED and record.started_at is not None:
        return max(0.0, (now - record.started_at).total_seconds())
    return record.total_time


def job_row(record: JobRecord, *, now: datetime) -> JsonObject:
    """A job as a row of a list. `age` and `duration` are seconds."""
    return {
        "id": record.id,
        "status": str(record.status),
        "path": record.path,
        "params": redacted(record.params),
        "queue": record.queue,
        "priority": record.priority,
        "progress": record.progress,
        "worker": record.worker,
        "exception_type": record.exception_type,
        "exception_message": record.exception_message,
        "error_group": record.error_group,
        "retry_count": record.retry_count,
        "claims": record.claims,
        "lost_claims": record.lost_claims,
        "solo_deaths": record.solo_deaths,
        "queued_at": iso(record.queued_at),
        "due_at": iso(record.due_at),
        "started_at": iso(record.started_at),
        "ended_at": iso(record.ended_at),
        "age": max(0.0, (now - record.queued_at).total_seconds()),
        "duration": duration_of(record, now),
    }


def job_details(record: JobRecord, *, now: datetime) -> JsonObject:
    """All data of a job."""
    return {
        **job_row(record, now=now),
        "raw_queue": record.raw_queue,
        "at_most_once": record.at_most_once,
        "cancel_requested": record.cancel_requested,
        "edits": record.edits,
        "unique_key": record.unique_key,
        "limit_keys": list(record.limit_keys),
        "schedule": record.schedule,
        "parents": list(record.parents),
        "children": list(record.children),
        "meta": redacted(record.meta),
        "search_keys": redacted(record.search_keys),
        "updated_at": iso(record.updated_at),
        "lease_until": iso(record.lease_until),
        "expires_at": iso(record.expires_at),
        "result": redacted(record.result),
        "traceback": record.traceback,
        "original_traceback": record.original_traceback,
        "attempts": [attempt_view(attempt) for attempt in record.attempts],
        "timeline": [{"at": iso(at), "event": event} for at, event in timeline(record)],
    }


def attempt_view(attempt: Attempt) -> JsonObject:
    """One attempt of a job that is over."""
    return {
        "claim": attempt.claim,
        "status": end_of(attempt),
        "death": death_of(attempt),
        "worker": attempt.worker,
        "started_at": iso(attempt.started_at),
        "ended_at": iso(attempt.ended_at),
        "exception_type": attempt.exception_type,
        "traceback": attempt.traceback,
        "original_traceback": attempt.original_traceback,
    }


def end_of(attempt: Attempt) -> str:
    """How an attempt ended: its status, `lost` if its lease expired, or `died` if the job's own process died
    and the job ran again."""
    if not attempt.lost:
        return str(attempt.status)
    return "lost" if attempt.status is Status.STARTED else "died"


def death_of(attempt: Attempt) -> str | None:
    """How the job's own process died in this attempt: the signal or exit code, and the peak memory. None: the
    process did not die, or the job had none."""
    if attempt.exception_type not in _DEATHS:
        return None
    found = _DEATH.search(attempt.traceback or "")
    if found is not None:
        return f"its process {found[1]}, with a peak memory of {found[2]}"
    return "its process died" if attempt.exception_type == _DIED else None


def timeline(record: JobRecord) -> list[tuple[datetime, str]]:
    """The past events of a job and its next events, each with its time, in order of time."""
    events = [(record.queued_at, f"queued on {record.queue}")]
    created = datetime.fromtimestamp(seconds_of(record.id), UTC)  # in whole seconds
    if (record.queued_at - created).total_seconds() >= _REQUEUED_AFTER:
        events.append((created, "created"))
    for attempt in record.attempts:
        events.append((attempt.started_at, f"attempt {attempt.claim} started by {attempt.worker}"))
        end, death = end_of(attempt), death_of(attempt)
        reason = "its lease expired" if end == "lost" else death
        how = end if end in ("lost", "died") else f"ended: {end}"
        text = f"attempt {attempt.claim} {how}{f': {reason}' if reason else ''}"
        events.append((attempt.ended_at, text))
    if record.status is Status.STARTED and record.started_at is not None:
        events.append((record.started_at, f"attempt {record.claims} started by {record.worker}"))
        if record.lease_until is not None:
            events.append((record.lease_until, "its lease ends, unless it is renewed"))
    elif record.due_at is not None:
        events.append((record.due_at, "due"))
    if record.ended_at is not None and not record.attempts:
        events.append((record.ended_at, f"{record.status}"))
    if record.expires_at is not None:
        events.append((record.expires_at, "expires"))
    return sorted(events, key=lambda event: event[0])


def log_view(line: LogLine) -> JsonObject:
    """One line of a job's log."""
    return {
        "at": iso(line.at),
        "level": line.level,
        "attempt": line.attempt,
        "seq": line.seq,
        "message": line.message,
    }


def queue_view(counts: QueueCounts, *, paused: Collection[str]) -> JsonObject:
    """The counts of a queue, and whether the queue, or a tree that contains it, is paused."""
    return {
        "name": counts.queue,
        "waiting": counts.waiting,
        "due": counts.due,
        "claimed": counts.claimed,
        "oldest_due": iso(counts.oldest_due),
        "paused": is_covered(counts.queue, paused),
    }


def statistics_view(statistics: QueueStatistics) -> JsonObject:
    """The load of a queue or tree."""
    view: JsonObject = msgspec.to_builtins(statistics)
    return {**view, "time_to_empty": statistics.time_to_empty}


def worker_view(report: WorkerReport) -> JsonObject:
    """The latest report of a worker."""
    return {
        "name": report.name,
        "status": report.status,
        "host": report.host,
        "ip": report.ip,
        "pid": report.pid,
        "queues": list(report.queues),
        "queues_left_out": report.queues_left_out,
        "allowed_tasks": list(report.allowed_tasks),
        "denied_tasks": list(report.denied_tasks),
        "tasks_left_out": report.tasks_left_out,
        "greenlets": report.greenlets,
        "running": [
            {
                "id": job.id,
                "path": job.path,
                "started_at": iso(job.started_at),
                "age": job.age,
                "stack": list(job.stack),
                "io": io_view(job.io),
            }
            for job in report.running
        ],
        "running_jobs": report.busy,
        "usage": report.usage,
        "jobs": dict(report.jobs),
        "done_jobs": sum(report.jobs.values()),
        "unsettled": report.unsettled,
        "memory": report.memory,
        "memory_history": list(report.memory_history),
        "cpu_time": report.cpu_time,
        "cpu": report.cpu,
        "cpu_history": list(report.cpu_history),
        "started_at": iso(report.started_at),
        "reported_at": iso(report.reported_at),
        "interval": report.interval,
        "version": report.version,
    }


def io_view(io: IoState | None) -> JsonObject | None:
    """The I/O of a running job. None: it is not traced."""
    return None if io is None else struct_view(io)


def finding_view(finding: Finding) -> JsonObject:
    """One result of a check."""
    return {
        "name": finding.subject,
        "level": finding.level,
        "message": finding.message,
        "advice": finding.advice,
    }


def driver_view(driver: Driver) -> JsonObject:
    """A broker driver."""
    return {
        "name": driver.name,
        "kind": "driver",
        "summary": driver.summary,
        "url_schemes": list(driver.url_schemes),
        "settings": list(driver.settings),
    }


def plugin_view(name: str, *, origin: str, hooks: Sequence[str]) -> JsonObject:
    """A loaded plugin, and the hooks that it implements."""
    return {"name": name, "kind": "plugin", "origin": origin, "hooks": list(hooks)}


def schedule_view(stored: StoredSchedule) -> JsonObject:
    """A schedule."""
    definition = stored.definition
    options: JsonObject = msgspec.to_builtins(definition)
    options.update(start=_iso_ms(definition.start), end=_iso_ms(definition.end))
    for name in ("name", "path", "params"):
        options.pop(name, None)
    return {
        "name": stored.name,
        "status": schedule_status(stored),
        "path": definition.path,
        "params": redacted(definition.params),
        "fires": trigger_words(definition),
        "source": stored.source,
        "next_fire": _iso_ms(stored.next_fire) if stored.fires else None,
        "last_fire": _iso_ms(stored.last_fire),
        "recent": [{"at": _iso_ms(fire.at), "job": fire.job} for fire in stored.recent],
        "fired": stored.fired,
        "missed": stored.missed,
        "overlapped": stored.overlapped,
        "dropped": stored.dropped,
        "paused_at": _iso_ms(stored.paused_at),
        "pause_reason": stored.pause_reason,
        "error": stored.error,
        "options": {name: value for name, value in options.items() if value is not None},
    }


def schedule_status(stored: StoredSchedule) -> str:
    """``active``, ``paused``, or ``over`` for a schedule that fires no more."""
    if stored.paused_at is not None:
        return "paused"
    return "over" if stored.next_fire is None else "active"


def _iso_ms(moment_ms: int | None) -> str | None:
    return None if moment_ms is None else iso(from_ms(moment_ms))
