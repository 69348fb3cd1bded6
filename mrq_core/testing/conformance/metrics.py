"""Metrics: figures that are added up by the minute."""

from __future__ import annotations

import pytest

from mrq_core.clock import after, from_ms
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Metric
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import BrokerFactory, Contract, run_in_threads

MINUTE = 60.0


def metric(name: str, at: float, value: float) -> Metric:
    return Metric(name=name, at=from_ms(round(at * 1000)), value=value)


class MetricContract(Contract):
    """What record_metrics and read_metrics promise."""

    @pytest.fixture(autouse=True)
    def _needs_metrics(self) -> None:
        if not self.supports_metrics:
            pytest.skip("this driver keeps no metrics")

    @pytest.fixture
    def minute(self, clock: ManualClock) -> float:
        """Unix time of the start of a minute."""
        return clock.now_ms() // 60_000 * MINUTE

    def test_figures_of_a_minute_are_added_up(self, broker: Broker, minute: float) -> None:
        broker.record_metrics([metric("jobs", minute, 1.0), metric("jobs", minute + 59.999, 2.5)])
        broker.record_metrics([metric("jobs", minute + 30, -0.5)])
        [rolled] = broker.read_metrics(["jobs"], minute, minute + MINUTE)
        assert (rolled.name, rolled.value) == ("jobs", 3.0)
        start = from_ms(round(minute * 1000))
        assert start <= rolled.at < after(start, MINUTE)

    def test_minutes_are_kept_apart_and_come_oldest_first(self, broker: Broker, minute: float) -> None:
        for number in (2, 0, 1):
            broker.record_metrics([metric("jobs", minute + number * MINUTE, float(number))])
        rolled = broker.read_metrics(["jobs"], minute, minute + 3 * MINUTE)
        assert [one.value for one in rolled] == [0.0, 1.0, 2.0]
        assert [one.at for one in rolled] == sorted(one.at for one in rolled)

    def test_only_the_span_and_the_names_that_were_asked_for_are_read(
        self, broker: Broker, minute: float
    ) -> None:
        for number in range(-2, 3):
            at = minute + number * MINUTE
            broker.record_metrics(
                [metric("a", at, number), metric("b", at, 10 + number), metric("a.b", at, 99)]
            )
        read = broker.read_metrics(["a", "b"], minute, minute + MINUTE)
        assert sorted((one.name, one.value) for one in read) == [("a", 0.0), ("b", 10.0)]
        assert broker.read_metrics(["c"], minute - 9 * MINUTE, minute + 9 * MINUTE) == []
        assert len(broker.read_metrics(["a"], minute - 9 * MINUTE, minute + 9 * MINUTE)) == 5

    @pytest.mark.parametrize("name", ["", "a b", "$x", "a.b", "ü", "%", "'", "a:b", "x" * 200])
    def test_names_of_metrics_are_only_names(self, broker: Broker, minute: float, name: str) -> None:
        broker.record_metrics([metric(name, minute, 1.0), metric(name + "x", minute, 5.0)])
        [rolled] = broker.read_metrics([name], minute, minute + MINUTE)
        assert (rolled.name, rolled.value) == (name, 1.0)

    def test_nothing_is_recorded_by_an_empty_call(self, broker: Broker, minute: float) -> None:
        broker.record_metrics([])
        assert broker.read_metrics(["jobs"], 0.0, minute + 10 * MINUTE) == []

    def test_no_figure_of_eight_threads_is_lost(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock, minute: float
    ) -> None:
        def work() -> None:
            mine = broker_factory(clock)
            for _ in range(20):
                mine.record_metrics([metric("jobs", minute, 1.0), metric("other", minute, 2.0)])
            mine.close()

        run_in_threads(work, [()] * 8)
        read = broker.read_metrics(["jobs", "other"], minute, minute + MINUTE)
        assert {one.name: one.value for one in read} == {"jobs": 160.0, "other": 320.0}
