"""The pages of schedules: all of them, and one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from mrq_core.clock import from_ms
from mrq_core.contract.record import Status
from mrq_core.errors import InvalidValue
from mrq_core.operations.actions import statuses_of
from mrq_core.operations.queries.query_parts import quoted_value
from mrq_core.operations.schedules import (
    StoredSchedule,
    list_schedules,
    schedulers,
    upcoming,
)
from mrq_core.operations.views import schedule_status, schedule_view
from mrq_core.scheduler.definitions import trigger_words
from mrq_dashboard.visit import NotFound, Page, Visit

_MOST_ROWS = 500
_NEXT = 10


class SchedulesInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of the page."""

    name: Annotated[str, Meta(max_length=1000, description="The schedule to show.")] = ""


class Run(NamedTuple):
    """A fire, its job and the status of the job. None: the job was removed, or has expired."""

    at: datetime
    job: str
    status: Status | None


class Row(NamedTuple):
    """A schedule in the list."""

    stored: StoredSchedule
    status: str
    fires: str
    next_fire: datetime | None
    last: Run | None


def schedules(visit: Visit, inputs: SchedulesInputs) -> Page:
    """All schedules, or one."""
    found = list_schedules(visit.broker)
    if inputs.name:
        return _one(visit, inputs.name, found)
    shown = found[:_MOST_ROWS]
    latest = [stored.recent[-1].job for stored in shown if stored.recent]
    statuses = statuses_of(visit.broker, latest)
    context = {
        "rows": [_row(stored, statuses) for stored in shown],
        "left_out": len(found) - len(shown),
        "schedulers": schedulers(visit.broker),
    }
    return Page(template="schedules/list.html", title="Schedules", context=context)


def _row(stored: StoredSchedule, statuses: dict[str, Status]) -> Row:
    return Row(
        stored=stored,
        status=schedule_status(stored),
        fires=trigger_words(stored.definition),
        next_fire=from_ms(stored.next_fire) if stored.fires and stored.next_fire is not None else None,
        last=next(_runs(stored, statuses), None),
    )


def _next_fires(stored: StoredSchedule) -> list[datetime]:
    """Empty for a definition that this version refuses: the rest of the page is shown, and its actions."""
    try:
        return [from_ms(at) for at in upcoming(stored, _NEXT)] if stored.fires else []
    except InvalidValue:
        return []


def _runs(stored: StoredSchedule, statuses: dict[str, Status]) -> Iterator[Run]:
    """The recent runs, newest first."""
    return (Run(from_ms(fire.at), fire.job, statuses.get(fire.job)) for fire in reversed(stored.recent))


def _one(visit: Visit, name: str, found: list[StoredSchedule]) -> Page:
    stored = next((one for one in found if one.name == name), None)
    if stored is None:
        raise NotFound(f"there is no schedule {name!r}: it was deleted, or its config no longer has it")
    statuses = statuses_of(visit.broker, [fire.job for fire in stored.recent])
    context = {
        "stored": stored,
        "status": schedule_status(stored),
        "view": schedule_view(stored),
        "next_fires": _next_fires(stored),
        "runs": list(_runs(stored, statuses)),
        "schedulers": schedulers(visit.broker),
        "query": f"schedule:{quoted_value(name)}",
        "paused_at": None if stored.paused_at is None else from_ms(stored.paused_at),
    }
    return Page(template="schedules/one.html", title=f"Schedule {name}", context=context)
