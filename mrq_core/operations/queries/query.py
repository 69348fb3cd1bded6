"""Turns the text of a search box into a filter, and into conditions that no filter has.

| part | jobs |
|---|---|
| ``status:failed,timeout`` | with one of these statuses |
| ``queue:main/ path:mail.* worker:host`` | of queues and trees, tasks and workers, with wildcards |
| ``error:ValueError message:"no stock" group:"..."`` | whose latest attempt raised this |
| ``key.user_id:42 params.order.id:x schedule:nightly id:65f...`` | with these values |
| ``since:2h until:2026-01-02`` | queued in this time |
| ``duration:>5s`` | whose latest attempt took longer |
| ``is:running``, ``is:waiting``, ``is:ended`` | with one of several statuses |
| ``is:still-failing`` | that failed, and whose task has had no success since |

All parts must match. Values in a list are alternatives, and so are several parts ``status``, ``queue``,
``path``, ``worker``, ``error``, ``group``, ``schedule``, ``id`` or ``is``. A free word is a word of the
exception's message. In a pattern, ``*`` stands for any text and ``?`` for one character; in quotes, or behind
a backslash, they stand for themselves.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

import msgspec

from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject, is_equal
from mrq_core.contract.naming import quoted_name
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import ENDED, WAITING, JobRecord, Status
from mrq_core.contract.terms import value_at
from mrq_core.contract.values import check_job_id
from mrq_core.errors import InvalidQuery, InvalidValue, shown
from mrq_core.operations.queries.filters import FilterTexts, filter_from, params_from
from mrq_core.operations.queries.query_parts import IS, QueryPart, canonical, query_error, split_query
from mrq_core.operations.task_descriptions import published_task, searchable_names
from mrq_core.operations.views import duration_of
from mrq_core.operations.workers import WorkerReport, list_workers

MOST_EXPANDED = 1000
"""The most names that the wildcards of a part may stand for."""
FAILED = frozenset({Status.FAILED, Status.TIMEOUT, Status.MAXRETRIES, Status.ABORT})
"""The statuses of jobs that may be still failing."""
_BY_IS = {"running": frozenset({Status.STARTED}), "waiting": WAITING, "ended": ENDED}
_STILL_FAILING = "still-failing"
MOST_PATHS = 20
"""The most paths whose published tasks a query reads."""
_FIELDS = {"status": "statuses", "error": "errors", "message": "messages", "group": "groups",
           "schedule": "schedules", "queue": "queues", "path": "paths"}  # fmt: skip
_DURATION = re.compile(r"(>=|<=|>|<)\s*(\d+(?:\.\d+)?)\s*(ms|[smhdw])", re.ASCII)
_UNIT_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_COMPARED: dict[str, Callable[[float, float], bool]] = {
    ">": lambda value, bound: value > bound,
    ">=": lambda value, bound: value >= bound,
    "<": lambda value, bound: value < bound,
    "<=": lambda value, bound: value <= bound,
}


class DurationBound(msgspec.Struct, frozen=True, kw_only=True):
    """A bound of the duration of the latest attempt. `sign` is ``>``, ``>=``, ``<`` or ``<=``."""

    sign: str
    seconds: float

    def allows(self, duration: float | None) -> bool:
        """Whether the duration is within the bound. A job before its first attempt has none."""
        return duration is not None and _COMPARED[self.sign](duration, self.seconds)


class SearchQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A parsed query.

    `text` is its canonical text, and `parts` has the indexes of each part in it. `filter` selects the jobs,
    and the conditions `durations`, `nested_params` and `is_still_failing` reject some of them. Where
    `has_conditions`, an action on all jobs of `filter` would also change jobs that do not match.
    `tab_filter` is the filter without the parts ``status``. `notices` tell what the query may leave out.
    """

    text: str
    parts: tuple[QueryPart, ...]
    filter: JobFilter
    tab_filter: JobFilter
    durations: tuple[DurationBound, ...] = ()
    nested_params: JsonObject = {}
    is_still_failing: bool = False
    notices: tuple[str, ...] = ()

    @property
    def has_conditions(self) -> bool:
        """Whether the query has conditions that its filter does not have."""
        return bool(self.durations or self.nested_params or self.is_still_failing)

    def allows(self, record: JobRecord, now: datetime) -> bool:
        """Whether the job satisfies the conditions that the record decides: all but `is_still_failing`."""
        if self.durations:
            duration = duration_of(record, now)
            if not all(bound.allows(duration) for bound in self.durations):
                return False
        return all(
            is_equal(value_at(record.params, name), value) for name, value in self.nested_params.items()
        )


def parse_query(broker: Broker, text: str) -> SearchQuery:
    """Parses a query. Raises InvalidQuery, which names the part and its position.

    Asks the broker for its time. Reads totals for wildcards in ``path`` and ``queue``, the reports of workers
    for ``worker``, and published tasks for ``params`` beside ``path``.
    """
    return _Parsing(broker, text).query()


def matches_pattern(name: str, pattern: str) -> bool:
    """Whether the name matches a pattern in which ``*`` stands for any text and ``?`` for one character. At
    most the product of both lengths in steps."""
    index = at = star = 0
    resume = -1
    while index < len(name):
        if at < len(pattern) and pattern[at] == "*":
            star, resume, at = index, at, at + 1
        elif at < len(pattern) and pattern[at] in ("?", name[index]):
            index, at = index + 1, at + 1
        elif resume >= 0:
            star, at = star + 1, resume + 1
            index = star
        else:
            return False
    return not pattern[at:].strip("*")


def is_pattern(text: str) -> bool:
    """Whether the text has wildcards."""
    return "*" in text or "?" in text


class _Parsing:
    """One parse: what the parts have given so far."""

    def __init__(self, broker: Broker, text: str) -> None:
        self._broker = broker
        self._text = text
        self._parts = split_query(text)
        self._now = broker.now()
        self._texts: dict[str, Any] = {}
        """The fields of FilterTexts."""
        self._ids: list[str] = []
        self._workers: list[str] = []
        self._nested: JsonObject = {}
        self._durations: list[DurationBound] = []
        self._is: set[str] = set()
        self._notices: list[str] = []

    def query(self) -> SearchQuery:
        for part in self._parts:
            try:
                self._take(part)
            except InvalidQuery:
                raise
            except InvalidValue as error:
                raise self._error(part, str(error)) from error
        try:
            found = filter_from(FilterTexts(**self._texts), now=self._now)
        except InvalidValue as error:  # since is later than until
            raise self._error(self._parts[-1], str(error)) from error
        ids, workers = (tuple(dict.fromkeys(names)) for names in (self._ids, self._workers))
        found = msgspec.structs.replace(found, ids=ids, workers=workers)
        text, parts = canonical(self._parts)
        of_is = self._statuses_of_is()
        return SearchQuery(
            text=text,
            parts=parts,
            filter=msgspec.structs.replace(found, statuses=self._statuses(found.statuses, of_is)),
            tab_filter=msgspec.structs.replace(found, statuses=_in_order(of_is or ())),
            durations=tuple(self._durations),
            nested_params=self._nested,
            is_still_failing=_STILL_FAILING in self._is,
            notices=tuple(dict.fromkeys(self._notices)),
        )

    def _take(self, part: QueryPart) -> None:
        """Adds a part. Raises InvalidValue."""
        match part.name:
            case "since" | "until":
                self._texts[part.name] = part.value
                self._check(part.name, part.value)
            case "id":
                self._ids += map(check_job_id, part.values)
            case "worker":
                for index in range(len(part.values)):
                    self._workers += self._workers_named(part, index)
            case "duration":
                self._durations.append(_duration_bound(part.value))
            case "is":
                self._add_is(part)
            case name if name.startswith(("key.", "params.")):
                self._add_value(part)
            case name:
                field = _FIELDS[name or "message"]
                texts = [text for index in range(len(part.values)) for text in self._expanded(part, index)]
                self._check(field, texts)
                self._texts.setdefault(field, []).extend(texts)

    def _check(self, field: str, value: str | list[str]) -> None:
        """Raises InvalidValue unless the value fits this field of FilterTexts."""
        fields: dict[str, Any] = {field: value}
        filter_from(FilterTexts(**fields), now=self._now)

    def _add_is(self, part: QueryPart) -> None:
        for value in part.values:
            if value not in IS:
                near = tuple(difflib.get_close_matches(value, IS, n=2))
                message = f"is is {shown(value)}: expected one of {', '.join(IS)}"
                raise self._error(part, message, near)
            self._is.add(value)

    def _add_value(self, part: QueryPart) -> None:
        """Adds a search key, or a param. A param of tasks that all publish it as a search key is one."""
        stem, _, key = part.name.partition(".")
        text = f"{key}={json.dumps(part.value) if part.is_quoted else part.value}"
        field = "search_keys" if stem == "key" else "params"
        if stem == "params":
            [value] = params_from([text]).values()
            if value is not None and not isinstance(value, list | dict) and self._is_searchable(key):
                field = "search_keys"
            elif "." in key:
                if key in self._nested:
                    raise InvalidValue(f"params names {shown(key)} twice: expected each once", path="params")
                self._nested[key] = value
                return
        texts = [*self._texts.get(field, ()), text]
        self._check(field, texts)
        self._texts[field] = texts

    def _is_searchable(self, key: str) -> bool:
        paths = [value for part in self._parts if part.name == "path" for value in part.values]
        if not 0 < len(paths) <= MOST_PATHS or any(map(is_pattern, paths)):
            return False
        return all(key in searchable_names(published_task(self._broker, path)) for path in paths)

    def _expanded(self, part: QueryPart, index: int) -> list[str]:
        """The value as text of a filter; of a pattern, the names that it stands for. A pattern that stands
        for no name stays, so that it selects no job."""
        value = part.values[index]
        if part.name not in ("queue", "path"):
            return [value]
        if index in part.exact or not is_pattern(value):
            return [quoted_name(value) if part.name == "queue" else value]
        totals = self._broker.totals()
        names = self._matching(part, value, totals.by_queue if part.name == "queue" else totals.by_path)
        return [quoted_name(name) if part.name == "queue" else name for name in names]

    def _workers_named(self, part: QueryPart, index: int) -> list[str]:
        """The names of workers that a name, a NAME, a host or a pattern means."""
        value = part.values[index]
        reports = list_workers(self._broker)
        if index not in part.exact and is_pattern(value):
            return self._matching(part, value, [report.name for report in reports])
        if any(report.name == value for report in reports):
            return [value]
        named = [report.name for report in reports if _has_name(report, value)]
        return named or [value]

    def _matching(self, part: QueryPart, pattern: str, names: Iterable[str]) -> list[str]:
        found = sorted(name for name in names if matches_pattern(name, pattern))
        if len(found) > MOST_EXPANDED:
            raise self._error(
                part,
                f"{shown(pattern)} stands for {len(found):,} names: expected at most {MOST_EXPANDED:,}, or a "
                "tree such as main/",
            )
        if not found:
            self._notices.append(f"no {part.name} is known whose name matches {pattern}")
        return found or [pattern]

    def _statuses_of_is(self) -> frozenset[Status] | None:
        """The statuses that the parts ``is`` allow. None: all."""
        chosen = [_BY_IS[value] for value in self._is if value in _BY_IS]
        allowed = frozenset().union(*chosen) if chosen else None
        if _STILL_FAILING in self._is:
            allowed = FAILED if allowed is None else allowed & FAILED
        if allowed is not None and not allowed:
            raise self._no_status("is")
        return allowed

    def _statuses(self, given: Sequence[Status], of_is: frozenset[Status] | None) -> tuple[Status, ...]:
        if of_is is None or not given:
            return tuple(given) or _in_order(of_is or ())
        if not of_is & set(given):
            raise self._no_status("status")
        return tuple(status for status in given if status in of_is)

    def _no_status(self, name: str) -> InvalidQuery:
        part = next(part for part in reversed(self._parts) if part.name == name)
        return self._error(part, "no job has a status that all parts allow")

    def _error(self, part: QueryPart, message: str, suggestions: tuple[str, ...] = ()) -> InvalidQuery:
        return query_error(part, message, self._text, suggestions)


def _has_name(report: WorkerReport, name: str) -> bool:
    """Whether the worker has this NAME, or runs on this host."""
    return name in (report.host, report.name.removesuffix(f".{report.host}.{report.pid}"))


def _duration_bound(text: str) -> DurationBound:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise InvalidValue(
            f"duration is {shown(text)}: expected >, >=, < or <= and a time: >5s, <200ms, >=2m, >1h",
            path="duration",
        )
    return DurationBound(sign=found[1], seconds=float(found[2]) * _UNIT_SECONDS[found[3]])


def _in_order(statuses: Iterable[Status]) -> tuple[Status, ...]:
    chosen = frozenset(statuses)
    return tuple(status for status in Status if status in chosen)
