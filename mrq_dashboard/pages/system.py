"""The page of the system: the health of broker and server, drivers and plugins."""

from __future__ import annotations

from datetime import UTC, datetime

from mrq_core import __version__
from mrq_core.operations.checks import broker_findings
from mrq_dashboard.visit import Page, Visit

_ORDER = {"error": 0, "warning": 1}


def system(visit: Visit) -> Page:
    """The findings of `mrq check` about the broker, and what is installed."""
    ahead = (visit.now - datetime.now(UTC)).total_seconds()
    findings = sorted(broker_findings(visit.broker), key=lambda finding: _ORDER.get(finding.level, 2))
    plugins = visit.client.plugins
    context = {
        "findings": findings,
        "errors": sum(finding.level == "error" for finding in findings),
        "warnings": sum(finding.level == "warning" for finding in findings),
        "ahead": ahead,
        "broker_name": visit.broker.name,
        "version": __version__,
        "plugins": [
            (name, origin, tuple(plugins.hooks_of(name))) for name, origin in sorted(plugins.origins.items())
        ],
        "drivers": sorted(plugins.drivers.values(), key=lambda driver: driver.name),
    }
    return Page(template="system/page.html", title="System", context=context)
