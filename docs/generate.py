"""Fills placeholders in the pages with tables made from the code, so that they cannot differ from it.

A hook module of mkdocs: `mkdocs.yml` names it, and mkdocs calls `on_page_markdown` for each page.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Sequence

from mrq_core import hookspecs
from mrq_core.config import SETTINGS, default_of, flag_of
from mrq_core.job import TRANSITIONS, Status

_PLACEHOLDER = re.compile(r"^\{\{ *(\w+) *\}\}$", re.MULTILINE)

GROUPS = {
    "broker": "Broker",
    "worker": "Worker",
    "tasks": "Tasks",
    "logs": "Logs",
    "plugins": "Plugins",
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


TABLES: dict[str, Callable[[], str]] = {"settings": settings, "hooks": hooks, "transitions": transitions}


def on_page_markdown(markdown: str, **_: object) -> str:
    """The page with its placeholders filled. Raises KeyError for one that does not exist."""
    return _PLACEHOLDER.sub(lambda found: TABLES[found[1]](), markdown)


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
        text += "\n\nThe first result that is not None is used."
    return text


def _table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    return "\n".join(_lines(columns, rows))


def _lines(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    for row in (columns, ("---",) * len(columns), *rows):
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |"
