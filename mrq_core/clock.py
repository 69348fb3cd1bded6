"""Time: timezone-aware UTC with millisecond resolution.

A `Clock` is passed to whatever needs the time, so that tests can set it. Drivers that own a
server use the server's time for leases and due times; the clock is what the others use.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Protocol


class Clock(Protocol):
    """Tells the time. `now_ms` is Unix time in whole milliseconds."""

    def now_ms(self) -> int: ...


class SystemClock:
    """The host's clock."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


def from_ms(milliseconds: int) -> datetime:
    """The aware datetime of a Unix time in milliseconds, exact to the millisecond."""
    return _EPOCH + timedelta(milliseconds=milliseconds)


def to_ms(moment: datetime) -> int:
    """Unix time in milliseconds; digits below a millisecond are dropped.

    Raises ValueError for a naive datetime, whose meaning depends on the machine it is read on.
    """
    if moment.tzinfo is None:
        raise ValueError(
            f"the time {moment.isoformat()} has no timezone: expected an aware datetime, "
            "such as datetime.now(timezone.utc)"
        )
    return int((moment - _EPOCH) // _MILLISECOND)


def after(moment: datetime, seconds: float) -> datetime:
    """The moment that many seconds later. Exact to the millisecond if `moment` is."""
    return moment + _delta(seconds)


@lru_cache(maxsize=256)
def _delta(seconds: float) -> timedelta:
    """Most calls are about a lease or a ttl of the configuration, again and again."""
    return timedelta(milliseconds=round(seconds * 1000))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
