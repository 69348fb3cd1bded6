"""Tasks as JSON."""

from __future__ import annotations

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.operations.tasks import task_details, task_list, task_summary_view
from mrq_dashboard.visit import Visit

_SECONDS = 0.1
"""For so long a request reads hours of the history that the dashboard does not know yet."""


def list_all(visit: Visit) -> JsonObject:
    """Lists the tasks with the numbers of their jobs, and durations and failures of the last 72 hours.

    `measured_hours` says how many of these hours the dashboard has read so far."""
    tasks: list[JsonValue] = [
        task_summary_view(task) for task in task_list(visit.broker, visit.task_history, seconds=_SECONDS)
    ]
    return {"tasks": tasks}


def show(visit: Visit) -> JsonObject:
    """Shows a task with what workers have published of it, and histograms of its durations.

    A histogram is a list of pairs: an upper bound in seconds, and a number of attempts."""
    found = task_details(visit.broker, visit.names["path"], visit.task_history, seconds=_SECONDS)
    return {
        **task_summary_view(found.summary),
        "run_time_histogram": [list(pair) for pair in found.run_time_histogram],
        "waiting_time_histogram": [list(pair) for pair in found.waiting_time_histogram],
        "queues": dict(found.queues),
    }
