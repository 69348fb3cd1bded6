"""The system as JSON: findings, settings, plugins, and the log of actions."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from mrq_core import __version__
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.operations.auditing import read_audit
from mrq_core.operations.queries.saved_views import saved_views
from mrq_core.operations.settings import settings_in_force
from mrq_core.operations.views import driver_view, finding_view, iso, plugin_view, struct_view
from mrq_dashboard.visit import Json, Visit


class AuditInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """Which actions to list."""

    text: Annotated[str, Meta(max_length=1000, description="Words of an entry, in any case.")] = ""
    cursor: Annotated[str, Meta(max_length=200, description="`cursor` of the page before.")] = ""
    limit: Annotated[int, Meta(ge=1, le=1000, description="The most entries to answer.")] = 100


def show(visit: Visit) -> JsonObject:
    """Shows version, findings about the broker, settings in force with their sources, drivers and plugins.

    `checked_at` is the time of the findings, at most about a minute ago; null: they are checked just now.
    While the broker is away, the answer with status 503 has the error, and what needs no broker."""
    checked = visit.checked
    findings: list[JsonValue] = [finding_view(one) for one in (checked.findings if checked else ())]
    return {
        "broker": visit.broker.name,
        "now": visit.now.isoformat(),
        "findings": findings,
        "checked_at": iso(checked.at) if checked else None,
        **_installed(visit),
    }


def away(visit: Visit, problem: str) -> Json:
    """The answer while the broker is away: the error, and what needs no broker."""
    error: JsonObject = {"status": 503, "message": problem}
    return Json(value={"error": error, **_installed(visit)}, status=503)


def _installed(visit: Visit) -> JsonObject:
    plugins = visit.client.plugins
    settings: list[JsonValue] = [struct_view(one) for one in settings_in_force(visit.config)]
    drivers: list[JsonValue] = [driver_view(one) for one in plugins.drivers.values()]
    loaded: list[JsonValue] = [
        plugin_view(name, origin=origin, hooks=list(plugins.hooks_of(name)))
        for name, origin in plugins.origins.items()
    ]
    return {
        "version": __version__,
        "settings": settings,
        "drivers": drivers,
        "plugins": loaded,
    }


def audit(visit: Visit, inputs: AuditInputs) -> JsonObject:
    """Lists what was done from dashboards, the newest first. `cursor` continues the list."""
    entries, cursor = read_audit(
        visit.broker, limit=inputs.limit, cursor=inputs.cursor or None, wanted_text=inputs.text
    )
    found: list[JsonValue] = [struct_view(entry) for entry in entries]
    return {"entries": found, "cursor": cursor}


def views(visit: Visit) -> JsonObject:
    """Lists the saved views: queries with names."""
    found: list[JsonValue] = [struct_view(view) for view in saved_views(visit.broker)]
    return {"views": found}
