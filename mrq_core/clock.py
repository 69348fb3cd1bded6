"""Time: timezone-aware UTC with millisecond resolution.

Code that needs the time receives a `Clock`, so that tests can set the time. Drivers with a
server use the time of the server for leases and due times; other drivers use the clock.

All code of mrq reads the clocks of the machine from here. Tasks, and tests of programs that enqueue, stop and
set the clocks of their process: freezegun replaces the functions of `time` in every module that names them,
and time-machine replaces what they do. Neither may end the jobs of others, or keep a caller waiting for ever.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial
from typing import Any, Protocol


def _machine(name: str) -> Callable[[], Any]:
    """A function of `time`, even if freezegun has replaced it before mrq was imported. It finds functions in
    modules by identity, and therefore not in a `partial`."""
    return partial(getattr(sys.modules.get("freezegun.api"), f"real_{name}", None) or getattr(time, name))


monotonic: Callable[[], float] = _machine("monotonic")
"""Seconds that go on evenly."""
_time_ns: Callable[[], int] = _machine("time_ns")
DATETIMES: tuple[type[datetime], ...] = tuple(
    kind for kind in datetime.__mro__ if issubclass(kind, datetime) and kind.__qualname__ == "datetime"
)
"""The type itself, for libraries that compare types by identity: freezegun replaces it by a derived one."""


def now_ms() -> int:
    """Unix time in whole milliseconds, by the host's clock."""
    travels = sys.modules.get("time_machine")
    if travels is not None and hasattr(travels, "escape_hatch"):
        with suppress(ValueError):  # it has just ended
            return int(travels.escape_hatch.time.time_ns()) // 1_000_000
    return _time_ns() // 1_000_000


class Clock(Protocol):
    """A source of time. `now_ms` returns Unix time in whole milliseconds."""

    def now_ms(self) -> int: ...


class SystemClock:
    """The host's clock."""

    def now_ms(self) -> int:
        return now_ms()


def from_ms(milliseconds: int) -> datetime:
    """The aware datetime of a Unix time in milliseconds, exact to the millisecond."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def to_ms(moment: datetime) -> int:
    """Unix time in milliseconds; smaller fractions are dropped.

    Raises ValueError for a naive datetime, whose meaning depends on the machine.
    """
    if moment.tzinfo is None:
        raise ValueError(
            f"the time {moment.isoformat()} has no timezone: expected an aware datetime, "
            "such as datetime.now(timezone.utc)"
        )
    return int((moment - _EPOCH) // _MILLISECOND)


def after(moment: datetime, seconds: float) -> datetime:
    """The moment plus `seconds`. Exact to the millisecond if `moment` is."""
    return moment + _delta(seconds)


_UNITS = ((86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1000, "s"), (1, "ms"))
_SINGLE = {"1 d": "day", "1 h": "hour", "1 min": "minute", "1 s": "second"}


def span_words(seconds: float) -> str:
    """A duration for people, exact to the millisecond: ``15 min``, ``1 h 30 min``."""
    left, parts = round(seconds * 1000), []
    for size, unit in _UNITS:
        number, left = divmod(left, size)
        parts += [f"{number:,} {unit}"] if number else []
    return " ".join(parts) or "0 s"


def period_words(seconds: float) -> str:
    """A duration as `span_words`, to follow ``every`` or ``per``: ``hour``, ``15 min``."""
    words = span_words(seconds)
    return _SINGLE.get(words, words)


@lru_cache(maxsize=256)
def _delta(seconds: float) -> timedelta:
    """Cached, because most calls use the same few leases and retention times."""
    return timedelta(milliseconds=round(seconds * 1000))


_EPOCH = DATETIMES[0](1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
