"""The wall clock of a time zone, as Unix milliseconds.

A zone is taken to change its offset at most once in 30 hours.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from mrq_core.clock import from_ms, to_ms
from mrq_core.errors import InvalidValue, shown

DAY_MS = 86_400_000
_MARGIN_MS = 3 * 3_600_000
"""The most by which clocks go back, in the search for an offset that is constant through a day."""
_NAME_MAX = 100


@lru_cache(maxsize=256)
def zone_of(name: str) -> ZoneInfo:
    """The zone with this IANA name. Raises InvalidValue."""
    try:
        if not 0 < len(name) <= _NAME_MAX or not name.isprintable():
            raise ValueError(name)
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InvalidValue(
            f"timezone is {shown(name)}: expected the IANA name of a zone, such as 'Europe/Berlin' or 'UTC'",
            path="timezone",
        ) from None


def wall_of(moment_ms: int, zone: ZoneInfo) -> datetime:
    """The wall clock at this time, as a naive datetime."""
    return from_ms(moment_ms).astimezone(zone).replace(tzinfo=None)


def passes_of(wall: datetime, zone: ZoneInfo) -> list[int]:
    """The times at which the wall clock shows this: none in a gap, two in a repeated hour."""
    found = []
    for fold in (0, 1):
        utc = wall.replace(tzinfo=zone, fold=fold).astimezone(UTC)
        if utc.astimezone(zone).replace(tzinfo=None) == wall:
            found.append(to_ms(utc))
    return sorted(set(found))


def first_pass_of(wall: datetime, zone: ZoneInfo) -> int:
    """The first time at which the wall clock shows this, or the first valid time after the gap around it."""
    passes = passes_of(wall, zone)
    return passes[0] if passes else _gap_end(wall, zone)


def _gap_end(wall: datetime, zone: ZoneInfo) -> int:
    """The end of the gap, by bisection: fold 1 of a wall time in a gap is before the gap, and fold 0 after
    it (PEP 495)."""
    before = to_ms(wall.replace(tzinfo=zone, fold=1).astimezone(UTC))
    after = to_ms(wall.replace(tzinfo=zone, fold=0).astimezone(UTC))
    offset = _offset_ms(after, zone)
    while after - before > 1:
        middle = (before + after) // 2
        if _offset_ms(middle, zone) == offset:
            after = middle
        else:
            before = middle
    return after


def steady_midnight(day: date, zone: ZoneInfo) -> int | None:
    """The time of midnight, if the zone keeps its offset from three hours before the day to three hours after
    it. None: the wall clock has a gap or a repeated hour near this day."""
    midnight = datetime(day.year, day.month, day.day, tzinfo=UTC)
    if zone.key == "UTC":
        return to_ms(midnight)
    first = midnight.replace(tzinfo=zone) - timedelta(milliseconds=_MARGIN_MS)
    last = midnight.replace(tzinfo=zone) + timedelta(milliseconds=DAY_MS + _MARGIN_MS)
    offset = first.utcoffset()
    if offset is None or offset != last.utcoffset():
        return None
    return to_ms(midnight) - round(offset.total_seconds() * 1000)


def _offset_ms(moment_ms: int, zone: ZoneInfo) -> int:
    offset = from_ms(moment_ms).astimezone(zone).utcoffset()
    return 0 if offset is None else round(offset.total_seconds() * 1000)
