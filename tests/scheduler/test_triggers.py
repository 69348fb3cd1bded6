"""Schedules fire when they should, in every zone, with clocks that go forward and back."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mrq_core.clock import from_ms, to_ms
from mrq_core.errors import InvalidValue
from mrq_core.scheduler.triggers import (
    BoundedTrigger,
    CalendarTrigger,
    IntervalTrigger,
    Trigger,
    cron_of,
    cron_trigger,
    cron_words,
    jitter_ms,
    on_every_day,
    on_monthday,
    on_weekday,
)
from mrq_core.scheduler.zones import zone_of
from tests.scheduler.oracle import Matches, Oracle, fixed, minutes, utc, wall_clock

ZONES = (
    *("Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Chatham"),
    *("Asia/Kolkata", "UTC"),
)
START, END = utc(2024), utc(2029)
DAY = timedelta(days=1)


def _weekday(wall: datetime) -> int:
    """The day of the week as cron counts: 0 is Sunday."""
    return (wall.weekday() + 1) % 7


WALL_CLOCK: dict[str, Matches] = {
    "*/30 * * * *": lambda w: w.minute % 30 == 0,
    "* 2 * * *": lambda w: w.hour == 2,
    "17 */3 * * *": lambda w: w.minute == 17 and w.hour % 3 == 0,
    "*/5 8-18 * * 1-5": lambda w: w.minute % 5 == 0 and 8 <= w.hour <= 18 and 1 <= _weekday(w) <= 5,
    "*/15 1,2 * 3,4,9-11 SUN": lambda w: (
        w.minute % 15 == 0 and w.hour in (1, 2) and w.month in (3, 4, 9, 10, 11) and _weekday(w) == 0
    ),
}
FIXED: dict[str, Matches] = {
    "15,45 2 * * *": lambda w: w.minute in (15, 45) and w.hour == 2,
    "0 1-3 * * *": lambda w: w.minute == 0 and 1 <= w.hour <= 3,
    "5,50 2,3 13 * FRI": lambda w: (
        w.minute in (5, 50) and w.hour in (2, 3) and (w.day == 13 or _weekday(w) == 5)
    ),
    "0 0 29 2 *": lambda w: (w.minute, w.hour, w.day, w.month) == (0, 0, 29, 2),
    "59 1 1 1 *": lambda w: (w.minute, w.hour, w.day, w.month) == (59, 1, 1, 1),
}


@pytest.fixture(params=ZONES, scope="module")
def zone(request: pytest.FixtureRequest) -> ZoneInfo:
    return zone_of(request.param)


Walked = list[list[tuple[int, datetime]]]


@pytest.fixture(
    params=["near changes", pytest.param("five years", marks=pytest.mark.campaign)], scope="module"
)
def walked(request: pytest.FixtureRequest, zone: ZoneInfo) -> Iterator[Walked]:
    """Spans of time, minute by minute: the days around each change of the zone's offset, the end of the year
    and of a February; or five whole years."""
    if request.param == "five years":
        yield [minutes(zone, START, END)]
        return
    days = [START + timedelta(days=number) for number in range((END - START).days)]
    changes = [
        day for day in days if day.astimezone(zone).utcoffset() != (day + DAY).astimezone(zone).utcoffset()
    ]
    assert len(changes) == (0 if zone.key in ("UTC", "Asia/Kolkata") else 10)
    chosen = [*changes, utc(2024, 2, 29), utc(2025, 2, 28), utc(2026, 1, 1)]
    yield [minutes(zone, day - 2 * DAY, day + 3 * DAY) for day in chosen]


def fires(trigger: Trigger, after_ms: int, until_ms: int) -> list[int]:
    """The fires in (after, until], in seconds."""
    found = []
    at = trigger.next_after(after_ms)
    while at is not None and at <= until_ms:
        found.append(at // 1000)
        at = trigger.next_after(at)
    return found


def check(trigger: Trigger, walked: Walked, oracle: Oracle, matches: Matches) -> None:
    """The trigger fires when the oracle says."""
    for span in walked:
        after, until = span[0][0] * 1000 - 1, span[-1][0] * 1000
        found, expected = fires(trigger, after, until), oracle(span, matches)
        differing = sorted(set(found) ^ set(expected))
        assert [datetime.fromtimestamp(at, ZoneInfo("UTC")).isoformat() for at in differing[:10]] == []
        assert found == expected, "in order, each once"
        assert trigger.number(after, until) == len(expected)
        assert trigger.latest(after, until, 500) == [at * 1000 for at in expected[-500:]]


@pytest.mark.parametrize("expression", WALL_CLOCK)
def test_expressions_that_follow_the_wall_clock_fire_as_the_oracle_says(
    zone: ZoneInfo, walked: Walked, expression: str
) -> None:
    check(cron_trigger(expression, zone), walked, wall_clock, WALL_CLOCK[expression])


@pytest.mark.parametrize("expression", FIXED)
def test_fixed_expressions_fire_as_the_oracle_says(zone: ZoneInfo, walked: Walked, expression: str) -> None:
    check(cron_trigger(expression, zone), walked, fixed, FIXED[expression])


def _at(hour: int, minute: int) -> tuple[int, ...]:
    return ((hour * 60 + minute) * 60_000,)


def test_daily_weekly_and_monthly_times_fire_as_the_oracle_says(zone: ZoneInfo, walked: Walked) -> None:
    daily = CalendarTrigger(on_every_day, _at(2, 10), zone)
    check(daily, walked, fixed, lambda w: (w.hour, w.minute) == (2, 10))
    weekly = CalendarTrigger(on_weekday(6), _at(1, 45), zone)
    check(weekly, walked, fixed, lambda w: (w.hour, w.minute) == (1, 45) and w.weekday() == 6)
    monthly = CalendarTrigger(on_monthday(31), _at(2, 30), zone)
    check(
        monthly,
        walked,
        fixed,
        lambda w: (w.hour, w.minute) == (2, 30) and w.day == calendar.monthrange(w.year, w.month)[1],
    )


def test_excluded_days_do_not_fire(zone: ZoneInfo, walked: Walked) -> None:
    excluded = frozenset(date(year, 12, day) for year in range(2024, 2029) for day in (24, 25, 31))
    trigger = cron_trigger("0 * * * *", zone, excluded)
    check(trigger, walked, wall_clock, lambda w: w.minute == 0 and w.date() not in excluded)


# --- clocks that go forward and back --------------------------------------------------------


def local(
    year: int,
    month: int,
    day: int,
    hour: int = 0,
    minute: int = 0,
    *,
    zone: str = "Europe/Berlin",
    fold: int = 0,
) -> int:
    return to_ms(datetime(year, month, day, hour, minute, tzinfo=zone_of(zone), fold=fold))


def test_a_fixed_time_in_a_gap_fires_at_the_first_valid_time() -> None:
    trigger = cron_trigger("30 2 29 3 *", zone_of("Europe/Berlin"))  # clocks jump from 2:00 to 3:00
    assert trigger.next_after(local(2026, 3, 1)) == local(2026, 3, 29, 3, 0)


def test_several_fixed_times_in_one_gap_fire_once() -> None:
    trigger = cron_trigger("10,20,40 2,3 29 3 *", zone_of("Europe/Berlin"))
    day = [local(2026, 3, 29, 3, minute) for minute in (0, 10, 20, 40)]
    assert fires(trigger, local(2026, 3, 29), local(2026, 3, 30)) == [at // 1000 for at in day]
    assert trigger.number(local(2026, 3, 29), local(2026, 3, 30)) == 4


def test_a_fixed_time_in_a_repeated_hour_fires_once_and_a_wildcard_twice() -> None:
    first, second = local(2026, 10, 25, 2, 30), local(2026, 10, 25, 2, 30, fold=1)
    assert second - first == 3_600_000
    trigger = cron_trigger("30 2 * * *", zone_of("Europe/Berlin"))
    assert trigger.next_after(local(2026, 10, 25)) == first
    assert trigger.next_after(first) == local(2026, 10, 26, 2, 30)
    trigger = cron_trigger("*/30 2 * * *", zone_of("Europe/Berlin"))
    assert trigger.next_after(first) == local(2026, 10, 25, 2, 0, fold=1)
    assert trigger.next_after(second) == local(2026, 10, 26, 2, 0)


def test_a_day_that_a_zone_leaves_out_fires_at_its_end() -> None:
    zone = zone_of("Pacific/Apia")  # 30 December 2011 does not exist there
    trigger = CalendarTrigger(on_every_day, _at(0, 0), zone)
    found = fires(trigger, local(2011, 12, 28, 12, zone=zone.key), local(2012, 1, 1, 12, zone=zone.key))
    days = [datetime.fromtimestamp(at, zone).date().isoformat() for at in found]
    assert days == ["2011-12-29", "2011-12-31", "2012-01-01"]
    assert trigger.number(local(2011, 12, 28, 12, zone=zone.key), local(2012, 1, 1, 12, zone=zone.key)) == 3


def test_clocks_that_go_back_over_midnight_lose_no_fire() -> None:
    zone = zone_of("America/St_Johns")  # on 7 November 2010 at 0:01, to 23:01 of the day before
    trigger = cron_trigger("*/30 * * * *", zone)
    start, end = utc(2010, 11, 6), utc(2010, 11, 9)
    expected = wall_clock(minutes(zone, start, end), lambda w: w.minute % 30 == 0)
    assert fires(trigger, to_ms(start) - 1, to_ms(end) - 60_000) == expected


# --- intervals, bounds and jitter -----------------------------------------------------------


def test_an_interval_is_elapsed_time() -> None:
    anchor = local(2026, 3, 28, 12)
    trigger = IntervalTrigger(86_400_000, anchor, zone_of("Europe/Berlin"))
    assert trigger.next_after(anchor - 1) == anchor
    assert trigger.next_after(anchor) == anchor + 86_400_000 == local(2026, 3, 29, 13)


@settings(max_examples=200, deadline=None)
@given(
    interval=st.integers(1_000, 10_000_000),
    after=st.integers(-(10**8), 10**8),
    length=st.integers(0, 10**8),
    most=st.integers(1, 50),
    days=st.sets(st.integers(0, 2), max_size=3),
)
def test_the_latest_and_the_number_of_intervals_are_those_found_one_by_one(
    interval: int, after: int, length: int, most: int, days: set[int]
) -> None:
    anchor = local(2026, 3, 28)
    excluded = frozenset(date(2026, 3, 28) + timedelta(days=day) for day in days)
    trigger = IntervalTrigger(interval, anchor, zone_of("Europe/Berlin"), excluded)
    after += anchor
    until = min(after + length, after + interval * 300)
    one_by_one = []
    at = trigger.next_after(after)
    while at is not None and at <= until:
        one_by_one.append(at)
        at = trigger.next_after(at)
    assert trigger.latest(after, until, most) == one_by_one[-most:]
    assert trigger.number(after, until) == len(one_by_one)
    grid = range(anchor, until + 1, interval)
    days_of = ZoneInfo("Europe/Berlin")
    assert one_by_one == [
        at for at in grid if at > after and datetime.fromtimestamp(at / 1000, days_of).date() not in excluded
    ]


def test_a_schedule_fires_from_its_start_to_its_end() -> None:
    inner = cron_trigger("0 12 * * *", zone_of("UTC"))
    start, end = to_ms(utc(2026, 5, 1, 12)), to_ms(utc(2026, 5, 3, 12))
    trigger = BoundedTrigger(inner, start, end)
    assert trigger.next_after(0) == start
    assert trigger.next_after(end - 1) == end
    assert trigger.next_after(end) is None
    assert trigger.number(0, 10**15) == len(trigger.latest(0, 10**15, 100)) == 3


def test_jitter_is_the_same_everywhere_and_spread() -> None:
    delays = [jitter_ms("report", fire, 60) for fire in range(0, 60_000_000, 60_000)]
    assert delays == [jitter_ms("report", fire, 60) for fire in range(0, 60_000_000, 60_000)]
    assert all(0 <= delay < 60_000 for delay in delays)
    assert min(delays) < 1000
    assert max(delays) > 59_000
    assert jitter_ms("other", 60_000, 60) != jitter_ms("report", 60_000, 60)
    assert jitter_ms("report", 60_000, 0) == 0


# --- expressions ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "expression",
    [
        *("", "x", "* * * *", "* * * * * *", "60 * * * *", "0 24 * * *", "0 0 32 * *", "0 0 0 * *"),
        *("0 0 * 13 *", "0 0 * * 8", "5-1 * * * *", "*/0 * * * *", "-1 * * * *", "\u0663 * * * *"),
        *("0 0 30 2 *", "0 0 31 4,6 *", "0 0 * * 1#6", "0 0 */31 2 1#5", "99999999999999999999 * * * *"),
        *("1-1000000000000 * * * *", "0 0 * * L", "@reboot", "* * * * *" * 100, "\0 * * * *", ",,, * * * *"),
    ],
)
def test_wrong_and_never_firing_expressions_are_refused(expression: str) -> None:
    with pytest.raises(InvalidValue, match=r"cron is .*expected minute, hour"):
        cron_of(expression)


def test_expressions_have_words_and_aliases() -> None:
    assert cron_words("*/5 8-18 * * 1-5") == (
        "Every fifth minute from 08:00 through 18:59 on Monday through Friday"
    )
    assert cron_trigger("@daily", zone_of("UTC")).next_after(0) == 86_400_000


def test_the_29th_of_february_is_found_over_a_century_year() -> None:
    trigger = cron_trigger("0 0 29 2 *", zone_of("UTC"))
    assert trigger.next_after(to_ms(utc(2096, 3))) == to_ms(utc(2104, 2, 29))


def test_the_end_of_the_calendar_is_no_error() -> None:
    trigger = cron_trigger("0 0 29 2 *", zone_of("UTC"))
    assert trigger.next_after(to_ms(utc(9998, 12, 1))) is None


def test_an_interval_ends_before_the_calendar() -> None:
    trigger = IntervalTrigger(3650 * 86_400_000, to_ms(utc(2026)), zone_of("UTC"))
    at: int | None = to_ms(utc(2026))
    found = []
    while at is not None:
        found.append(from_ms(at))
        at = trigger.next_after(at)
    assert 790 < len(found) < 800
    assert found[-1] > utc(9999, 12, 31) - timedelta(days=3650)


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati", "Etc/GMT+12", "Europe/Berlin"])
def test_triggers_fire_until_the_last_days_of_the_calendar(zone: str) -> None:
    trigger = cron_trigger("0 12 * * *", zone_of(zone))
    at, found = trigger.next_after(to_ms(utc(9999, 12, 20))), []
    while at is not None:
        found.append(from_ms(at))
        at = trigger.next_after(at)
    assert found[-1].date() >= date(9999, 12, 29)
    assert all(later - earlier == timedelta(days=1) for earlier, later in pairwise(found))
    last = to_ms(datetime.max.replace(tzinfo=UTC))
    assert trigger.next_after(last) is None
    bounded = BoundedTrigger(IntervalTrigger(60_000, last, zone_of(zone)), last, None)
    assert bounded.next_after(to_ms(utc(2026))) == last
    assert bounded.next_after(last) is None


def test_a_search_is_fast_also_near_a_change_of_the_clock() -> None:
    trigger = cron_trigger("* * * * *", zone_of("Europe/Berlin"))
    at: int | None = local(2026, 3, 28)
    started = time.process_time()
    for _ in range(3000):
        assert at is not None
        at = trigger.next_after(at)
    assert time.process_time() - started < 3
    started = time.process_time()
    assert trigger.number(to_ms(utc(2021)), to_ms(utc(2026))) == 365 * 5 * 1440 + 1440
    assert trigger.latest(0, to_ms(utc(2026)), 1) == [to_ms(utc(2026))]
    assert time.process_time() - started < 3


@pytest.mark.parametrize(
    "name", ["", "Mars/Olympus", "../../etc/passwd", "/etc/passwd", "Europe", "x" * 500, "a\0b", "\ud800"]
)
def test_zones_that_do_not_exist_are_refused(name: str) -> None:
    with pytest.raises(InvalidValue, match=r"timezone is .*expected the IANA name"):
        zone_of(name)
