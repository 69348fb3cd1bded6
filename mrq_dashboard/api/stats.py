"""Numbers over time as JSON: the overview, and the points of a metric."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct
from starlette.responses import Response

from mrq_core.clock import after
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.metrics import ENDED, ERRORS, LOST, STARTED, UNFINISHED, Resolution
from mrq_core.operations.measures.overview import overview
from mrq_core.operations.measures.prometheus import METRICS, installation_metrics
from mrq_core.operations.measures.series import series
from mrq_core.operations.views import struct_view
from mrq_dashboard.visit import Visit

_SECONDS = 0.1
"""For so long a request reads minutes or hours that the dashboard does not know yet."""
_METRICS = {"started": STARTED, "ended": ENDED, "lost": LOST, "errors": ERRORS, "unfinished": UNFINISHED}
Unit = Annotated[Literal["minute", "hour"], Meta(description="The time of one value.")]


class StatsInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Over which time."""

    resolution: Unit = "minute"
    number: Annotated[int, Meta(ge=1, le=720, description="The minutes or hours, up to now.")] = 60


class MetricsInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which metric, of what."""

    name: Annotated[
        Literal["started", "ended", "lost", "errors", "unfinished"], Meta(description="The metric.")
    ]
    queue: Annotated[str, Meta(max_length=1000, description="A queue, or a tree such as `main/`.")] = ""
    task: Annotated[str, Meta(max_length=1000, description="The path of a task.")] = ""
    resolution: Unit = "minute"
    number: Annotated[int, Meta(ge=1, le=720, description="The minutes or hours, up to now.")] = 60


def show(visit: Visit, inputs: StatsInputs) -> JsonObject:
    """Shows rates, durations, the oldest job, the use of greenlets, stuck queues, and limits that hold jobs
    back."""
    found = overview(
        visit.broker,
        visit.slot_history,
        resolution=Resolution(inputs.resolution),
        number=inputs.number,
        seconds=_SECONDS,
        reached=visit.reached,
    )
    return {**struct_view(found), "usage": found.usage}


def metrics(visit: Visit, inputs: MetricsInputs) -> JsonObject:
    """Answers the points of a metric: count, rate, mean and percentiles for each minute or hour."""
    resolution = Resolution(inputs.resolution)
    last = resolution.start_of(visit.now)
    points: list[JsonValue] = [
        struct_view(point)
        for point in series(
            visit.broker,
            _METRICS[inputs.name],
            queue=inputs.queue or None,
            task=inputs.task or None,
            since=after(last, -float(resolution.seconds * (inputs.number - 1))),
            until=after(last, float(resolution.seconds)),
            resolution=resolution,
        )
    ]
    return {"name": inputs.name, "points": points}


def prometheus(visit: Visit) -> Response:
    """Answers the numbers of jobs, queues and workers in the text format of Prometheus."""
    return Response("".join(installation_metrics(visit.broker)), media_type=METRICS)
