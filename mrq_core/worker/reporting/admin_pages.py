"""The pages of a worker's admin port, safe in any thread, also while a job blocks the hub."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import NamedTuple

from mrq_core.clock import monotonic
from mrq_core.contract.codec import JsonObject
from mrq_core.operations.measures.prometheus import METRICS, labels, series
from mrq_core.operations.views import worker_view
from mrq_core.operations.workers import WorkerReport
from mrq_core.worker.reporting.report import Reporter
from mrq_core.worker.worker_state import WorkerState

JSON, TEXT = "application/json", "text/plain; charset=utf-8"
_CLAIMING = frozenset({"wait", "spawn", "full"})
_AWAY = 10.0
"""Seconds without an answer of the broker after which a worker is not ready, or three polls."""


class Page(NamedTuple):
    """An answer. `status` is the code and the reason of HTTP."""

    status: str
    kind: str
    body: str


OK, UNAVAILABLE = "200 OK", "503 Service Unavailable"
NOT_FOUND = Page(
    "404 Not Found",
    TEXT,
    "no such page: expected /report, /report_mem, /healthz, /readyz, /metrics or /wait_for_idle\n",
)


class Pages:
    """Makes the pages. `polled_at`: the monotonic time of the latest answer of the broker."""

    def __init__(self, state: WorkerState, reporter: Reporter, polled_at: Callable[[], float]) -> None:
        self._state = state
        self._reporter = reporter
        self._polled_at = polled_at
        self._away = max(_AWAY, 3 * state.config.paused_queues_refresh_interval)

    def page(self, path: str, blocked: float = 0.0) -> Page:
        """The page at this path. `blocked`: the seconds for which a job blocks the hub."""
        if path in ("/", "/report"):
            return _json(worker_view(self._reporter.describe()))
        if path == "/report_mem":
            return _json({**worker_view(self._reporter.describe()), **_memory()})
        if path == "/healthz":
            return Page(OK, TEXT, f"ok, a job blocks the hub for {blocked:.1f} s\n" if blocked else "ok\n")
        if path == "/readyz":
            reason = self._why_not_ready(blocked)
            return Page(UNAVAILABLE, TEXT, f"{reason}\n") if reason else Page(OK, TEXT, "ok\n")
        if path == "/metrics":
            return Page(OK, METRICS, "".join(_metrics(self._reporter.describe(), blocked)))
        return NOT_FOUND

    def _why_not_ready(self, blocked: float) -> str:
        """Why the worker claims no jobs now. Empty: it claims."""
        status = self._state.status
        if status not in _CLAIMING:
            return f"the worker does not claim jobs: its state is {status}"
        if blocked:
            return f"a job blocks the hub for {blocked:.1f} s"
        away = monotonic() - self._polled_at()
        return f"the broker has not answered for {away:.0f} s" if away > self._away else ""


def _json(value: JsonObject) -> Page:
    return Page(OK, JSON, json.dumps(value) + "\n")


def _memory() -> JsonObject:
    """The resident and the swapped memory of this process in bytes, where /proc tells them."""
    sizes = {"VmRSS": 0, "VmSwap": 0, "VmHWM": 0}
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(":")
                if name in sizes:
                    sizes[name] = int(value.split()[0]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    resident, swapped, peak = sizes.values()
    return {"mem": {"rss": resident, "swap": swapped, "total": resident + swapped, "peak": peak}}


def _metrics(report: WorkerReport, blocked: float) -> Iterator[str]:
    """The report in the text format of Prometheus."""
    worker = labels(name=report.name, version=report.version)
    yield from series("mrq_worker_info", "gauge", "The worker.", {worker: 1})
    yield from series("mrq_worker_state", "gauge", "The state of the worker.", {
        labels(state=report.status): 1
    })  # fmt: skip
    yield from series("mrq_jobs_total", "counter", "Ended attempts.", {
        labels(status=status): number for status, number in sorted(report.jobs.items())
    })  # fmt: skip
    for name, kind, help, value in (
        ("mrq_running_jobs", "gauge", "Running jobs.", report.busy),
        ("mrq_greenlets", "gauge", "The most jobs that run at a time.", report.greenlets),
        ("mrq_pool_usage_ratio", "gauge", "The mean use of the greenlets in the last minute.", report.usage),
        ("mrq_unsettled_outcomes", "gauge", "Outcomes that wait for the broker.", report.unsettled),
        ("mrq_hub_blocked_seconds", "gauge", "Seconds for which a job blocks the hub.", blocked),
        ("mrq_start_time_seconds", "gauge", "Unix time of the start.", report.started_at.timestamp()),
        ("process_resident_memory_bytes", "gauge", "Resident memory.", report.memory),
        ("process_cpu_seconds_total", "counter", "Seconds of the processor.", report.cpu_time),
    ):
        yield from series(name, kind, help, {"": value})
