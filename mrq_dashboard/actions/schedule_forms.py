"""The keys of a schedule as forms and programs give them."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from mrq_core.clock import from_ms
from mrq_core.contract.values import check_path
from mrq_core.errors import InvalidValue
from mrq_core.operations.hidden_params import params_with_secrets
from mrq_core.operations.queries.filters import duration_from, duration_text, object_from, seconds_from
from mrq_core.operations.views import iso, redacted
from mrq_core.scheduler.definitions import Definition, definition_from
from mrq_dashboard.acting import Field
from mrq_dashboard.formats import json_source
from mrq_dashboard.inputs import Duration

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MISSED = (("", "once: one job for all of them"), ("skip", "skip: none"), ("all", "all: one job each"))
_OVERLAP = (
    ("", "allow: both run"),
    ("skip", "skip: the new job is left out"),
    ("buffer_one", "buffer_one: one waits"),
    ("cancel_other", "cancel_other: the old job is cancelled"),
)


class ScheduleInputs(Struct, frozen=True, forbid_unknown_fields=True):
    """A schedule. It has one of `interval`, `cron` and `dailytime`. Durations are seconds, or texts such as
    `15m`."""

    path: Annotated[str, Meta(min_length=1, max_length=1000, description="The path of the task.")]
    name: Annotated[str, Meta(max_length=1000, description="Its name. Default: made of task and times.")] = ""
    interval: Annotated[Duration, Meta(description="It fires each 30s, 15m, 2h or 1d.")] = ""
    cron: Annotated[str, Meta(max_length=1000, description="It fires at `*/5 8-18 * * 1-5`.")] = ""
    dailytime: Annotated[str, Meta(max_length=20, description="It fires at this time of day.")] = ""
    weekday: Annotated[int | None, Meta(description="With dailytime: only on this day; 0 is Monday.")] = None
    monthday: Annotated[int | None, Meta(description="With dailytime: only on this day, 1 to 31.")] = None
    timezone: Annotated[str, Meta(max_length=100, description="Such as Europe/Berlin. Default: UTC.")] = ""
    params: Annotated[dict | str, Meta(description="The params of its jobs.")] = ""  # type: ignore[type-arg]
    queue: Annotated[str, Meta(max_length=1000, description="Their queue. Default: that of the task.")] = ""
    priority: Annotated[int | None, Meta(description="Their priority, -4 to 4.")] = None
    missed: Annotated[str, Meta(max_length=20, description="skip, once (default) or all.")] = ""
    missed_limit: Annotated[int | None, Meta(description="The missed fires that all makes up for.")] = None
    grace: Annotated[Duration, Meta(description="The lateness up to which a fire makes a job.")] = ""
    overlap: Annotated[
        str, Meta(max_length=20, description="allow (default), skip, buffer_one or cancel_other.")
    ] = ""
    jitter: Annotated[Duration, Meta(description="The most by which a fire is late.")] = ""
    start: Annotated[str, Meta(max_length=100, description="It fires from this time on, in ISO 8601.")] = ""
    end: Annotated[str, Meta(max_length=100, description="It fires until this time.")] = ""
    exclude: Annotated[
        list[str] | str, Meta(description="Dates on which it does not fire; a text has them with commas.")
    ] = ""
    pause_after: Annotated[int | None, Meta(description="Failures in a row that pause it; 0: never.")] = None


class EditInputs(ScheduleInputs, frozen=True, forbid_unknown_fields=True):
    """The new keys of a schedule, which replace all earlier ones. `seen` comes from the form."""

    seen: Annotated[str, Meta(max_length=100, description="The definition that the form showed.")] = ""


def definition_in(inputs: ScheduleInputs, before: Definition | None = None) -> Definition:
    """The definition in the inputs. Values that a form has hidden are those of `before`. Raises
    InvalidValue."""
    entry: dict[str, Any] = {}
    for name in ScheduleInputs.__struct_fields__:
        value = getattr(inputs, name)
        if value is not None and value != "":
            entry[name] = value
    for name, parse in (("interval", duration_from), ("grace", seconds_from), ("jitter", seconds_from)):
        if name in entry:
            entry[name] = parse(entry[name], name=name)
    if isinstance(inputs.exclude, str) and inputs.exclude:
        entry["exclude"] = inputs.exclude.replace(",", " ").split()
    if isinstance(inputs.params, str) and inputs.params.strip():
        entry["params"] = object_from(inputs.params, name="params")
    elif isinstance(inputs.params, str):
        entry.pop("params", None)
    if before is not None:
        entry.setdefault("name", before.name)  # which the path of a program may give alone
    if isinstance(entry.get("params"), dict):
        original = before.params if before is not None else None
        entry["params"] = params_with_secrets(entry["params"], original or {})
    try:
        check_path(inputs.path)
    except InvalidValue as error:
        raise InvalidValue(str(error), path="path") from error
    definition = definition_from(entry)
    if before is not None and definition.name != before.name:
        raise InvalidValue("the name of a schedule cannot change: add another one", path="name")
    return definition


def fields_for(one: Definition | None) -> list[Field]:
    """The fields of a form, with the values of a definition."""

    def text(name: str) -> str:
        value = getattr(one, name) if one is not None else None
        return "" if value is None else str(value)

    def duration(name: str) -> str:
        value = getattr(one, name) if one is not None else None
        return "" if not value else duration_text(value)

    def moment(name: str) -> str:
        value = getattr(one, name) if one is not None else None
        return "" if value is None else str(iso(from_ms(value)))

    def choice(name: str, default: str) -> str:
        return "" if text(name) == default else text(name)

    params = json_source(redacted(one.params)) if one is not None and one.params else ""
    name = Field(
        name="name", label="Name", most=100, is_wide=True, hint="Empty: a name made of task and times."
    )
    days = [("", "each day"), *((str(number), day) for number, day in enumerate(_DAYS))]
    return [
        *([name] if one is None else []),
        Field(name="path", label="Task", value=text("path"), is_wide=True, required=True, most=1000),
        Field(name="interval", label="Every", value=duration("interval"), hint="Such as 30s, 15m or 1d.",
              most=20),
        Field(name="cron", label="Or by cron", value=text("cron"), hint="Such as */5 8-18 * * 1-5.",
              most=200),
        Field(name="dailytime", label="Or at a time of day", value=text("dailytime"), hint="Such as 08:30.",
              most=20),
        Field(name="weekday", label="On", kind="select", value=text("weekday"), options=days,
              hint="With a time of day."),
        Field(name="monthday", label="Or on day of the month", kind="number", value=text("monthday"), low=1,
              high=31),
        Field(name="timezone", label="Time zone", value=text("timezone"), hint="Empty: UTC.", most=100),
        Field(name="params", label="Params", kind="area", value=params, hint="A JSON object."),
        Field(name="queue", label="Queue", value=text("queue"), is_wide=True, most=200,
              hint="Empty: that of the task."),
        Field(name="priority", label="Priority", kind="number", value=text("priority"), low=-4, high=4),
        Field(name="missed", label="Missed fires", kind="select", value=choice("missed", "once"),
              options=_MISSED),
        Field(name="missed_limit", label="Most missed fires made up for", kind="number",
              value=choice("missed_limit", "100"), low=1, high=1000),
        Field(name="grace", label="A fire is missed after", value=duration("grace"), hint="Such as 10m.",
              most=20),
        Field(name="overlap", label="While its last job runs", kind="select",
              value=choice("overlap", "allow"), options=_OVERLAP),
        Field(name="jitter", label="Jitter", value=duration("jitter"), hint="Such as 30s.", most=20),
        Field(name="start", label="From", value=moment("start"), hint="Such as 2026-01-31T12:00.", most=40),
        Field(name="end", label="Until", value=moment("end"), hint="Such as 2026-12-31T12:00.", most=40),
        Field(name="exclude", label="Not on", value=", ".join(one.exclude) if one is not None else "",
              hint="Dates: 2026-12-25, 2026-12-26"),
        Field(name="pause_after", label="Pause after failures in a row", kind="number",
              value=choice("pause_after", "0"), low=0, high=20),
    ]  # fmt: skip
