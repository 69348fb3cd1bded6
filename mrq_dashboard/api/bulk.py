"""Bulk actions as JSON: their progress."""

from __future__ import annotations

from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.operations.bulk.bulk_actions import bulk_view, list_bulks, read_bulk
from mrq_dashboard.visit import NotFound, Visit


def list_all(visit: Visit) -> JsonObject:
    """Lists the bulk actions that run, and those that ended within a week, newest first."""
    visit.runner.wake()
    found: list[JsonValue] = [bulk_view(bulk) for bulk in list_bulks(visit.broker)]
    return {"bulk": found}


def show(visit: Visit) -> JsonObject:
    """Shows how far a bulk action is. `handled` of `expected` jobs are answered, by `changes`.

    If `is_exact` is false, a step was interrupted, and `unsure` jobs may have been changed beyond
    `changes`."""
    visit.runner.wake()
    bulk = read_bulk(visit.broker, visit.names["id"])
    if bulk is None:
        raise NotFound(f"there is no bulk action {visit.names['id']}, or it ended more than a week ago")
    return bulk_view(bulk)
