"""Tasks as a dashboard and the command line list them: numbers, durations, failures, pauses, descriptions."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.metrics import BUCKETS_PER_DOUBLING
from mrq_core.contract.record import Status
from mrq_core.contract.shared_state import Pause
from mrq_core.contract.values import check_path
from mrq_core.operations.measures.task_history import Measured, Measurements, TaskHistory, Values
from mrq_core.operations.statistics import Durations
from mrq_core.operations.task_descriptions import published_task, published_tasks
from mrq_core.operations.views import iso, struct_view
from mrq_core.tasks.describing import TaskDescription


class TaskSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A task in numbers.

    `numbers` counts the stored jobs by status. `run_time` and `waiting_time` are of attempts of the last 72
    hours. `failure_rate` is the share of the failed among the jobs that succeeded or failed in this time.
    `hours` has the numbers of both for each of the last 24 hours, the latest last. `measured_hours`: the
    hours that were read so far, up to 72. None: nothing to tell.
    """

    path: str
    numbers: Mapping[Status, int]
    run_time: Durations | None
    waiting_time: Durations | None
    failure_rate: float | None
    hours: tuple[tuple[int, int], ...]
    measured_hours: int
    pause: Pause | None
    description: TaskDescription | None

    @property
    def is_paused(self) -> bool:
        """Whether workers start none of its jobs."""
        return self.pause is not None

    @property
    def number(self) -> int:
        """The number of stored jobs."""
        return sum(self.numbers.values())


class TaskDetails(msgspec.Struct, frozen=True, kw_only=True):
    """A task in numbers, with the histograms of its attempts of the last 72 hours. A histogram has the number
    of values for each upper bound in seconds; see `mrq_core.contract.metrics`. `queues` has the number of
    attempts that ended, by queue."""

    summary: TaskSummary
    run_time_histogram: tuple[tuple[float, int], ...]
    waiting_time_histogram: tuple[tuple[float, int], ...]
    queues: Mapping[str, int]


def task_list(
    broker: Broker, history: TaskHistory | None = None, *, seconds: float | None = None
) -> list[TaskSummary]:
    """All tasks, by path: those of stored jobs, of metrics of 72 hours, of pauses, and published ones.

    Reads totals, rules and published tasks, and metrics as `TaskHistory.read` does. A process that asks often
    keeps one `history` and gives `seconds`: then a call reads the latest hour, and for so long earlier hours
    that it has not read yet. Without a history, metrics of 72 hours are read.
    """
    measured = (history or TaskHistory()).read(broker, seconds)
    totals = broker.totals().by_path
    paused = broker.rules().tasks
    described = published_tasks(broker)
    stored = (path for path, numbers in totals.items() if any(numbers.values()))
    return [
        _summary(path, totals.get(path, {}), measured, paused.get(path), described.get(path))
        for path in sorted({*stored, *measured.tasks, *paused, *described})
    ]


def task_details(
    broker: Broker, path: str, history: TaskHistory | None = None, *, seconds: float | None = None
) -> TaskDetails:
    """One task. Costs as much as `task_list` less the published tasks. Raises InvalidValue for a path that no
    task can have."""
    path = check_path(path)
    measured = (history or TaskHistory()).read(broker, seconds)
    of_task = measured.tasks.get(path) or Measured()
    numbers, pause = broker.totals().by_path.get(path, {}), broker.rules().tasks.get(path)
    return TaskDetails(
        summary=_summary(path, numbers, measured, pause, published_task(broker, path)),
        run_time_histogram=_histogram(of_task.run),
        waiting_time_histogram=_histogram(of_task.wait),
        queues=of_task.queues,
    )


def _histogram(values: Values) -> tuple[tuple[float, int], ...]:
    """The numbers of values by the upper bound of their bucket, in seconds."""
    return tuple(
        (2 ** (bucket / BUCKETS_PER_DOUBLING), number) for bucket, number in sorted(values.buckets.items())
    )


def _summary(
    path: str,
    numbers: Mapping[Status, int],
    measurements: Measurements,
    pause: Pause | None,
    description: TaskDescription | None,
) -> TaskSummary:
    measured = measurements.tasks.get(path) or Measured()
    ended = measured.succeeded + measured.failed
    return TaskSummary(
        path=path,
        numbers={status: number for status, number in numbers.items() if number},
        run_time=measured.run.durations(),
        waiting_time=measured.wait.durations(),
        failure_rate=measured.failed / ended if ended else None,
        hours=tuple(ends.get(path, (0, 0)) for ends in measurements.ends),
        measured_hours=measurements.hours,
        pause=pause,
        description=description,
    )


def task_summary_view(task: TaskSummary) -> JsonObject:
    """The summary as a JSON value. `name` is the path; `since` and `until` are those of a pause."""
    pause = task.pause
    return {
        "name": task.path,
        **{name: value for name, value in struct_view(task).items() if name not in ("path", "pause")},
        "since": iso(pause.since) if pause is not None else None,
        "until": iso(pause.until) if pause is not None else None,
        "paused": pause is not None,
    }
