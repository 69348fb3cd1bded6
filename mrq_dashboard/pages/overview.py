"""The first page: what is wrong, since when, how many and why."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct

from mrq_core.contract.metrics import Resolution
from mrq_core.contract.record import WAITING, Status
from mrq_core.operations.errors import ErrorOrder, error_groups
from mrq_core.operations.explaining.reasons import ReasonKind, in_shell
from mrq_core.operations.measures.overview import Overview, Stuck, overview
from mrq_core.operations.measures.series import Point
from mrq_core.operations.views import seconds
from mrq_core.operations.workers import DEAD, list_workers
from mrq_dashboard.charts import Chart, bar_chart, line_chart, sparkline
from mrq_dashboard.visit import Page, Visit

_SPANS = {
    "1h": (Resolution.MINUTE, 60),
    "3h": (Resolution.MINUTE, 180),
    "24h": (Resolution.HOUR, 24),
    "72h": (Resolution.HOUR, 72),
}
_SHARED = 0.9
"""Seconds for which all visitors see the same: an open page is read again once a second at most."""
_READ_SECONDS = 0.1
"""Seconds in which a page reads metrics of earlier minutes and hours."""
_MOST_GROUPS = 5
_MOST_QUEUES = 8
_MOST_DEAD = 3
"""The names of dead workers that the page shows."""


class OverviewInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of the page."""

    span: Annotated[Literal["1h", "3h", "24h", "72h"], Meta(description="The time of the charts.")] = "1h"


class Charts(NamedTuple):
    """The charts of the page. None: nothing was measured."""

    ended: Chart | None
    waiting: Chart | None
    running: Chart | None


def show(visit: Visit, inputs: OverviewInputs) -> Page:
    """An installation at a glance."""
    context = visit.shared.get(("overview", inputs.span), _SHARED, lambda: _context(visit, inputs.span))
    return Page(template="overview/page.html", title="Overview", context=context)


def _context(visit: Visit, span: str) -> dict[str, Any]:
    """What the page shows; the same for all visitors."""
    resolution, number = _SPANS[span]
    state = overview(
        visit.broker,
        visit.slot_history,
        resolution=resolution,
        number=number,
        seconds=_READ_SECONDS,
        reached=visit.reached,
    )
    groups = error_groups(
        visit.broker, limit=_MOST_GROUPS, order=ErrorOrder.RECENT, successes=visit.successes
    ).groups
    ended, failed = sum(rate.ended for rate in state.rates), sum(rate.failed for rate in state.rates)
    dead = state.workers.get("dead", 0)
    return {
        "state": state,
        "span": span,
        "spans": tuple(_SPANS),
        "charts": _charts(state),
        "ended": ended,
        "failed": failed,
        "failure_rate": failed / ended if ended else None,
        "throughput": _throughput(state),
        "waiting": sum(state.numbers.get(status, 0) for status in WAITING),
        "running": state.numbers.get(Status.STARTED, 0),
        "at_work": sum(state.workers.values()) - dead - state.workers.get("stop", 0),
        "dead": dead,
        **_stuck(state),
        "dead_names": _dead_names(visit) if dead else [],
        "groups": [(group, sparkline(group.trend)) for group in groups if sum(group.trend)],
        "queues": [(line, sparkline(line.ended)) for line in state.sparklines[:_MOST_QUEUES]],
        "is_new": not sum(state.numbers.values()) and not state.workers and not ended,
    }


def _stuck(state: Overview) -> dict[str, list[Stuck] | str]:
    """The queues that stand still: `unserved` are two or more without a worker, which need one answer."""
    unserved = [one for one in state.stuck if one.reason and one.reason.kind is ReasonKind.NO_WORKER]
    if len(unserved) < 2:
        unserved = []
    names = " ".join(in_shell(one.queue) for one in unserved)
    return {
        "stuck": [one for one in state.stuck if one not in unserved],
        "unserved": unserved,
        "unserved_command": f"mrq worker {'-- ' if names.startswith('-') or ' -' in names else ''}{names}",
    }


def _dead_names(visit: Visit) -> list[str]:
    return [report.name for report in list_workers(visit.broker) if report.status == DEAD][:_MOST_DEAD]


def _throughput(state: Overview) -> float | None:
    """The jobs that ended per second in the last whole minute or hour."""
    if len(state.rates) < 2:
        return None
    return state.rates[-2].ended / state.resolution.seconds


def _charts(state: Overview) -> Charts:
    times = [rate.at for rate in state.rates]
    labels = [_label(times[index], state.resolution) for index in (0, len(times) // 2)] + ["now"]
    titles = [
        f"{rate.ended - rate.failed:,} succeeded or cancelled, {rate.failed:,} failed, "
        f"{rate.at:%Y-%m-%d %H:%M} UTC"
        for rate in state.rates
    ]
    stacks = [(rate.ended - rate.failed, rate.failed) for rate in state.rates]
    return Charts(
        ended=bar_chart(stacks, titles, labels),
        waiting=_lines(state.waiting_time, labels),
        running=_lines(state.run_time, labels),
    )


def _lines(points: Sequence[Point], labels: Sequence[str]) -> Chart | None:
    return line_chart(
        [[point.p50 for point in points], [point.p95 for point in points], [point.p99 for point in points]],
        labels,
        seconds,
    )


def _label(moment: datetime, resolution: Resolution) -> str:
    return f"{moment:%H:%M}" if resolution is Resolution.MINUTE else f"{moment:%b %d %H:%M}"
