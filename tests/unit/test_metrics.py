"""Histograms of metrics: their buckets, their percentiles and the error of these."""

from __future__ import annotations

import math
import random

import pytest

from mrq_core.clock import from_ms
from mrq_core.contract.metrics import (
    BUCKETS_PER_DOUBLING,
    ERROR,
    HIGHEST,
    LOWEST,
    MOST_TOTAL,
    Resolution,
    added,
    buckets_of,
    check_metrics,
    measured,
    percentile,
)


@pytest.mark.parametrize("bucket", [LOWEST + 1, -3, 0, 1, 7, HIGHEST])
def test_a_bucket_ends_with_its_bound(bucket: int) -> None:
    bound = 2 ** (bucket / BUCKETS_PER_DOUBLING)
    assert buckets_of([bound * (1 - 1e-9)]) == {bucket: 1}
    if bucket % BUCKETS_PER_DOUBLING == 0:  # a bound that a float holds exactly
        assert buckets_of([bound]) == {bucket: 1}
    assert buckets_of([bound * (1 + 1e-9)]) == {min(bucket + 1, HIGHEST): 1}


@pytest.mark.parametrize(
    ("value", "bucket"),
    [(0.0, LOWEST), (-1.0, LOWEST), (math.nan, LOWEST), (-math.inf, LOWEST), (5e-324, LOWEST),
     (math.inf, HIGHEST), (1e308, HIGHEST), (1, 0), (2, 4)],
)  # fmt: skip
def test_any_number_has_a_bucket(value: float, bucket: int) -> None:
    assert buckets_of([value]) == {bucket: 1}


def test_percentiles_are_within_their_error() -> None:
    rng = random.Random(1)
    for spread in (0.01, 1.0, 3.0):
        values = sorted(rng.lognormvariate(0, spread) for _ in range(1000))
        buckets = buckets_of(values)
        for ratio in (0.0, 0.5, 0.95, 0.99, 1.0):
            found = percentile(buckets, ratio)
            assert found == pytest.approx(values[int(ratio * 999)], rel=ERROR + 1e-9)


def test_an_empty_histogram_has_no_percentile_and_zeros_are_zero() -> None:
    assert percentile({}, 0.5) is None
    assert percentile(buckets_of([0.0] * 9 + [8.0]), 0.5) == 0.0
    assert percentile({3: 0}, 0.5) is None


def test_added_histograms_are_that_of_all_values() -> None:
    first, second = [0.1, 0.2, 5.0], [0.1, 9.0]
    assert added([buckets_of(first), buckets_of(second)]) == buckets_of(first + second)
    assert added([]) == {}


def test_values_that_a_broken_clock_gives_are_recorded_as_zero_or_the_largest() -> None:
    metric = measured("jobs", from_ms(0), (), [1.0, -5.0, math.nan, math.inf])
    assert (metric.count, metric.total) == (4, MOST_TOTAL)
    assert metric.buckets == {0: 1, LOWEST: 2, HIGHEST: 1}
    check_metrics([metric, measured("jobs", from_ms(0), (), [])])


def test_a_roll_up_begins_with_its_minute_or_hour() -> None:
    moment = from_ms(7_265_999)
    assert Resolution.MINUTE.start_of(moment) == from_ms(7_260_000)
    assert Resolution.HOUR.start_of(moment) == from_ms(7_200_000)
    assert Resolution.HOUR.start_of(from_ms(-1)) == from_ms(-3_600_000)
