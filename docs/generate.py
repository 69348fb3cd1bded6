"""Fills placeholders in the pages with tables made from the code, so that they cannot differ from it.

Those of the peers are made from `peers.json`, which `nox -s bench -- --peers --json docs/peers.json` writes.

A hook module of mkdocs: `mkdocs.yml` names it, and mkdocs calls `on_page_markdown` for each page.
"""

from __future__ import annotations

import inspect
import json
import re
import statistics
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import msgspec

from mrq_core.config.settings import SETTINGS, default_of, flag_of
from mrq_core.contract.record import TRANSITIONS, Status
from mrq_core.plugins import hookspecs
from mrq_dashboard.app import ENDPOINTS

_PLACEHOLDER = re.compile(r"^\{\{ *(\w+) *\}\}$", re.MULTILINE)

GROUPS = {
    "broker": "Broker",
    "worker": "Worker",
    "scheduler": "Scheduler",
    "tasks": "Tasks",
    "logs": "Logs",
    "plugins": "Plugins",
    "dashboard": "Dashboard",
    "debugging": "Debugging",
}
"""The headings of the groups of settings, in the order of the page."""


def settings() -> str:
    """A table for each group of settings."""
    parts = []
    for group in dict.fromkeys([*GROUPS, *(setting.group for setting in SETTINGS.values())]):
        rows = [_setting_row(name) for name, setting in SETTINGS.items() if setting.group == group]
        heading = GROUPS.get(group, group.capitalize())
        parts.append(f"### {heading}\n\n" + _table(("setting", "flag", "default", "meaning"), rows))
    return "\n\n".join(parts)


def hooks() -> str:
    """Each hook with its signature and its documentation."""
    return "\n\n".join(_hook(name) for name in vars(hookspecs) if name.startswith("mrq_"))


def transitions() -> str:
    """The table of what may follow on each status."""
    rows = []
    for before, following in TRANSITIONS.items():
        name = "(no job yet)" if before is None else f"`{before}`"
        rows.append((name, ", ".join(f"`{status}`" for status in Status if status in following)))
    return _table(("from", "to"), rows)


def endpoints() -> str:
    """A table of the pages and the endpoints of the dashboard. An action is a row with all its addresses for
    programs; a page sends its form to the same address without ``/api``."""
    rows = []
    others: dict[object, list[str]] = {}
    for one in ENDPOINTS:
        if one.is_action and one.is_api:
            others.setdefault(one.answer, []).append(one.path)
    for one in ENDPOINTS:
        paths = others.get(one.answer, [one.path]) if one.is_action else [one.path]
        if one.is_action and one.path != paths[0]:
            continue
        inputs = ", ".join(f"`{field.encode_name}`" for field in msgspec.structs.fields(one.inputs)) or "none"
        doc = " ".join((inspect.getdoc(one.answer) or "").partition("\n\n")[0].split())
        address = f"`{one.method} {'`, `'.join(paths)}`"
        rows.append((address, inputs, str(one.role), doc))
    return _table(("address", "inputs", "role", "what it does"), rows)


def peers_ratios() -> str:
    """How many times as much mrq does as its peers: what, of which arrangement, against whom."""
    ratios = [ratio for ratio in _peers()["ratios"] if ratio["against"] == FASTEST]
    rows = [(ratio["what"], ratio["of"], _times(ratio["values"])) for ratio in ratios]
    return _table(("what", "arrangement", f"beside {FASTEST} with the same store, times"), rows)


def peers_drain() -> str:
    """Jobs that do nothing, by one worker and by two, and mrq's ratio to each."""
    return _figures_table(("drain, one worker (jobs/s)", "drain, two workers (jobs/s)"), with_ratios=True)


def peers_enqueue() -> str:
    """Enqueueing, many jobs and one by one."""
    return _figures_table(("enqueue, in bulk (jobs/s)", "enqueue, one by one (jobs/s)"), with_ratios=True)


def peers_waiting() -> str:
    """Jobs that wait."""
    return _figures_table(("jobs that sleep 0.1 s, 100 at a time (jobs/s; 1,000 is ideal)",))


def peers_idle() -> str:
    """An idle worker."""
    figures = ("latency, p50 (ms)", "latency, p99 (ms)", "memory of an idle worker (MB)")
    return _figures_table(figures, more_is_better=False)


def peers_settings() -> str:
    """With what, and how, each was measured."""
    rows = [
        (name, ", ".join(" ".join(package) for package in system["versions"].items()), system["settings"])
        for name, system in _peers()["systems"].items()
    ]
    return _table(("system", "versions", "settings"), rows)


def peers_promises() -> str:
    """What each keeps and promises at these settings."""
    rows = [(name, system["keeps"], system["killed"]) for name, system in _peers()["systems"].items()]
    return _table(("system", "what is kept of a job that ended well", "a job whose worker is killed"), rows)


def peers_notes() -> str:
    """Who has no figure of something, and why; and which jobs ran more often than once."""
    lines = [
        f"- {name} has no figure of `{workload}`: {why}."
        for workload, reasons in _peers()["none"].items()
        for name, why in reasons.items()
    ]
    for name, repeated in _peers()["values"].get(REPEATED, {}).items():
        if any(repeated):
            lines.append(
                f"- {name} ran jobs again that had run, in {len(repeated)} drains: {sum(repeated):g}."
            )
    return "\n".join(lines)


def peers_about() -> str:
    """When, where and how often; and a warning if the machine was not free."""
    about = _peers()["about"]
    servers = ", ".join(" ".join(server) for server in about["servers"].items())
    text = (
        f"Measured on {about['at']} ({about['runs']} runs at scale {about['scale']:g}, "
        f"{about['minutes']} minutes) on {about['cores']} cores ({about['machine']}) "
        f"with Python {about['python']}, {servers}. "
        f"The machine's load at the end of each run: {', '.join(map(str, about['loads']))}."
    )
    if max(about["loads"]) > BUSY * about["cores"]:
        text += " **The machine did other work at the same time: these figures are preliminary.**"
    return text


FASTEST = "the fastest peer"
"""Its name in the ratios."""
BUSY = 2
"""A load of more than this for each core is not that of the measurement alone."""
REPEATED = "drain, runs of jobs that had run already"
TABLES: dict[str, Callable[[], str]] = {
    table.__name__: table
    for table in (
        *(settings, hooks, transitions, endpoints),
        *(peers_about, peers_ratios, peers_drain, peers_enqueue, peers_waiting, peers_idle),
        *(peers_settings, peers_promises, peers_notes),
    )
}


def on_page_markdown(markdown: str, **_: object) -> str:
    """The page with its placeholders filled. Raises KeyError for one that does not exist."""
    return _PLACEHOLDER.sub(lambda found: TABLES[found[1]](), markdown)


@cache
def _peers() -> Any:
    return json.loads((Path(__file__).parent / "peers.json").read_text())


def _figures_table(figures: Sequence[str], *, more_is_better: bool = True, with_ratios: bool = False) -> str:
    """A row for each system that has the first figure, the best one first."""
    document = _peers()
    first = document["values"][figures[0]]
    names = sorted(first, key=lambda name: statistics.median(first[name]), reverse=more_is_better)
    rows = []
    for name in names:
        cells = [_spread(document["values"][figure].get(name)) for figure in figures]
        if with_ratios:
            found = [r for r in document["ratios"] if r["what"] == figures[0] and r["against"] == name]
            cells.append("; ".join(_of(r, found) for r in found) or "-")
        rows.append((name, *cells))
    columns = ("system", *figures, "mrq with the same store, times as much")
    return _table(columns if with_ratios else columns[:-1], rows)


def _of(ratio: Any, among: Sequence[object]) -> str:
    return _times(ratio["values"]) + (f", {ratio['of']}" if len(among) > 1 else "")


def _spread(values: Sequence[float] | None) -> str:
    """The median, and from where to where the values go."""
    return _with_range(values, lambda value: f"{value:,.0f}" if value >= 20 else f"{value:.1f}")


def _times(values: Sequence[float]) -> str:
    return _with_range(values, lambda value: f"{value:.0f}" if value >= 20 else f"{value:.1f}")


def _with_range(values: Sequence[float] | None, shown: Callable[[float], str]) -> str:
    if not values:
        return "-"
    low, high = shown(min(values)), shown(max(values))
    middle = shown(statistics.median(values))
    return middle if low == high else f"**{middle}** ({low} to {high})"


def _setting_row(name: str) -> tuple[str, ...]:
    setting = SETTINGS[name]
    flags = " ".join(f"`{flag}`" for flag in (flag_of(name), *setting.flags))
    meaning = setting.help
    if setting.choices:
        meaning += f" One of {', '.join(setting.choices)}."
    return f"`{name}`", "config file only" if setting.file_only else flags, _shown(default_of(name)), meaning


def _shown(default: object) -> str:
    match default:
        case bool():
            return "yes" if default else "no"
        case int() | float():
            return f"{default:.10g}"
        case tuple():
            text = " ".join(default)
        case dict():
            return "none"
        case _:
            text = str(default)
    return f"`{text}`" if text else "none"


def _hook(name: str) -> str:
    function = getattr(hookspecs, name)
    arguments = ", ".join(
        f"{parameter.name}: {parameter.annotation}"
        for parameter in inspect.signature(function).parameters.values()
    )
    signature = f"{name}({arguments}) -> {inspect.signature(function).return_annotation}"
    return f"### {name}\n\n```text\n{signature}\n```\n\n{_text(function)}"


def _text(function: Callable[..., object]) -> str:
    text = inspect.getdoc(function) or ""
    if getattr(function, "mrq_spec", {}).get("firstresult"):
        text += "\n\nmrq uses the first result that is not None."
    if hookspecs.KINDS[function.__name__] == {hookspecs.FUNCTION, hookspecs.WRAPPER}:
        text += " A plugin can also wrap the others, with `@hookimpl(wrapper=True)`."
    return text


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(_lines(columns, rows))


def _lines(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    for row in (columns, ("---",) * len(columns), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
