"""Metrics: measurements that are added up by minute and by hour."""

from __future__ import annotations

import math
import random
from datetime import datetime
from typing import Any

import pytest

from mrq_core.clock import after, from_ms
from mrq_core.contract.broker import Broker
from mrq_core.contract.metrics import (
    ERROR,
    MOST_CHARACTERS,
    Metric,
    Resolution,
    Tags,
    added,
    buckets_of,
    percentile,
)
from mrq_core.errors import InvalidValue
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import BrokerFactory, Contract, run_in_threads

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
ODD_TEXTS = [
    "",
    "a b",
    "$x",
    "a.b",
    "ü",
    "%",
    "'",
    '"',
    "a:b",
    "\0",
    "a\0b",
    "😀",
    "0",
    "\\",
    "x" * MOST_CHARACTERS,
]


def measured(name: str, at: datetime, *values: float, tags: Tags = ()) -> Metric:
    """The metric of these values."""
    return Metric(
        name=name, at=at, tags=tags, count=len(values), total=sum(values), buckets=buckets_of(values)
    )


def counted(name: str, at: datetime, count: int = 1, tags: Tags = ()) -> Metric:
    """The metric of events without values."""
    return Metric(name=name, at=at, tags=tags, count=count)


class MetricContract(Contract):
    """What record_metrics and read_metrics promise."""

    @pytest.fixture(autouse=True)
    def _needs_metrics(self) -> None:
        if not self.supports_metrics:
            pytest.skip("this driver keeps no metrics")

    @pytest.fixture
    def hour(self, clock: ManualClock) -> datetime:
        """The start of an hour."""
        return from_ms(clock.now_ms() // 3_600_000 * 3_600_000)

    def test_metrics_of_a_minute_are_added_up(self, broker: Broker, hour: datetime) -> None:
        broker.record_metrics([measured("jobs", hour, 1.0, 0.25), measured("jobs", after(hour, 59.999), 1.0)])
        broker.record_metrics([measured("jobs", after(hour, 30), 8.0)])
        [rolled] = broker.read_metrics(["jobs"], hour, after(hour, MINUTE))
        assert rolled == measured("jobs", hour, 1.0, 0.25, 1.0, 8.0)
        assert rolled.mean == 10.25 / 4

    def test_metrics_are_added_up_by_hour_too(self, broker: Broker, hour: datetime) -> None:
        for minute in (0, 1, 59, 60):
            broker.record_metrics([measured("jobs", after(hour, minute * MINUTE), float(minute))])
        rolled = broker.read_metrics(["jobs"], hour, after(hour, 2 * HOUR), Resolution.HOUR)
        assert rolled == [measured("jobs", hour, 0.0, 1.0, 59.0), measured("jobs", after(hour, HOUR), 60.0)]

    def test_roll_ups_are_kept_apart_and_come_oldest_first(self, broker: Broker, hour: datetime) -> None:
        for number in (2, 0, 1):
            broker.record_metrics([measured("jobs", after(hour, number * MINUTE), float(number))])
        rolled = broker.read_metrics(["jobs"], hour, after(hour, 3 * MINUTE))
        assert [(one.at, one.total) for one in rolled] == [
            (after(hour, number * MINUTE), number) for number in range(3)
        ]

    def test_names_come_in_their_order(self, broker: Broker, hour: datetime) -> None:
        for name in ("b", "a", "B", "a.b"):
            broker.record_metrics(
                [counted(name, after(hour, number * MINUTE), 1 + number) for number in (1, 0)]
            )
        read = broker.read_metrics(["b", "a.b", "a", "B"], hour, after(hour, HOUR))
        assert [(one.name, one.count) for one in read] == [
            (name, number) for name in ("B", "a", "a.b", "b") for number in (1, 2)
        ]

    def test_only_the_span_and_the_names_that_were_asked_for_are_read(
        self, broker: Broker, hour: datetime
    ) -> None:
        for number in range(-2, 3):
            at = after(hour, number * MINUTE)
            broker.record_metrics([counted("a", at, 3 + number), counted("b", at, 10), counted("a.b", at)])
        read = broker.read_metrics(["a", "b"], hour, after(hour, MINUTE))
        assert [(one.name, one.count) for one in read] == [("a", 3), ("b", 10)]
        assert broker.read_metrics(["c"], after(hour, -HOUR), after(hour, HOUR)) == []
        assert broker.read_metrics([], after(hour, -HOUR), after(hour, HOUR)) == []
        assert len(broker.read_metrics(["a"], after(hour, -HOUR), after(hour, HOUR))) == 5
        assert len(broker.read_metrics(["a", "a"], after(hour, -HOUR), after(hour, HOUR))) == 5

    def test_a_roll_up_is_in_the_span_if_its_beginning_is(self, broker: Broker, hour: datetime) -> None:
        broker.record_metrics([counted("a", hour)])
        for resolution in Resolution:

            def found(since: float, until: float, resolution: Resolution = resolution) -> int:
                return len(broker.read_metrics(["a"], after(hour, since), after(hour, until), resolution))

            assert found(0, 0.001) == 1
            assert found(-5 * HOUR, 0.001) == 1
            assert found(-5 * HOUR, 0) == found(0.001, HOUR) == 0

    @pytest.mark.parametrize("resolution", list(Resolution))
    def test_spans_of_every_length_are_read_oldest_first(
        self, broker: Broker, hour: datetime, resolution: Resolution
    ) -> None:
        """Drivers may store the roll-ups of an hour, or of a day, together."""
        series: list[Tags] = [(("task", name),) for name in "abc"]
        at = [after(hour, number * resolution.seconds) for number in range(130)]
        broker.record_metrics(
            [
                counted("m", moment, 1 + number, tags)
                for number, moment in enumerate(at)
                for index, tags in enumerate(series)
                if number % (index + 1) == 0
            ]
        )
        for first, end in (
            (0, 130),
            (5, 6),
            (0, 60),
            (50, 70),
            (59, 60),
            (60, 61),
            (1, 129),
            (23, 49),
            (7, 67),
        ):
            read = broker.read_metrics(["m"], at[first], after(at[end - 1], 1), resolution)
            assert [one.at for one in read] == sorted(one.at for one in read)
            assert sorted((one.count - 1, one.tags) for one in read) == [
                (number, tags)
                for number in range(first, end)
                for index, tags in enumerate(series)
                if number % (index + 1) == 0
            ]

    def test_a_span_that_ends_before_it_begins_is_empty(self, broker: Broker, hour: datetime) -> None:
        broker.record_metrics([counted("a", hour)])
        for resolution in Resolution:
            assert broker.read_metrics(["a"], after(hour, DAY), after(hour, -DAY), resolution) == []
            assert broker.read_metrics(["a"], hour, hour, resolution) == []

    @pytest.mark.parametrize("text", ODD_TEXTS)
    def test_names_and_tags_are_any_text(self, broker: Broker, hour: datetime, text: str) -> None:
        tags = (("queue", text), ("task", "x"))
        broker.record_metrics([counted(text, hour, 7, tags), counted(text[:9] + "y", hour)])
        broker.record_metrics([counted(text, hour, 2, (("queue", text + "x" if text == "" else text[:-1]),))])
        read = broker.read_metrics([text], hour, after(hour, MINUTE))
        assert {one.tags: one.count for one in read}[tags] == 7
        assert len(read) == 2
        assert {one.name for one in read} == {text}

    def test_series_differ_in_each_of_their_tags(self, broker: Broker, hour: datetime) -> None:
        series: list[Tags] = [
            (), (("a", ""),), (("", "a"),), (("a", "b"),), (("a", "b"), ("c", "d")), (("a", "bcd"),),
            (("a", "d"), ("c", "b")), (("ab", ""),), (("a", '"],["c","d'),),
        ]  # fmt: skip
        for count, tags in enumerate(series, 1):
            broker.record_metrics([counted("jobs", hour, count, tags)] * 2)
        for resolution in Resolution:
            read = broker.read_metrics(["jobs"], hour, after(hour, MINUTE), resolution)
            assert {one.tags: one.count for one in read} == {
                tags: 2 * count for count, tags in enumerate(series, 1)
            }

    def test_histograms_of_roll_ups_are_exact_sums(self, broker: Broker, hour: datetime) -> None:
        rng = random.Random(7)
        values = [rng.lognormvariate(0, 4) for _ in range(999)] + [0.0, 1e-9, 1e300, 1.0]
        at = iter(range(len(values)))
        for start in range(0, len(values), 40):
            broker.record_metrics(
                [
                    measured("jobs", after(hour, next(at) * 3), min(value, 1e9))
                    for value in values[start : start + 40]
                ]
            )
        [rolled] = broker.read_metrics(["jobs"], hour, after(hour, HOUR), Resolution.HOUR)
        exact = sorted(min(value, 1e9) for value in values)
        assert rolled.count == len(values)
        assert rolled.total == pytest.approx(sum(exact))
        assert rolled.buckets == buckets_of(exact)
        minutes = broker.read_metrics(["jobs"], hour, after(hour, HOUR))
        assert added(one.buckets for one in minutes) == rolled.buckets
        for ratio in (0.5, 0.95, 0.99):
            found = percentile(rolled.buckets, ratio)
            assert found == pytest.approx(exact[int(ratio * (len(exact) - 1))], rel=ERROR * 1.0001)

    def test_nothing_is_recorded_by_an_empty_call(self, broker: Broker, hour: datetime) -> None:
        broker.record_metrics([])
        assert broker.read_metrics(["jobs"], from_ms(0), after(hour, HOUR)) == []

    @pytest.mark.parametrize(
        "wrong",
        [
            {"count": -1}, {"count": 1.5}, {"count": 10**19}, {"count": True}, {"total": math.nan},
            {"total": math.inf}, {"total": -0.5}, {"total": "1"}, {"buckets": {1: -1}},
            {"buckets": {9999: 1}}, {"buckets": {"1": 1}}, {"buckets": {1: math.nan}},
            {"tags": (("b", ""), ("a", ""))}, {"tags": (("a", ""), ("a", ""))}, {"tags": (("a", "\ud800"),)},
            {"tags": (("a", 1),)}, {"name": "\ud800"}, {"name": "x" * (MOST_CHARACTERS + 1)},
            {"tags": tuple((str(n), "") for n in range(9))}, {"at": datetime(2025, 6, 1)},  # noqa: DTZ001
        ],
        ids=str,
    )  # fmt: skip
    def test_a_metric_that_cannot_be_added_up_is_refused_with_its_whole_call(
        self, broker: Broker, hour: datetime, wrong: dict[str, Any]
    ) -> None:
        bad = Metric(**{"name": "jobs", "at": hour, **wrong})
        with pytest.raises(InvalidValue) as refused:
            broker.record_metrics([counted("jobs", hour), bad])
        assert refused.value.path == next(iter(wrong))
        assert broker.read_metrics(["jobs"], from_ms(0), after(hour, HOUR)) == []

    def test_times_before_and_after_ours_are_no_harm(self, broker: Broker, hour: datetime) -> None:
        """A clock that steps far back, or far ahead."""
        times = [from_ms(-5_400_000), from_ms(0), after(hour, 4e9)]
        broker.record_metrics([counted("jobs", at) for at in times])
        for resolution in Resolution:
            read = broker.read_metrics(["jobs"], from_ms(-DAY_MS), after(hour, 5e9), resolution)
            assert [one.at for one in read] == [
                from_ms(int(at.timestamp()) // resolution.seconds * resolution.seconds * 1000) for at in times
            ]

    def test_no_metric_of_eight_threads_is_lost(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock, hour: datetime
    ) -> None:
        tags = (("queue", "q"),)

        def work() -> None:
            mine = broker_factory(clock)
            for _ in range(20):
                mine.record_metrics([measured("jobs", hour, 1.0, 2.0, tags=tags), counted("other", hour, 2)])
            mine.close()

        run_in_threads(work, [()] * 8)
        for resolution in Resolution:
            read = broker.read_metrics(["jobs", "other"], hour, after(hour, MINUTE), resolution)
            assert read == [
                measured("jobs", hour, *[1.0, 2.0] * 160, tags=tags), counted("other", hour, 320)
            ]  # fmt: skip

    def test_a_thousand_series_are_recorded_in_one_call(self, broker: Broker, hour: datetime) -> None:
        metrics = [measured("jobs", hour, float(n), tags=(("task", f"t{n}"),)) for n in range(1000)]
        for _ in range(2):
            broker.record_metrics(metrics)
        for resolution in Resolution:
            read = broker.read_metrics(["jobs"], hour, after(hour, MINUTE), resolution)
            assert {one.tags: one.total for one in read} == {one.tags: 2 * one.total for one in metrics}


DAY_MS = 86_400_000
