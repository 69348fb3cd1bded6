"""The end of a pause, as forms and programs give it, and in words. Queues and tasks share it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from msgspec import Meta

from mrq_core.clock import after
from mrq_core.errors import InvalidValue
from mrq_core.operations.queries.filters import duration_from, time_from
from mrq_dashboard.acting import Field
from mrq_dashboard.inputs import Duration
from mrq_dashboard.visit import Visit

Until = Annotated[
    str, Meta(max_length=100, description="The end of the pause in ISO 8601; UTC if it names no zone.")
]
Length = Annotated[Duration, Meta(description="The length of the pause: 90s, 15m, 2h, 1d.")]
FIELDS = (
    Field(
        name="duration",
        label="For",
        hint="Such as 90s, 15m, 2h or 1d. Empty: until it is resumed.",
        most=20,
    ),
    Field(name="until", label="Or until (UTC)", kind="datetime-local"),
)
"""The fields of a form that pauses."""


def end_of(visit: Visit, until: str, duration: Duration) -> datetime | None:
    """The end of the pause by the broker's clock. None: it has no end. Raises InvalidValue."""
    if until and duration != "":
        raise InvalidValue("until and duration are both given: a pause has one end", path="until")
    if duration != "":
        return after(visit.now, duration_from(duration, name="duration"))
    return time_from(until, name="until") if until else None


def until_words(end: datetime | None) -> str:
    """The end for a sentence, such as `` until 2026-11-29 12:00:00 UTC``."""
    return " until it is resumed" if end is None else f" until {end:%Y-%m-%d %H:%M:%S} UTC"
