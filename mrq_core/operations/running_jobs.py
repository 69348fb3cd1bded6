"""A running job as the latest report of its worker has it: its stack, and what its I/O waits for."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.record import JobRecord, Status
from mrq_core.operations.views import io_view, iso, seconds
from mrq_core.operations.workers import IoCall, IoState, IoTotal, RunningJob, WorkerReport, find_worker

NOT_TRACED = (
    "The worker does not trace I/O. Start it with --trace-io to see what a job waits for; mrq stack tells "
    "the server of a socket that waits."
)
_SHORTEST = 5.0
"""Seconds in which no report is stale, however short the interval is."""
_INTERVALS = 3


class RunningNow(NamedTuple):
    """A running job in the latest report of its worker. `job` None: the report does not name the job.
    `is_stale`: the worker has not reported for three intervals, has stopped or is dead."""

    report: WorkerReport
    job: RunningJob | None
    is_stale: bool

    @property
    def io(self) -> IoState | None:
        """The I/O of the job. None: not traced, or not in the report."""
        return None if self.job is None else self.job.io


def running_now(broker: Broker, record: JobRecord, now: datetime) -> RunningNow | None:
    """The job in the latest report of its worker. None: the job does not run, or its worker has not reported
    in the last hour."""
    if record.status is not Status.STARTED or record.worker is None:
        return None
    report = find_worker(broker, record.worker)
    if report is None:
        return None
    found = next((one for one in report.running if one.id == record.id), None)
    age = (now - report.reported_at).total_seconds()
    is_stale = not report.is_at_work or age > max(_SHORTEST, _INTERVALS * report.interval)
    return RunningNow(report, found, is_stale)


def running_view(running: RunningNow | None) -> JsonObject | None:
    """A running job as a JSON value."""
    if running is None:
        return None
    return {
        "worker": running.report.name,
        "reported_at": iso(running.report.reported_at),
        "stale": running.is_stale,
        "stack": list(running.job.stack) if running.job is not None else [],
        "io": io_view(running.io),
    }


def io_call_text(call: IoCall) -> str:
    """A call in one line: ``redis GET user:42 at 127.0.0.1:6379, for 3.2 s``."""
    return f"{call.kind} {call.text}".strip() + f", for {seconds(call.seconds)}"


def io_calls_text(io: IoState) -> str:
    """The first call in progress, and the number of the others; empty without a call."""
    if not io.calls:
        return ""
    others = len(io.calls) - 1 + io.left_out
    return io_call_text(io.calls[0]) + (f", and {others} more" if others else "")


def io_left_out_text(io: IoState) -> str:
    """The number of the calls that are left out; empty without such calls."""
    return f"and {io.left_out:,} more call{'' if io.left_out == 1 else 's'}" if io.left_out else ""


def io_totals_text(totals: Mapping[str, IoTotal]) -> str:
    """The totals, the longest first: ``http 3 calls in 4.2 s, redis 1 call in 12 ms``."""
    ordered = sorted(totals.items(), key=lambda item: -item[1].seconds)
    return ", ".join(
        f"{kind} {total.calls:,} call{'' if total.calls == 1 else 's'} in {seconds(total.seconds)}"
        for kind, total in ordered
    )
