"""Time: aware, UTC, exact to the millisecond."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrq_core.clock import SystemClock, after, from_ms, period_words, span_words, to_ms
from mrq_core.testing import ManualClock

MOMENTS = st.integers(min_value=0, max_value=4_102_444_800_000)


@given(MOMENTS)
def test_milliseconds_come_back_as_they_were(milliseconds: int) -> None:
    assert to_ms(from_ms(milliseconds)) == milliseconds


@given(MOMENTS)
def test_times_are_utc(milliseconds: int) -> None:
    assert from_ms(milliseconds).tzinfo is UTC


def test_times_before_1970_are_exact_too() -> None:
    assert from_ms(-1) == datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    assert to_ms(from_ms(-1)) == -1


def test_digits_below_a_millisecond_are_dropped() -> None:
    assert to_ms(datetime(1970, 1, 1, 0, 0, 0, 1999, tzinfo=UTC)) == 1


def test_other_timezones_mean_the_same_moment() -> None:
    moment = datetime(1970, 1, 1, 2, 0, tzinfo=timezone(timedelta(hours=2)))
    assert to_ms(moment) == 0


def test_a_time_without_timezone_is_refused() -> None:
    with pytest.raises(ValueError, match="no timezone"):
        to_ms(datetime(2025, 1, 1))  # noqa: DTZ001


@given(MOMENTS, st.integers(min_value=-(10**9), max_value=10**9))
def test_after_is_exact_to_the_millisecond(start: int, milliseconds: int) -> None:
    assert to_ms(after(from_ms(start), milliseconds / 1000)) == start + milliseconds


def test_the_system_clock_tells_unix_time() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= SystemClock().now_ms() <= time.time_ns() // 1_000_000


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    clock = ManualClock(5000)
    assert clock.now_ms() == clock.now_ms() == 5000
    clock.advance(1.5)
    assert clock.now_ms() == 6500
    assert clock.now() == from_ms(6500)


def test_a_manual_clock_does_not_go_back() -> None:
    with pytest.raises(ValueError, match="expected 0 or more"):
        ManualClock().advance(-1)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"), (0.25, "250 ms"), (1.0, "1 s"), (90.0, "1 min 30 s"), (900.0, "15 min"),
        (5400.0, "1 h 30 min"), (86_400.0, "1 d"),
        (1_234_567.0, "14 d 6 h 56 min 7 s"), (8.64e10, "1,000,000 d"),
    ],
)  # fmt: skip
def test_a_duration_has_exact_words(seconds: float, words: str) -> None:
    assert span_words(seconds) == words


def test_a_period_of_one_unit_is_named_without_its_number() -> None:
    assert [period_words(one) for one in (1, 60, 3600, 86_400, 7200)] == [
        "second", "minute", "hour", "day", "2 h",
    ]  # fmt: skip
