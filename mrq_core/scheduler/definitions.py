"""Definitions of schedules: the entries of SCHEDULER_TASKS, and what `@task` says, as checked values."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Callable, Iterable
from datetime import date, time
from typing import Annotated, Any, Literal

import msgspec

from mrq_core.clock import period_words
from mrq_core.config.secrets import hide_secrets
from mrq_core.contract.codec import JsonObject, JsonValue, storable_params
from mrq_core.contract.plain import is_mapping, text_of
from mrq_core.contract.signal_errors import raised_by_handler
from mrq_core.contract.values import check_path
from mrq_core.errors import ConfigError, InvalidValue, shown, shown_error
from mrq_core.scheduler.triggers import (
    BoundedTrigger,
    CalendarTrigger,
    IntervalTrigger,
    Trigger,
    cron_trigger,
    cron_words,
    on_every_day,
    on_monthday,
    on_weekday,
)
from mrq_core.scheduler.values import CHECKS, INTERVAL_MAX, INTERVAL_MIN
from mrq_core.scheduler.zones import zone_of

NAME_MAX = 100
PARAMS_MAX = 8192
"""Bytes of JSON: shared state holds small values."""
_SKIP_GRACE = 60.0
"""The grace time of `skip`, in seconds, if the definition has none."""

Missed = Literal["skip", "once", "all"]
Overlap = Literal["allow", "skip", "buffer_one", "cancel_other"]


Moment = Annotated[int, msgspec.Meta(ge=-62_135_596_800_000, le=253_402_300_799_999)]
"""Unix milliseconds of the years 1 to 9999."""


class Definition(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A checked definition, in its stored form. Exactly one of `interval`, `dailytime` and `cron` is given;
    `weekday` or `monthday` restricts a `dailytime`.

    `interval`, `jitter` and `grace` are seconds. `start` and `end` are Unix milliseconds. `weekday` 0 is
    Monday. A `monthday` that a month does not have means its last day. `missed_limit` is the number of missed
    fires that `all` makes up for. `pause_after` failures in a row pause the schedule; 0: never.
    """

    name: str
    path: str
    params: JsonObject = {}
    queue: str | None = None
    priority: int | None = None
    interval: Annotated[float, msgspec.Meta(ge=INTERVAL_MIN, le=INTERVAL_MAX)] | None = None
    dailytime: str | None = None
    weekday: Annotated[int, msgspec.Meta(ge=0, le=6)] | None = None
    monthday: Annotated[int, msgspec.Meta(ge=1, le=31)] | None = None
    cron: str | None = None
    timezone: str = "UTC"
    start: Moment | None = None
    end: Moment | None = None
    exclude: tuple[str, ...] = ()
    jitter: float = 0.0
    missed: Missed = "once"
    missed_limit: int = 100
    grace: float | None = None
    overlap: Overlap = "allow"
    pause_after: int = 0

    @property
    def grace_ms(self) -> int | None:
        """The lateness up to which a fire makes a job. None: any."""
        grace = _SKIP_GRACE if self.grace is None and self.missed == "skip" else self.grace
        return None if grace is None else round(grace * 1000)

    def has_trigger_of(self, other: Definition) -> bool:
        """Whether both definitions fire at the same times."""
        return all(
            getattr(self, name) == getattr(other, name) for name in (*_TRIGGER, "start", "end", "exclude")
        )


_OF_A_MACHINE = frozenset({"localtime", "posixrules"})
"""Files among the zones that lead to the zone of the machine."""
_TRIGGER = ("interval", "dailytime", "weekday", "monthday", "cron", "timezone")
KEYS = Definition.__struct_fields__


def trigger_of(definition: Definition, anchor_ms: int) -> Trigger:
    """The trigger of a definition. An interval without `start` counts from `anchor_ms`."""
    zone = zone_of(definition.timezone)
    excluded = frozenset(map(date.fromisoformat, definition.exclude))
    start = definition.start
    trigger: Trigger
    if definition.interval is not None:
        anchor = anchor_ms if start is None else start
        trigger = IntervalTrigger(round(definition.interval * 1000), anchor, zone, excluded)
    elif definition.cron is not None:
        trigger = cron_trigger(definition.cron, zone, excluded)
    else:
        at = time.fromisoformat(definition.dailytime or "")
        days: Callable[[date], bool] = on_every_day
        if definition.weekday is not None:
            days = on_weekday(definition.weekday)
        elif definition.monthday is not None:
            days = on_monthday(definition.monthday)
        at_ms = ((at.hour * 60 + at.minute) * 60 + at.second) * 1000 + at.microsecond // 1000
        trigger = CalendarTrigger(days, (at_ms,), zone, excluded=excluded)
    if start is not None or definition.end is not None:
        return BoundedTrigger(trigger, start, definition.end)
    return trigger


def trigger_words(definition: Definition) -> str:
    """When the schedule fires, in words, also if this version refuses its cron expression."""
    if definition.interval is not None:
        return f"every {period_words(definition.interval)}"
    zone = definition.timezone
    if definition.cron is not None:
        try:
            return f"{cron_words(definition.cron)}, {zone}"
        except InvalidValue:  # of another version, or of a damaged value
            return f"cron {definition.cron}, which this version of mrq refuses, {zone}"
    days = "every day"
    if definition.weekday is not None:
        days = f"every {_WEEKDAYS[definition.weekday]}"
    elif definition.monthday is not None:
        days = f"on day {definition.monthday} of the month"
    return f"{days} at {definition.dailytime}, {zone}"


_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


# --- parsing --------------------------------------------------------------------------------


class Definitions:
    """Definitions that are gathered, each once. `where` is the name of their list."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._labels: dict[str | bytes, str] = {}
        self.found: list[Definition] = []

    def add(self, definition: Definition, entry: object, label: str) -> None:
        """Adds a definition, which messages call `label`. Raises ConfigError for a second one of its name, or
        a second one that queues the same jobs at the same times."""
        for key, what, hint in (
            (definition.name, "name", ""),
            (_identity_of(definition), "task, params and times", ", and other params or times"),
        ):
            other = self._labels.setdefault(key, label)
            if other is not label:
                raise ConfigError(
                    f"{label} {shown(hide_secrets('', entry))}: it has the {what} of {other}: "
                    f"expected each schedule once; give the second one another `name`{hint}"
                )
        self.found.append(definition)

    def add_all(self, entries: Iterable[object]) -> None:
        """Adds entries of SCHEDULER_TASKS. Raises ConfigError, which shows the invalid or duplicate entry."""
        for index, entry in enumerate(entries):
            label = f"{self._where}[{index}]"
            try:
                definition = definition_from(entry)
            except InvalidValue as error:
                raise ConfigError(f"{label} {shown(hide_secrets('', entry))}: {error}") from error
            self.add(definition, entry, label)


def definitions_from(entries: Iterable[object], *, where: str = "SCHEDULER_TASKS") -> list[Definition]:
    """The definitions of all entries. Raises ConfigError, which shows the invalid or duplicate entry."""
    definitions = Definitions(where)
    definitions.add_all(entries)
    return definitions.found


def definition_from(entry: object) -> Definition:
    """The definition in one entry of SCHEDULER_TASKS. Raises InvalidValue."""
    if not is_mapping(entry):
        raise InvalidValue("expected a dict, such as {'path': 'tasks.report', 'interval': 60}", path="")
    given: dict[str, Any] = {}
    for key, value in entry.items():
        text = text_of(key)
        if text not in KEYS:
            near = difflib.get_close_matches(text or "", KEYS, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(KEYS)}"
            raise InvalidValue(f"{shown(key)} is no key of a schedule: {hint}", path=(text or "")[:NAME_MAX])
        if value is not None:
            given[text] = value
    checked: dict[str, Any] = {
        "path": check_path(given.pop("path", None)),
        "params": storable_params(given.pop("params", {}), max_size=PARAMS_MAX),
    }
    given_zone = given.pop("timezone", "UTC")
    zone_name = text_of(given_zone)
    if zone_name is None:
        raise InvalidValue(f"timezone is {shown(given_zone)}: expected a name such as 'UTC'", path="timezone")
    if zone_name in _OF_A_MACHINE:
        raise InvalidValue(
            f"timezone is {shown(zone_name)}, which differs between machines: expected the name of a zone, "
            "such as 'Europe/Berlin'",
            path="timezone",
        )
    checked["timezone"] = zone_of(zone_name).key
    name = given.pop("name", None)
    for key, value in given.items():
        checked[key] = _checked(value, key, checked["timezone"])
    _check_trigger(checked)
    definition = Definition(name="", **checked)
    definition = msgspec.structs.replace(
        definition, name=_name_of(definition) if name is None else check_name(name)
    )
    _check_together(definition)
    return definition


def _checked(value: object, key: str, zone: str) -> object:
    try:
        return CHECKS[key](value, key, zone)
    except (InvalidValue, MemoryError):
        raise
    except Exception as error:  # code of a tzinfo, or of a subclass of datetime, timedelta or str
        if raised_by_handler(error) is not None:
            raise
        raise InvalidValue(
            f"{key} cannot be read, reading it raised {shown_error(error)}: expected a plain value", path=key
        ) from error


def check_name(name: object) -> str:
    """Returns the name of a schedule as plain text. Raises InvalidValue."""
    text = text_of(name)
    if text and len(text) <= NAME_MAX and text.isprintable() and text == text.strip():
        return text
    raise InvalidValue(
        f"name is {shown(name)}: expected 1 to {NAME_MAX} printable characters, without a space at the ends",
        path="name",
    )


def _identity_of(definition: Definition) -> bytes:
    """Task, params and trigger, which identify a schedule without a name."""
    values: list[JsonValue] = [definition.path, definition.params]
    values += [getattr(definition, name) for name in _TRIGGER]
    return msgspec.json.Encoder(order="deterministic").encode(values)


def _name_of(definition: Definition) -> str:
    """The name of a schedule that was given none: the end of the path, and a hash of task, params and
    trigger."""
    digest = hashlib.sha256(_identity_of(definition)).hexdigest()[:10]
    return f"{definition.path[-(NAME_MAX - 11) :]}-{digest}"


def _check_trigger(checked: dict[str, Any]) -> None:
    if checked.get("interval") == 86_400 and "dailytime" in checked:
        del checked["interval"]  # MRQ 0.9 takes both, and means the time
    kinds = [key for key in ("interval", "dailytime", "cron") if key in checked]
    days = [key for key in ("weekday", "monthday") if key in checked]
    if days and "dailytime" not in checked:
        raise InvalidValue(
            f"{days[0]} is given without dailytime: expected the time of day, such as '08:30'", path=days[0]
        )
    if len(kinds) != 1 or len(days) > 1:
        found = " and ".join([*kinds, *days]) or "none of them"
        raise InvalidValue(
            "the trigger is one of interval, cron and dailytime, the last with weekday or monthday or "
            f"neither, and the entry has {found}",
            path="interval",
        )


def _check_together(definition: Definition) -> None:
    if definition.start is not None and definition.end is not None and definition.start > definition.end:
        raise InvalidValue("start is later than end: the schedule never fires", path="end")
    if definition.jitter:
        trigger = trigger_of(definition, 0)
        at = trigger.next_after(0)
        for _ in range(5):
            following = None if at is None else trigger.next_after(at)
            if at is None or following is None:
                return
            if definition.jitter * 1000 > following - at:
                raise InvalidValue(
                    f"jitter is {definition.jitter:g} s, and two fires are {(following - at) / 1000:g} s "
                    "apart: expected a jitter that keeps their order",
                    path="jitter",
                )
            at = following
