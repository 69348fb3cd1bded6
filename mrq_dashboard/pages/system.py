"""The page of the system: the health of broker and server, drivers and plugins."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple

from msgspec import Meta, Struct

from mrq_core import __version__
from mrq_core.operations.auditing import read_audit
from mrq_core.operations.settings import SettingInForce, SourceKind, settings_in_force
from mrq_dashboard.formats import json_line
from mrq_dashboard.visit import Page, Visit

_ENTRIES = 25
"""Entries of the audit log on one page."""
_MOST_VALUE = 500
"""Characters of a setting that the page shows."""
_CHECKING = 2
"""Seconds after which the page is loaded again while the first check runs."""
_ORDER = {"error": 0, "warning": 1}


class SystemInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of the page."""

    audit: Annotated[str, Meta(max_length=200, description="Words in entries of the audit log.")] = ""
    cursor: Annotated[str, Meta(max_length=100, description="Continues the audit log.")] = ""


class ShownSetting(NamedTuple):
    """A setting, and its value as JSON."""

    setting: SettingInForce
    value: str
    is_default: bool


def system(visit: Visit, inputs: SystemInputs) -> Page:
    """The findings of `mrq check` about the broker, what is installed, settings, and the audit log."""
    ahead = (visit.now - datetime.now(UTC)).total_seconds()
    checked = visit.checked
    found = checked.findings if checked is not None else ()
    findings = sorted(found, key=lambda finding: _ORDER.get(finding.level, 2))
    entries, cursor = read_audit(
        visit.broker, limit=_ENTRIES, cursor=inputs.cursor or None, wanted_text=inputs.audit
    )
    context = {
        "problem": "",
        "inputs": inputs,
        "entries": entries,
        "cursor": cursor,
        "findings": findings,
        "checked_at": checked.at if checked is not None else None,
        "errors": sum(finding.level == "error" for finding in findings),
        "warnings": sum(finding.level == "warning" for finding in findings),
        "ahead": ahead,
        "broker_name": visit.broker.name,
        **_installed(visit),
    }
    refresh = 0 if checked is not None else _CHECKING
    return Page(template="system/page.html", title="System", context=context, refresh=refresh)


def away(visit: Visit, problem: str) -> Page:
    """The page while the broker is away: what needs no broker. Asks no broker."""
    context = {
        "problem": problem,
        "cursor": None,
        "inputs": SystemInputs(),
        "ahead": None,
        "broker_name": "away",
        "errors": 1,
        "warnings": 0,
        **_installed(visit),
    }
    return Page(template="system/page.html", title="System", context=context, status=503, refresh=_CHECKING)


def _installed(visit: Visit) -> dict[str, Any]:
    plugins = visit.client.plugins
    settings = [_shown(setting) for setting in settings_in_force(visit.config)]
    return {
        "given": [one for one in settings if not one.is_default],
        "defaults": [one for one in settings if one.is_default],
        "version": __version__,
        "plugins": [
            (name, origin, tuple(plugins.hooks_of(name))) for name, origin in sorted(plugins.origins.items())
        ],
        "drivers": sorted(plugins.drivers.values(), key=lambda driver: driver.name),
    }


def _shown(setting: SettingInForce) -> ShownSetting:
    value = setting.value if isinstance(setting.value, str) else json_line(setting.value)
    return ShownSetting(setting, value[:_MOST_VALUE], setting.kind is SourceKind.DEFAULT)
