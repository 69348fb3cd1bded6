"""The times at which schedules fire, as Unix milliseconds. Pure functions of definition and time.

A calendar trigger has days and times of day in a time zone. Its times are fixed, or follow the wall clock:

| | in a gap of the wall clock | in a repeated hour |
|---|---|---|
| fixed times | fires at the first valid time after the gap | fires in the first pass |
| wall clock | does not fire | fires in both passes |

These are the rules of Debian's cron: an expression whose minutes or hours begin with ``*`` follows the wall
clock, and all other triggers are fixed. An interval is elapsed time, which no zone changes.
"""

from __future__ import annotations

import calendar
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Protocol
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from mrq_core.clock import to_ms
from mrq_core.errors import InvalidValue, shown
from mrq_core.scheduler.zones import first_pass_of, passes_of, steady_midnight, wall_of

NEVER_AFTER_DAYS = 50 * 366
"""The days in which a trigger looks for its next time. A longer search finds nothing, as in cronsim."""
EXPRESSION_MAX = 200
"""The most characters of a cron expression."""
_DAY = timedelta(days=1)
_MIDNIGHT = time()
_LAST_DAY = date(9999, 12, 31)
_LAST_MS = to_ms(datetime.combine(_LAST_DAY, time.max, UTC))
"""Python's calendar ends here."""
_ALIASES = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Trigger(Protocol):
    """The times at which a schedule fires."""

    def next_after(self, moment_ms: int) -> int | None:
        """The first time after this moment. None: there is none."""

    def latest(self, after_ms: int, until_ms: int, most: int) -> list[int]:
        """The last `most` times after `after_ms` and up to `until_ms`, in order."""

    def number(self, after_ms: int, until_ms: int) -> int:
        """The number of times after `after_ms` and up to `until_ms`."""


# --- intervals ------------------------------------------------------------------------------


class IntervalTrigger:
    """Fires at the anchor and then each `interval_ms`, except on the excluded days of the zone."""

    def __init__(
        self, interval_ms: int, anchor_ms: int, zone: ZoneInfo, excluded: frozenset[date] = frozenset()
    ) -> None:
        self._interval = interval_ms
        self._anchor = anchor_ms
        self._zone = zone
        self._excluded = excluded
        self._spans = [(_start_of(day, zone), _start_of(day + _DAY, zone)) for day in sorted(excluded)]

    def next_after(self, moment_ms: int) -> int | None:
        moment = max(moment_ms, self._anchor - 1)
        for _ in range(len(self._excluded) + 1):
            found = self._anchor + ((moment - self._anchor) // self._interval + 1) * self._interval
            if found > _LAST_MS:
                break
            span = self._span_around(found)
            if span is None:
                return found
            moment = span[1] - 1
        return None

    def latest(self, after_ms: int, until_ms: int, most: int) -> list[int]:
        found: list[int] = []
        at = until_ms - (until_ms - self._anchor) % self._interval
        while at > after_ms and at >= self._anchor and len(found) < most:
            span = self._span_around(at)
            if span is None:
                found.append(at)
                at -= self._interval
            else:
                before = span[0] - 1
                at = before - (before - self._anchor) % self._interval
        return found[::-1]

    def number(self, after_ms: int, until_ms: int) -> int:
        number = self._on_grid(after_ms, until_ms)
        for start, end in self._spans:
            number -= self._on_grid(max(after_ms, start - 1), min(until_ms, end - 1))
        return number

    def _on_grid(self, after_ms: int, until_ms: int) -> int:
        after_ms = max(after_ms, self._anchor - 1)
        if until_ms <= after_ms:
            return 0
        return (until_ms - self._anchor) // self._interval - (after_ms - self._anchor) // self._interval

    def _span_around(self, moment_ms: int) -> tuple[int, int] | None:
        index = bisect_right(self._spans, (moment_ms, 1 << 62)) - 1
        return self._spans[index] if index >= 0 and moment_ms < self._spans[index][1] else None


def _start_of(day: date, zone: ZoneInfo) -> int:
    return first_pass_of(datetime.combine(day, _MIDNIGHT), zone)


# --- calendars ------------------------------------------------------------------------------


class CalendarTrigger:
    """Fires on the days for which `is_on` is true, at `times`: milliseconds of the day, ascending.

    `follows_wall_clock`: fires in both passes of a repeated hour, and not in a gap.
    """

    def __init__(
        self,
        is_on: Callable[[date], bool],
        times: tuple[int, ...],
        zone: ZoneInfo,
        *,
        follows_wall_clock: bool = False,
        excluded: frozenset[date] = frozenset(),
    ) -> None:
        self._is_on = is_on
        self._times = times
        self._zone = zone
        self._follows_wall_clock = follows_wall_clock
        self._excluded = excluded

    def next_after(self, moment_ms: int) -> int | None:
        found: int | None = None
        try:
            day = wall_of(moment_ms, self._zone).date() - _DAY
            for _ in range(NEVER_AFTER_DAYS):
                at = self._first_on(day, moment_ms)
                if found is not None:  # clocks that go back over midnight mix the times of two days
                    return found if at is None else min(found, at)
                found = at
                day += _DAY
        except OverflowError:  # the end of the calendar, which zones reach up to two days earlier
            pass
        return found

    def latest(self, after_ms: int, until_ms: int, most: int) -> list[int]:
        found: set[int] = set()
        is_enough = False
        for day in self._days_back(after_ms, until_ms):
            found.update(self._latest_on(day, after_ms, until_ms, most))
            if is_enough:
                break
            is_enough = len(found) >= most
        return sorted(found)[-most:]

    def number(self, after_ms: int, until_ms: int) -> int:
        number = 0
        unsteady: set[int] = set()  # two days may share the end of a gap
        for day in self._days_back(after_ms, until_ms):
            if self._is_fire_day(day):
                midnight = steady_midnight(day, self._zone)
                if midnight is None:
                    unsteady.update(at for at in self._unsteady(day) if after_ms < at <= until_ms)
                else:
                    number += self._until(until_ms - midnight) - self._until(after_ms - midnight)
        return number + len(unsteady)

    def _first_on(self, day: date, moment_ms: int) -> int | None:
        if not self._is_fire_day(day):
            return None
        midnight = steady_midnight(day, self._zone)
        if midnight is None:
            return next((at for at in self._unsteady(day) if at > moment_ms), None)
        index = self._until(moment_ms - midnight)
        return midnight + self._times[index] if index < len(self._times) else None

    def _latest_on(self, day: date, after_ms: int, until_ms: int, most: int) -> list[int]:
        if not self._is_fire_day(day):
            return []
        midnight = steady_midnight(day, self._zone)
        if midnight is None:
            return [at for at in self._unsteady(day) if after_ms < at <= until_ms][-most:]
        first, last = self._until(after_ms - midnight), self._until(until_ms - midnight)
        return [midnight + time_ms for time_ms in self._times[max(first, last - most) : last]]

    def _until(self, time_ms: int) -> int:
        """The number of times of a day up to this one."""
        return bisect_right(self._times, time_ms)

    def _unsteady(self, day: date) -> tuple[int, ...]:
        return _unsteady_times(self._times, day, self._zone, self._follows_wall_clock)

    def _days_back(self, after_ms: int, until_ms: int) -> Iterator[date]:
        """All days that may have times between the two, the last one first."""
        day = wall_of(until_ms, self._zone).date() + _DAY
        first = wall_of(after_ms, self._zone).date() - _DAY
        while day >= first:
            yield day
            day -= _DAY

    def _is_fire_day(self, day: date) -> bool:
        return day not in self._excluded and self._is_on(day)


@lru_cache(maxsize=256)
def _unsteady_times(
    times: tuple[int, ...], day: date, zone: ZoneInfo, follows_wall_clock: bool
) -> tuple[int, ...]:
    """The times of a day near which the zone changes its offset."""
    found: set[int] = set()
    start = datetime.combine(day, _MIDNIGHT)
    for time_ms in times:
        wall = start + timedelta(milliseconds=time_ms)
        if follows_wall_clock:
            found.update(passes_of(wall, zone))
        else:
            found.add(first_pass_of(wall, zone))
    return tuple(sorted(found))


def on_weekday(weekday: int) -> Callable[[date], bool]:
    """The days that are this weekday; 0 is Monday."""
    return lambda day: day.weekday() == weekday


def on_monthday(monthday: int) -> Callable[[date], bool]:
    """This day of each month, or the last day of a shorter month."""
    return lambda day: day.day == min(monthday, calendar.monthrange(day.year, day.month)[1])


def on_every_day(day: date) -> bool:
    """Every day."""
    return True


# --- cron expressions -----------------------------------------------------------------------


@lru_cache(maxsize=1024)
def cron_of(expression: str) -> CronSim:
    """The parsed expression. Raises InvalidValue, also for an expression that never fires."""
    text = _ALIASES.get(expression.strip().lower(), expression)
    problem = ""
    if len(text) > EXPRESSION_MAX:
        problem = f"more than {EXPRESSION_MAX} characters"
    elif len(text.split()) != 5:
        problem = f"{len(text.split())} fields"
    else:
        try:
            parsed = CronSim(text, datetime.combine(date(2024, 1, 1), _MIDNIGHT))
            next(parsed)
            return parsed
        except CronSimError as error:
            problem = str(error)
        except StopIteration:
            problem = "no time at which it fires"
        except (ValueError, AssertionError, RecursionError, IndexError, KeyError, TypeError) as error:
            problem = f"{type(error).__name__}: {error}"
    raise InvalidValue(
        f"cron is {shown(expression)} ({problem}): expected minute, hour, day of the month, month and day of "
        "the week, such as '*/5 8-18 * * 1-5'",
        path="cron",
    )


def cron_words(expression: str) -> str:
    """The expression in words, such as ``At 08:00 on Monday``."""
    return cron_of(expression).explain()


def cron_trigger(expression: str, zone: ZoneInfo, excluded: frozenset[date] = frozenset()) -> CalendarTrigger:
    """The trigger of a cron expression. Raises InvalidValue."""
    cron = cron_of(expression)
    _, minutes, hours, *_ = cron.parts
    return CalendarTrigger(
        _days_of(expression),
        _times_of(frozenset(cron.hours), frozenset(cron.minutes)),
        zone,
        follows_wall_clock=minutes.startswith("*") or hours.startswith("*"),
        excluded=excluded,
    )


def _days_of(expression: str) -> Callable[[date], bool]:
    cron = cron_of(expression)
    return lambda day: day.month in cron.months and cron.match_day(day)


@lru_cache(maxsize=256)
def _times_of(hours: frozenset[int], minutes: frozenset[int]) -> tuple[int, ...]:
    return tuple((hour * 60 + minute) * 60_000 for hour in sorted(hours) for minute in sorted(minutes))


# --- bounds and jitter ----------------------------------------------------------------------


class BoundedTrigger:
    """The times of another trigger from `start_ms` on and up to `end_ms`."""

    def __init__(self, trigger: Trigger, start_ms: int | None, end_ms: int | None) -> None:
        self._trigger = trigger
        self._start = -(1 << 62) if start_ms is None else start_ms - 1
        self._end = 1 << 62 if end_ms is None else end_ms

    def next_after(self, moment_ms: int) -> int | None:
        if moment_ms >= self._end:
            return None
        found = self._trigger.next_after(max(moment_ms, self._start))
        return None if found is None or found > self._end else found

    def latest(self, after_ms: int, until_ms: int, most: int) -> list[int]:
        return self._trigger.latest(max(after_ms, self._start), min(until_ms, self._end), most)

    def number(self, after_ms: int, until_ms: int) -> int:
        after_ms, until_ms = max(after_ms, self._start), min(until_ms, self._end)
        return self._trigger.number(after_ms, until_ms) if after_ms < until_ms else 0


def jitter_ms(schedule: str, fire_ms: int, most_seconds: float) -> int:
    """The delay of this fire, from 0 to `most_seconds`: the same in every process, and spread evenly by
    SHA-256."""
    if most_seconds <= 0:
        return 0
    digest = hashlib.sha256(f"{fire_ms}:{schedule}".encode()).digest()
    return int(int.from_bytes(digest[:8]) / 2**64 * most_seconds * 1000)
