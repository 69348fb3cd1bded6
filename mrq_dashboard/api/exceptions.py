"""Exceptions of jobs as JSON, grouped by task, type and raising frame."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.operations.errors import MOST, ErrorGroup, ErrorOrder, error_groups
from mrq_core.operations.views import iso
from mrq_dashboard.visit import Visit


class ExceptionsInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which groups to list."""

    text: Annotated[str, Meta(max_length=1000, description="A part of the group's name, in any case.")] = ""
    order: Annotated[
        Literal["number", "recent", "name"],
        Meta(description="By number of jobs, by errors of the last hours, or by name."),
    ] = "recent"
    cursor: Annotated[str, Meta(max_length=200, description="`cursor` of the page before.")] = ""
    limit: Annotated[int, Meta(ge=1, le=MOST, description="The most groups to answer.")] = MOST


def list_all(visit: Visit, inputs: ExceptionsInputs) -> JsonObject:
    """Lists groups of exceptions with their times, trend and last success. `cursor` continues the list."""
    page = error_groups(
        visit.broker,
        inputs.text,
        limit=inputs.limit,
        order=ErrorOrder(inputs.order),
        cursor=inputs.cursor or None,
    )
    groups: list[JsonValue] = [_view(group) for group in page.groups]
    return {"exceptions": groups, "cursor": page.cursor, "total": page.total}


def _view(group: ErrorGroup) -> JsonObject:
    return {
        "group": group.group,
        "task": group.task,
        "exception_type": group.exception_type,
        "frame": group.frame,
        "numbers": {str(status): number for status, number in group.numbers.items()},
        "first_seen": iso(group.first_seen),
        "last_seen": iso(group.last_seen),
        "sample_id": group.sample_id,
        "sample_message": group.sample_message,
        "last_success": iso(group.last_success),
        "trend": list(group.trend),
    }
