"""The pages of tasks: all of them, and one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from msgspec import Meta, Struct

from mrq_core.contract.record import ENDED, WAITING, Status
from mrq_core.operations.explaining.reasons import of_task, read_surroundings
from mrq_core.operations.queries.query import FAILED
from mrq_core.operations.queries.query_parts import exact_value
from mrq_core.operations.schedules import list_schedules
from mrq_core.operations.tasks import TaskSummary, task_details, task_list
from mrq_core.operations.views import seconds
from mrq_dashboard.charts import Chart, Curve, bar_chart, sparkline
from mrq_dashboard.visit import NotFound, Page, Visit

_ROWS = 100
_READ_SECONDS = 0.05
"""Seconds in which a page reads metrics of earlier hours."""
_MOST_BARS = 80


class TasksInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of the page."""

    find: Annotated[str, Meta(max_length=200, description="Text in the paths of the listed tasks.")] = ""
    sort: Annotated[
        Literal["path", "failed", "jobs", "rate", "slow"], Meta(description="The order of the list.")
    ] = "path"
    page: Annotated[int, Meta(ge=1, le=1_000_000, description="The page of the list.")] = 1


class Numbers(NamedTuple):
    """The stored jobs of a task."""

    waiting: int
    running: int
    succeeded: int
    failed: int


class Row(NamedTuple):
    """A task in the list."""

    task: TaskSummary
    numbers: Numbers
    trend: Curve | None


def _numbers(numbers: Mapping[Status, int]) -> Numbers:
    def of(statuses: Sequence[Status] | frozenset[Status]) -> int:
        return sum(number for status, number in numbers.items() if status in statuses)

    return Numbers(of(WAITING), of([Status.STARTED]), of([Status.SUCCESS]), of(FAILED & ENDED))


_ORDERS: dict[str, Callable[[TaskSummary], Any]] = {
    "path": lambda task: task.path,
    "failed": lambda task: (-_numbers(task.numbers).failed, task.path),
    "jobs": lambda task: (-task.number, task.path),
    "rate": lambda task: (-(task.failure_rate or 0.0), task.path),
    "slow": lambda task: (-(task.run_time.p95 if task.run_time else 0.0), task.path),
}


def tasks(visit: Visit, inputs: TasksInputs) -> Page:
    """All tasks: those of stored jobs, of metrics, of pauses, and those that workers have loaded."""
    found = task_list(visit.broker, visit.task_history, seconds=_READ_SECONDS)
    wanted = inputs.find.casefold()
    matching = sorted((task for task in found if wanted in task.path.casefold()), key=_ORDERS[inputs.sort])
    first = (inputs.page - 1) * _ROWS
    shown = matching[first : first + _ROWS]
    rows = [
        Row(task, _numbers(task.numbers), sparkline([sum(ends) for ends in task.hours])) for task in shown
    ]
    context = {
        "rows": rows,
        "number": len(matching),
        "total": len(found),
        "first": first,
        "more": len(matching) > first + _ROWS,
        "inputs": inputs,
        "hours": found[0].measured_hours if found else 0,
    }
    return Page(template="tasks/list.html", title="Tasks", context=context)


def task(visit: Visit) -> Page:
    """One task."""
    path = visit.names["path"]
    details = task_details(visit.broker, path, visit.task_history, seconds=_READ_SECONDS)
    summary = details.summary
    if not (summary.number or summary.run_time or summary.description or summary.pause):
        raise NotFound(f"no stored job has the task {path!r}, and no worker has loaded it")
    pause = of_task(path, read_surroundings(visit.broker))
    context = {
        "task": summary,
        "reasons": [] if pause is None else [pause],
        "numbers": _numbers(summary.numbers),
        "query": f"path:{exact_value(path)}",
        "queues": sorted(details.queues.items(), key=lambda item: (-item[1], item[0]))[:50],
        "run": _histogram(details.run_time_histogram),
        "wait": _histogram(details.waiting_time_histogram),
        "ends": _ends(summary),
        "schedules": [one for one in list_schedules(visit.broker) if one.definition.path == path][:50],
    }
    return Page(template="tasks/one.html", title=f"Task {path}", context=context)


def _histogram(values: Sequence[tuple[float, int]]) -> Chart | None:
    """Bars by the upper bound of a bucket, on a logarithmic scale without gaps."""
    if not values:
        return None
    bounds = [values[0][0]]
    while bounds[-1] < values[-1][0] * 0.999 and len(bounds) < _MOST_BARS:
        bounds.append(bounds[-1] * 2**0.25)
    known = {round(bound, 9): number for bound, number in values}
    stacks = [_near(known, bound) for bound in bounds]
    titles = [f"{number:,} up to {seconds(bound)}" for bound, number in zip(bounds, stacks, strict=True)]
    times = [seconds(bounds[index]) for index in sorted({0, len(bounds) // 2, len(bounds) - 1})]
    return bar_chart([[number] for number in stacks], titles, times)


def _near(known: Mapping[float, int], bound: float) -> int:
    return next((number for at, number in known.items() if abs(at / bound - 1) < 0.05), 0)


def _ends(summary: TaskSummary) -> Chart | None:
    """Succeeded and failed jobs by the hour."""
    last = len(summary.hours) - 1
    when = [f"{last - index} h ago" if index < last else "this hour" for index in range(last + 1)]
    titles = [
        f"{succeeded:,} succeeded, {failed:,} failed, {when[index]}"
        for index, (succeeded, failed) in enumerate(summary.hours)
    ]
    return bar_chart(summary.hours, titles, ["24 h ago", "12 h ago", "now"])
