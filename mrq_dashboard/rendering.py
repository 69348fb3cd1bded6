"""Renders pages with Jinja2. All values are escaped."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from mrq_core import __version__
from mrq_core.config.settings import Config
from mrq_core.contract.codec import JsonValue
from mrq_core.errors import ConfigError, shown, without_controls
from mrq_core.operations.queries.query_parts import LONGEST
from mrq_dashboard import formats
from mrq_dashboard.acting import new_key, notice_of
from mrq_dashboard.assets import Assets
from mrq_dashboard.visit import Page, Visit

MENU = (
    ("/", "Overview", "o"),
    ("/queues", "Queues", "q"),
    ("/jobs", "Jobs", "j"),
    ("/exceptions", "Exceptions", "e"),
    ("/tasks", "Tasks", "t"),
    ("/schedules", "Schedules", "s"),
    ("/workers", "Workers", "w"),
    ("/limits", "Limits", "l"),
    ("/system", "System", "y"),
)
"""The pages of the menu: path, words, and the key that follows ``g``."""
_COLOR = re.compile(r"[A-Za-z]+|#(?:[0-9A-Fa-f]{3}|[0-9A-Fa-f]{6})")
_ISO = r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(?:\.\d+)?Z"
_MOMENT = re.compile(rf"((?:in )?\d[\d.,]* (?:ms|s|min|h|d)(?: ago)?) \({_ISO}\)|{_ISO}")


@cache
def _environment() -> Environment:
    """The compiled templates, once for a process. An error in a template stops the start."""
    made = Environment(
        loader=PackageLoader("mrq_dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
        finalize=_shown,
    )
    made.filters.update(formats.FILTERS, moments=moments)
    made.globals.update(menu=MENU, version=__version__, new_key=new_key, longest_query=LONGEST)
    for name in made.list_templates():
        made.get_template(name)
    return made


def check_color(color: str) -> None:
    """Raises ConfigError for a DASHBOARD_COLOR that is none. Empty: no color."""
    if color and not _COLOR.fullmatch(color):
        raise ConfigError(f"DASHBOARD_COLOR is {shown(color)}: expected a name such as crimson, or #rrggbb")


class Renderer:
    """The templates, with the filters and names that all of them may use."""

    def __init__(self, config: Config, assets: Assets) -> None:
        """Raises ConfigError for a color that is none."""
        check_color(config.dashboard_color)
        self._assets = assets
        self._environment = _environment()
        self._named = {
            "environment_name": config.dashboard_name,
            "environment_color": config.dashboard_color,
        }

    def page(self, visit: Visit, page: Page) -> Response:
        """The page with its menu."""
        template = self._environment.get_template(page.template)
        read_at = datetime.now(UTC)
        html = template.render(
            **self._named,
            **page.context,
            visit=visit,
            title=page.title,
            url=visit.url,
            asset=lambda name: visit.root + self._assets.path_of(name),
            ago=_times(cache(visit.later)),
            read_at=read_at,
            notice=notice_of(visit),
        )
        headers = {"refresh": str(page.refresh)} if page.refresh else None
        return HTMLResponse(html, status_code=page.status, headers=headers)

    def bare(self, request: Request, status: int, title: str, text: str) -> Response:
        """A page without a menu, for a stranger."""
        root = request.scope.get("root_path", "").rstrip("/")
        html = self._environment.get_template("bare.html").render(
            title=title,
            text=text,
            nonce=request.state.nonce,
            asset=lambda name: root + self._assets.path_of(name),
        )
        return HTMLResponse(html, status_code=status)


def _shown(value: Any) -> Any:
    """A value of a template as people can read it: control characters and characters that reorder text are
    escapes, so that no name looks like another one."""
    if type(value) is not str or value.isprintable():
        return value
    return without_controls(value.replace("\r\n", "\n"))


def moments(sentence: str) -> Markup:
    """The sentence with relative times, and the exact ones as their titles: ``12 s ago (2026-...Z)`` becomes
    ``12 s ago``, and a moment that stands alone has a space for its ``T``."""
    parts, end = [], 0
    for found in _MOMENT.finditer(sentence):
        words, *dates = found.groups()
        day, hour = (one for one in dates if one is not None)
        exact = f"{day} {hour} UTC"
        parts += [
            escape(_shown(sentence[end : found.start()])),
            Markup('<time datetime="{}T{}Z" title="{}">{}</time>').format(day, hour, exact, words or exact),
        ]
        end = found.end()
    return Markup("").join([*parts, escape(_shown(sentence[end:]))])


def _times(now: Callable[[], datetime]) -> Callable[[JsonValue | datetime], Markup]:
    """A function that shows a moment relative to now, with the exact time as its title. A page without
    moments reads no time, so that it can be shown while the broker is away."""

    def ago(moment: Any) -> Markup:
        if moment is None or moment == "":
            return Markup('<span class="none">-</span>')
        at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        exact = at.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " UTC"
        words = formats.relative((at - now()).total_seconds())
        return Markup('<time datetime="{}" title="{}">{}</time>').format(
            escape(at.isoformat()), escape(exact), escape(words)
        )

    return ago
