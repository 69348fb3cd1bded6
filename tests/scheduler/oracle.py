"""When schedules fire, found minute by minute: the oracle that triggers are compared with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

Matches = Callable[[datetime], bool]
"""Whether a schedule fires when the wall clock shows this minute."""

Oracle = Callable[[list[tuple[int, datetime]], Matches], list[int]]

_MINUTE = timedelta(minutes=1)


def minutes(zone: ZoneInfo, start: datetime, end: datetime) -> list[tuple[int, datetime]]:
    """Each minute from start to end as Unix seconds, with what the wall clock shows."""
    first, last = int(start.timestamp()), int(end.timestamp())
    fromtimestamp = datetime.fromtimestamp
    return [(at, fromtimestamp(at, zone).replace(tzinfo=None)) for at in range(first, last, 60)]


def wall_clock(walked: list[tuple[int, datetime]], matches: Matches) -> list[int]:
    """The fires of a schedule that follows the wall clock: at each minute that matches."""
    return [at for at, wall in walked if matches(wall)]


def fixed(walked: list[tuple[int, datetime]], matches: Matches) -> list[int]:
    """The fires of fixed times: when the wall clock first passes a minute that matches, or jumps over it."""
    found = []
    latest = walked[0][1] - _MINUTE
    for at, wall in walked:
        if wall > latest:
            passed = latest + _MINUTE
            while passed <= wall:
                if matches(passed):
                    found.append(at)
                    break
                passed += _MINUTE
            latest = wall
    return found


def utc(year: int, month: int = 1, day: int = 1, hour: int = 0, minute: int = 0) -> datetime:
    return datetime(year, month, day, hour, minute, tzinfo=UTC)
