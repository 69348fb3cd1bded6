"""Schedules as JSON."""

from __future__ import annotations

from mrq_core.contract.codec import JsonObject
from mrq_core.errors import InvalidValue
from mrq_core.operations.schedules import find_schedule, list_schedules
from mrq_core.operations.views import schedule_view
from mrq_dashboard.visit import NotFound, Visit


def list_all(visit: Visit) -> JsonObject:
    """Lists the schedules, by name."""
    return {"schedules": [schedule_view(stored) for stored in list_schedules(visit.broker)]}


def show(visit: Visit) -> JsonObject:
    """Shows a schedule with its last fires."""
    try:
        return schedule_view(find_schedule(visit.broker, visit.names["name"]))
    except InvalidValue as error:
        raise NotFound(str(error)) from error
