"""Time: timezone-aware UTC with millisecond resolution.

Code that needs the time receives a `Clock`, so that tests can set the time. Drivers with a
server use the time of the server for leases and due times; other drivers use the clock.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """A source of time. `now_ms` returns Unix time in whole milliseconds."""

    def now_ms(self) -> int: ...


class SystemClock:
    """The host's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


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


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
