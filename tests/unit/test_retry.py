"""When a failed attempt is made again, and after how long."""

from __future__ import annotations

import enum
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mrq_core.errors import RetryInterrupt
from mrq_core.running.context import current_context, retry_current_job
from mrq_core.tasks.retry import RetryRule


def test_without_backoff_every_retry_waits_as_long() -> None:
    rule = RetryRule(delay=3.0)
    assert [rule.delay_of(count) for count in range(4)] == [3.0, 3.0, 3.0, 3.0]


def test_with_backoff_each_retry_waits_longer() -> None:
    rule = RetryRule(delay=3.0, backoff=2.0)
    assert [rule.delay_of(count) for count in range(4)] == [3.0, 6.0, 12.0, 24.0]


@pytest.mark.parametrize("count", [10, 1000, 1_000_000])
def test_no_retry_waits_longer_than_max_delay(count: int) -> None:
    assert RetryRule(delay=3.0, backoff=2.0, max_delay=100.0).delay_of(count) == 100.0


def test_jitter_spreads_between_half_and_all() -> None:
    rule = RetryRule(delay=10.0, jitter=True)
    assert rule.delay_of(0, draw=lambda: 0.0) == 5.0
    assert rule.delay_of(0, draw=lambda: 0.5) == 7.5


@given(st.integers(min_value=0, max_value=10_000))
def test_with_jitter_the_delay_keeps_within_its_bounds(count: int) -> None:
    rule = RetryRule(delay=2.0, backoff=3.0, max_delay=500.0, jitter=True)
    full = RetryRule(delay=2.0, backoff=3.0, max_delay=500.0).delay_of(count)
    assert full / 2 <= rule.delay_of(count) <= full


def test_only_named_exceptions_are_retried() -> None:
    rule = RetryRule(retry_on=(OSError, KeyError))
    assert rule.decide(OSError()).retry
    assert rule.decide(ConnectionResetError()).retry
    assert not rule.decide(ValueError()).retry


def test_by_default_no_exception_is_retried() -> None:
    assert not RetryRule().decide(RuntimeError()).retry


def test_the_rule_leaves_the_delay_to_its_options() -> None:
    assert RetryRule(retry_on=(OSError,)).decide(OSError()).delay is None


class Seconds(float):
    """A float whose methods raise, as those of a faulty library do."""

    def __mul__(self, other: object) -> float:
        raise RuntimeError("no product")

    __repr__ = __mul__  # type: ignore[assignment]


class Count(enum.IntEnum):
    TWO = 2


def test_a_retry_is_asked_for_with_plain_numbers() -> None:
    running = current_context.set(SimpleNamespace(attempt=("job", 1)))  # type: ignore[arg-type]
    try:
        with pytest.raises(RetryInterrupt) as caught:
            retry_current_job(delay=Seconds(2.5), max_retries=Count.TWO)
    finally:
        current_context.reset(running)
    assert (caught.value.delay, caught.value.max_retries) == (2.5, 2)
    assert (type(caught.value.delay), type(caught.value.max_retries)) == (float, int)
