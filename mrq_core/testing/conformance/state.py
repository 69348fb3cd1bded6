"""SharedState: versions, compare-and-set, counters, expiry."""

from __future__ import annotations

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import BrokerFactory, Contract, run_in_threads


class StateContract(Contract):
    """What the shared state promises."""

    def test_what_was_put_is_there(self, broker: Broker) -> None:
        put = broker.state.put("workers", "w1", {"status": "wait"})
        assert put.value == {"status": "wait"}
        assert broker.state.get("workers", "w1") == put
        assert broker.state.get("workers", "w2") is None
        assert broker.state.get("others", "w1") is None

    @pytest.mark.parametrize("value", [None, 0, False, "", [], {}, {"$set": {"a.b": 1}}, "ü'\"", [1, [2.5]]])
    def test_any_json_value_comes_back(self, broker: Broker, value: JsonValue) -> None:
        broker.state.put("n", "a", value)
        item = broker.state.get("n", "a")
        assert item is not None
        assert repr(item.value) == repr(value)

    @pytest.mark.parametrize("name", ["", "a.b", "$x", "a:b", "{a}", "'", "%", "ä", "a/b"])
    def test_names_are_only_names(self, broker: Broker, name: str) -> None:
        broker.state.put("n", "other", 1)
        broker.state.put("n", name, 2)
        item = broker.state.get("n", name)
        assert item is not None
        assert (item.name, item.value) == (name, 2)
        assert broker.state.delete("n", [name]) == [True]
        assert [item.name for item in broker.state.list("n")] == ["other"]

    def test_the_version_grows_with_every_write(self, broker: Broker) -> None:
        first = broker.state.put("n", "a", 1)
        second = broker.state.put("n", "a", 1)
        assert 0 < first.version < second.version
        third = broker.state.compare_and_set("n", "a", 2, version=second.version)
        assert third is not None
        assert third.version > second.version

    def test_the_version_grows_over_a_deletion_too(self, broker: Broker) -> None:
        first = broker.state.put("n", "a", 1)
        broker.state.delete("n", ["a"])
        assert broker.state.put("n", "a", 1).version > first.version

    def test_compare_and_set_writes_only_on_the_version_it_names(self, broker: Broker) -> None:
        first = broker.state.put("n", "a", 1)
        second = broker.state.compare_and_set("n", "a", 2, version=first.version)
        assert second is not None
        assert broker.state.compare_and_set("n", "a", 3, version=first.version) is None
        assert broker.state.get("n", "a") == second

    def test_version_zero_means_that_there_is_no_such_value(self, broker: Broker) -> None:
        assert broker.state.compare_and_set("n", "a", 1, version=1) is None
        assert broker.state.get("n", "a") is None
        assert broker.state.compare_and_set("n", "a", 1, version=0) is not None
        assert broker.state.compare_and_set("n", "a", 2, version=0) is None

    def test_an_expired_value_counts_as_none(self, broker: Broker, clock: ManualClock) -> None:
        broker.state.put("n", "a", 1, ttl=10.0)
        clock.advance(10)
        assert broker.state.compare_and_set("n", "a", 2, version=0) is not None

    def test_a_value_vanishes_after_its_ttl(self, broker: Broker, clock: ManualClock) -> None:
        item = broker.state.put("n", "a", 1, ttl=10.0)
        assert item.expires_at == after(clock.now(), 10.0)
        clock.advance(9.999)
        assert broker.state.get("n", "a") == item
        clock.advance(0.001)
        assert broker.state.get("n", "a") is None
        assert broker.state.list("n") == []
        assert broker.state.delete("n", ["a"]) == [False]

    def test_a_write_sets_the_ttl_anew(self, broker: Broker, clock: ManualClock) -> None:
        broker.state.put("n", "a", 1, ttl=10.0)
        clock.advance(5)
        broker.state.put("n", "a", 2, ttl=10.0)
        clock.advance(6)
        assert broker.state.get("n", "a") is not None
        broker.state.put("n", "a", 3)
        clock.advance(10_000)
        assert broker.state.get("n", "a") is not None

    def test_a_counter_starts_at_zero(self, broker: Broker) -> None:
        assert broker.state.add("n", "a", 5) == 5
        assert broker.state.add("n", "a", -2) == 3
        assert broker.state.add("n", "a", 0) == 3
        assert broker.state.add("n", "b", 1) == 1
        item = broker.state.get("n", "a")
        assert item is not None
        assert item.value == 3

    def test_the_ttl_of_a_counter_counts_from_its_start(self, broker: Broker, clock: ManualClock) -> None:
        broker.state.add("n", "a", 1, ttl=10.0)
        clock.advance(6)
        assert broker.state.add("n", "a", 1, ttl=10.0) == 2
        clock.advance(4)
        assert broker.state.get("n", "a") is None
        assert broker.state.add("n", "a", 1, ttl=10.0) == 1

    def test_delete_lines_up_with_the_names(self, broker: Broker) -> None:
        broker.state.put("n", "a", 1)
        broker.state.put("n", "b", 1)
        assert broker.state.delete("n", ["b", "x", "a", "a"]) == [True, False, True, False]
        assert broker.state.list("n") == []

    def test_list_gives_all_values_of_the_namespace_by_name(self, broker: Broker) -> None:
        for name in ("b", "c", "a"):
            broker.state.put("n", name, name)
        broker.state.put("m", "d", 1)
        assert [(item.name, item.value) for item in broker.state.list("n")] == [
            ("a", "a"),
            ("b", "b"),
            ("c", "c"),
        ]
        assert broker.state.list("empty") == []

    def test_another_process_sees_the_value(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        item = broker.state.put("n", "a", [1])
        other = broker_factory(clock)
        assert other.state.get("n", "a") == item
        other.close()

    def test_a_value_is_stored_as_it_was_when_it_was_put(self, broker: Broker) -> None:
        value: list[JsonValue] = [1]
        broker.state.put("n", "a", value)
        value.append(2)
        item = broker.state.get("n", "a")
        assert item is not None
        assert item.value == [1]

    def test_no_addition_of_eight_threads_is_lost(self, broker: Broker) -> None:
        run_in_threads(lambda: [broker.state.add("n", "a", 1) for _ in range(25)], [()] * 8)
        assert broker.state.add("n", "a", 0) == 200

    def test_of_eight_threads_one_wins_a_version(self, broker: Broker) -> None:
        wins: list[int] = []

        def compete(number: int) -> None:
            if broker.state.compare_and_set("n", "leader", number, version=0) is not None:
                wins.append(number)

        run_in_threads(compete, [(number,) for number in range(8)])
        item = broker.state.get("n", "leader")
        assert item is not None
        assert wins == [item.value]
