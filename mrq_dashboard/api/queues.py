"""Queues as JSON."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.operations.explaining.explaining import explain_queue
from mrq_core.operations.explaining.reasons import reason_view
from mrq_core.operations.queries.filters import duration_from
from mrq_core.operations.statistics import queue_statistics
from mrq_core.operations.views import queue_view, statistics_view
from mrq_dashboard.inputs import Duration
from mrq_dashboard.visit import Visit

MOST = 1000
_DAY = 86_400.0
Name = Annotated[
    str, Meta(min_length=1, max_length=1000, description="Name of a queue, or of a tree: `main/`.")
]


class QueuesInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which queues to list."""

    prefix: Annotated[str, Meta(max_length=1000, description="The beginning of the names.")] = ""
    after: Annotated[str, Meta(max_length=1000, description="Continues after the queue with this name.")] = ""
    limit: Annotated[int, Meta(ge=1, le=MOST, description="The most queues to answer.")] = 100


class QueueInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which queue to show."""

    name: Name
    empty_in: Annotated[
        Duration, Meta(description="The time in which the needed workers run all due jobs: up to 1d.")
    ] = "5m"


def list_all(visit: Visit, inputs: QueuesInputs) -> JsonObject:
    """Lists queues with their counts, by name. `next` is the value of `after` for the next page."""
    names = visit.broker.queue_names(prefix=inputs.prefix, after=inputs.after, limit=inputs.limit)
    paused = visit.broker.rules().paused_queues
    queues: list[JsonValue] = [queue_view(counts, paused=paused) for counts in visit.broker.counts(names)]
    return {"queues": queues, "next": names[-1] if len(names) == inputs.limit else None}


def show(visit: Visit, inputs: QueueInputs) -> JsonObject:
    """Shows the load of a queue or tree, and why it stands still."""
    within = duration_from(inputs.empty_in, name="empty_in", most=_DAY)
    statistics = queue_statistics(visit.broker, [inputs.name], empty_in=within)[0]
    reasons = explain_queue(visit.broker, inputs.name)
    return {**statistics_view(statistics), "reasons": [reason_view(reason) for reason in reasons]}
