"""`mrq check` and `mrq plugins`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from mrq_core.cli.errors import EXIT_FAILED
from mrq_core.cli.options import Given, command
from mrq_core.cli.output import (
    can_show,
    counted,
    note,
    print_json,
    safe_line,
    say,
    show_table,
    told_until_then,
)
from mrq_core.cli.process_checks import process_findings
from mrq_core.cli.terminal import restore_streams
from mrq_core.client.client import Client
from mrq_core.client.schedules import refused_schedules
from mrq_core.contract.broker import Broker
from mrq_core.contract.queries import Finding
from mrq_core.operations.actions import repair_all
from mrq_core.operations.checking.checks import attempted, broker_findings, config_findings
from mrq_core.operations.checking.consistency import consistency_findings, is_large, prune_steps
from mrq_core.operations.checking.state_values import delete_unreadable, state_findings
from mrq_core.operations.queries.search_keys import fill_search_keys
from mrq_core.operations.views import driver_view, finding_view, plugin_view
from mrq_core.plugins.manager import Plugins

_MARKS = {"ok": ("✓", "green"), "warning": ("!", "yellow"), "error": ("✗", "bold red")}
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@command("broker", "worker", "scheduler", "tasks", "logs", "plugins", "dashboard", needs_output=True)
def check(
    given: Given,
    fix: Annotated[
        bool,
        typer.Option(
            "--fix",
            help="First create missing schema, indexes and scripts, and add the search keys of jobs "
            "that are older than the option of their task.",
        ),
    ] = False,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair",
            help="First put jobs back into their queues that lost their entry in a crash, delete expired "
            "jobs, and correct totals. Then compare queues, records, totals and indexes, also of many jobs.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Checks the configuration and the broker, and reports how to fix problems; exits with 1 on an error."""
    with given.client() as client:
        broker = client.broker
        failed = [
            *(attempted("fix", lambda: _fix(client)) if fix else ()),
            *(attempted("repair", lambda: _repair(broker)) if repair else ()),
        ]
        findings = [
            *config_findings(client.config, client.plugins),
            *process_findings(client.config, broker),
            *broker_findings(broker),
        ]
        known = {finding.message for finding in findings}
        findings += [finding for finding in failed if finding.message not in known]
        if not any(finding.level == "error" for finding in findings):
            findings += attempted("SCHEDULER_TASKS", lambda: refused_schedules(client))
            findings += attempted("shared state", lambda: state_findings(broker))
            findings += attempted("consistency", lambda: _compared(broker, even_large=repair))
    if as_json:
        print_json([finding_view(finding) for finding in findings])
    else:
        _print_findings(findings)
    if any(finding.level == "error" for finding in findings):
        sys.exit(EXIT_FAILED)


def _fix(client: Client) -> None:
    before = [finding for finding in broker_findings(client.broker) if finding.level != "ok"]
    client.broker.prepare()
    left = {finding.message for finding in broker_findings(client.broker)} if before else set()
    for finding in before:
        if finding.message not in left:
            note(f"Fixed: {finding.message}.")
    deleted = delete_unreadable(client.broker)
    if deleted:
        note(f"Deleted {counted(deleted, 'value')} of shared state that could not be read.")
    _fill_search_keys(client)


def _compared(broker: Broker, *, even_large: bool) -> list[Finding]:
    if not even_large and is_large(broker):
        return []
    return consistency_findings(broker, prunes=even_large)


def _fill_search_keys(client: Client) -> None:
    examined = filled = 0

    def text() -> str:
        if not examined:
            return ""
        return f"examined {counted(examined, 'job')} with search keys; added the missing keys of {filled:,}"

    with told_until_then(text):
        for step in fill_search_keys(client.broker, client.plugins, client.searchable_of):
            examined += step.examined
            filled += step.filled
            if step.error is not None:
                number = counted(step.failed, "job")
                note(f"{step.path}: the params of {number} cannot be decoded; {step.error}")
    if examined:
        note(f"{text().capitalize()}.")


def _repair(broker: Broker) -> None:
    examined = repaired = expired = 0

    def put_back() -> str:
        return f"examined {counted(examined, 'unfinished job')}; put {repaired:,} back into their queues"

    def until_then() -> str:
        deleted = f"; deleted {counted(expired, 'expired job')}" if expired else ""
        return f"{put_back()}{deleted}" if examined or expired else ""

    with told_until_then(until_then):
        for step in repair_all(broker):
            examined += step.examined
            repaired += len(step.repaired)
        corrected = broker.repair_totals()
        for number in prune_steps(broker):
            expired += number
    note(f"{put_back().capitalize()}.")
    if expired or corrected:
        note(f"Deleted {counted(expired, 'expired job')}; corrected {counted(corrected, 'total')}.")


def _print_findings(findings: Sequence[Finding]) -> None:
    for finding in findings:
        mark, style = _MARKS.get(finding.level, ("?", ""))
        say(
            f"{mark if can_show(mark) else '-'} {finding.level:<8} {finding.subject}: "
            f"{safe_line(finding.message)}",
            style=style,
        )
        if finding.advice and finding.level != "ok":
            say(f"             {safe_line(finding.advice)}")
    numbers = {level: sum(f.level == level for f in findings) for level in ("error", "warning")}
    say(f"{counted(numbers['error'], 'error')}, {counted(numbers['warning'], 'warning')}")


@command("broker", "plugins", needs_output=True)
def plugins(given: Given, as_json: AsJson = False) -> None:
    """Lists broker drivers and plugins, where they come from, and which hooks they implement."""
    loaded = Plugins(given.config())
    restore_streams()
    found = [(name, origin, tuple(loaded.hooks_of(name))) for name, origin in sorted(loaded.origins.items())]
    drivers = sorted(loaded.drivers.values(), key=lambda driver: driver.name)
    if as_json:
        views = [plugin_view(name, origin=origin, hooks=hooks) for name, origin, hooks in found]
        print_json([*(driver_view(driver) for driver in drivers), *views])
        return
    driver_rows = [
        (d.name, " ".join(f"{scheme}://" for scheme in d.url_schemes), " ".join(d.settings), d.summary)
        for d in drivers
    ]
    show_table(("driver", "URLs", "settings", "summary"), driver_rows)
    say("")
    show_table(
        ("plugin", "from", "hooks"), [(name, origin, " ".join(hooks)) for name, origin, hooks in found]
    )
