"""What a page's module receives and returns: a Visit, with its inputs, and an Answer."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlencode

from msgspec import Struct
from starlette.responses import Response

from mrq_core.client.client import Client
from mrq_core.clock import after, monotonic
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject, JsonValue
from mrq_core.contract.record import JobRecord
from mrq_core.errors import InvalidValue, MrqError, shown
from mrq_core.operations.bulk.bulk_runner import BulkRunner
from mrq_core.operations.explaining.reached_limits import ReachedLimits
from mrq_core.operations.measures.slots import SlotHistory
from mrq_core.operations.measures.task_history import TaskHistory
from mrq_core.operations.queries.search import KnownSuccesses, LastSuccesses
from mrq_core.operations.statistics import DayMeasurements
from mrq_dashboard.auth import Role, Visitor
from mrq_dashboard.health import Checked, Health
from mrq_dashboard.sharing import Shared

_log = logging.getLogger("mrq.dashboard")
_SUCCESSES_KEPT = 5.0
"""Seconds after which the last success of a task is read again."""


class NotFound(MrqError):
    """The thing that the address names does not exist (any more)."""


class Forbidden(MrqError):
    """The visitor's role does not allow this part of an action."""


class NoInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """The inputs of a page that has none."""


@dataclass(frozen=True, kw_only=True)
class Visit:
    """One request of a visitor, for the function that answers it in a thread."""

    client: Client
    task_history: TaskHistory
    """The measurements of tasks that this process has read."""
    slot_history: SlotHistory
    """The measurements by minute and hour that this process has read."""
    reached: ReachedLimits
    """The limits that hold jobs back, of up to 2 s ago."""
    day: DayMeasurements
    """The run times of the last day that this process has read."""
    known_successes: KnownSuccesses
    """The last successes of tasks that this process has read."""
    health: Health
    """The findings about the broker."""
    shared: Shared
    """What pages of all visitors show alike."""
    runner: BulkRunner
    """Advances bulk actions."""
    visitor: Visitor
    root: str
    """The path at which the application is mounted, without a slash at its end."""
    path: str
    """The path of the page below `root`."""
    query: str
    nonce: str
    is_fragment: bool
    """Whether the page itself asks, to replace its regions: only these are rendered."""
    names: Mapping[str, str]
    """The variable parts of the path."""
    own: Mapping[str, str] = field(default_factory=dict)
    """What a page or form sends beside its inputs: see `mrq_dashboard.acting`."""
    made_id: str | None = None
    """The id of the one thing that an action makes. None: the request has no key, so any id will do."""
    referer: str = ""
    """The page of this dashboard that led here: its path with `root`, and its query. Empty: unknown."""

    def need(self, role: Role, what: str) -> None:
        """Raises Forbidden if the visitor's role is lower. `what`: such as ``removing jobs``."""
        if self.visitor.role < role:
            raise Forbidden(f"{what} needs the role {role}, and {self.visitor.name} has {self.visitor.role}")

    @property
    def may_operate(self) -> bool:
        """Whether the visitor may do what needs the role operate."""
        return self.visitor.role >= Role.OPERATE

    @property
    def may_write(self) -> bool:
        """Whether the visitor may do what needs the role write."""
        return self.visitor.role >= Role.WRITE

    def named(self, given: str, key: str = "name") -> str:
        """The name of a thing, which the path or the inputs give. Raises InvalidValue if none or both do."""
        in_path = self.names.get(key, "")
        if in_path and given and given != in_path:
            raise InvalidValue(
                f"{key} is {shown(given)}, and the path names {shown(in_path)}: expected one of them",
                path=key,
            )
        if not (in_path or given):
            raise InvalidValue(f"{key} is missing: expected a name", path=key)
        return in_path or given

    @property
    def broker(self) -> Broker:
        """The broker for the calling thread."""
        return self.client.broker

    @property
    def config(self) -> Config:
        """The configuration of the dashboard."""
        return self.client.config

    @property
    def now(self) -> datetime:
        """The broker's time, read once."""
        return self._read_clock[0]

    def later(self) -> datetime:
        """The broker's time at this moment: `now`, and the time since it was read."""
        now, read_at = self._read_clock
        return after(now, monotonic() - read_at)

    @cached_property
    def _read_clock(self) -> tuple[datetime, float]:
        return self.broker.now(), monotonic()

    @property
    def successes(self) -> LastSuccesses:
        """The last successes of tasks, of up to 5 s ago."""
        return LastSuccesses(self.broker, self.known_successes, seconds=_SUCCESSES_KEPT)

    @property
    def checked(self) -> Checked | None:
        """The latest findings about the broker; None while they are checked for the first time."""
        return self.health.latest(lambda: self.client.broker)

    def decoded(self, record: JobRecord) -> JobRecord:
        """The record with params and result as before `mrq_encode`; as stored where a plugin cannot decode
        them, because its key is gone or its code fails."""
        try:
            return self.client.decoded(record)
        except Exception:  # of a plugin
            _log.exception("dashboard.not_decoded job=%s", record.id)
            return record

    def url(self, path: str, /, **query: object) -> str:
        """The address of a page of this dashboard. Leaves out inputs that are None or empty."""
        given = [
            (name, str(one))
            for name, value in query.items()
            if value is not None and value != ""
            for one in (value if isinstance(value, list | tuple) else [value])
        ]
        return self.root + quote(path) + (f"?{urlencode(given)}" if given else "")


@dataclass(frozen=True, kw_only=True)
class Page:
    """A page: its template below `templates`, and the names that the template uses."""

    template: str
    title: str
    context: Mapping[str, Any] = field(default_factory=dict)
    status: int = 200
    refresh: int = 0
    """Seconds after which the browser loads the page again. 0: never."""


@dataclass(frozen=True, kw_only=True)
class Json:
    """A JSON value with a status other than 200."""

    value: JsonValue
    status: int


@dataclass(frozen=True, kw_only=True)
class Redirect:
    """Sends the browser to another page of this dashboard, by GET."""

    url: str


@dataclass(frozen=True, kw_only=True)
class Done:
    """An action that was done. `mrq_dashboard.acting` audits it and answers it.

    `text` says it in a sentence without a period, `target` names what it has changed, and `counts` how many.
    """

    action: str
    """The verb, as the audit log has it: ``requeue``."""
    target: str
    text: str
    counts: Mapping[str, int] = field(default_factory=dict)
    value: JsonObject = field(default_factory=dict)
    """Further values of the answer to a program."""
    tone: str = ""
    """``warn`` if the action has not done all that was asked."""
    url: str | None = None
    """The page to show. None: the page that the visitor came from."""
    status: int = 200
    is_audited: bool = True
    """False for a dry run, which changes nothing."""


Answer = Page | Json | Redirect | Done | Response | JsonObject | list[Any]
"""What a function answers. An object or a list is JSON."""
