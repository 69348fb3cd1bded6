"""What poll says about rules that all workers obey, and about requests to a worker."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from mrq_core.contract import rules
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Limit
from mrq_core.contract.shared_state import Pause, Rules, Versions, WorkerRequest
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    BrokerFactory,
    Contract,
)

PATH = "tests.tasks.Example"
PAUSED = frozenset({PATH})
ODD_NAMES = ("größe/ü", "a b", "x:y", "'; DROP--", "%_*", "task:tests.tasks.Example", "$where")


class RulesContract(Contract):
    """What poll says about rules and requests."""

    def test_a_pause_until_a_time_ends_by_itself_and_poll_says_so(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        broker.pause(["q"], clock.now() + timedelta(seconds=30))
        broker.pause_tasks([PATH], clock.now() + timedelta(seconds=40))
        first = broker.poll("w1", Versions())
        assert first.rules is not None
        assert first.rules.paused_queues == {"q"}
        assert first.rules.paused_tasks == PAUSED
        clock.advance(29.999)
        again = broker.poll("w1", first.versions)
        assert again.rules is None
        assert broker.paused() == {"q"}
        clock.advance(0.001)
        ended = broker.poll("w1", again.versions)
        assert ended.rules is not None
        assert (ended.rules.paused_queues, ended.rules.paused_tasks) == (frozenset(), PAUSED)
        assert broker.paused() == frozenset()
        assert broker.poll("w1", ended.versions).rules is None
        clock.advance(10)
        over = broker.poll("w1", ended.versions)
        assert over.rules == Rules()
        assert broker.poll("w1", over.versions).rules is None

    def test_a_pause_has_its_times(self, broker: Broker, clock: ManualClock) -> None:
        began, end = clock.now(), clock.now() + timedelta(seconds=30)
        broker.pause(["q"], end)
        clock.advance(1)
        broker.pause(["tree/"])
        broker.pause_tasks([PATH])
        found = broker.rules()
        assert found.queues == {"q": Pause(since=began, until=end), "tree/": Pause(since=clock.now())}
        assert found.tasks == {PATH: Pause(since=clock.now())}

    def test_a_later_pause_replaces_an_earlier_pause(self, broker: Broker, clock: ManualClock) -> None:
        broker.pause(["q"], clock.now() + timedelta(seconds=30))
        broker.pause(["q"])
        clock.advance(60)
        assert broker.paused() == {"q"}
        broker.pause(["q"], clock.now() + timedelta(seconds=30))
        clock.advance(30)
        assert broker.paused() == frozenset()

    @pytest.mark.parametrize("seconds", [0, 0.001, 1e6])
    def test_a_pause_whose_end_is_past_changes_nothing(
        self, broker: Broker, clock: ManualClock, seconds: float
    ) -> None:
        broker.pause(["paused"])
        past = clock.now() - timedelta(seconds=seconds)
        broker.pause(["paused", "q"], past)
        broker.pause_tasks([PATH], past)
        assert broker.paused() == {"paused"}
        assert broker.rules().tasks == {}

    def test_queues_and_tasks_with_one_name_are_paused_apart(self, broker: Broker) -> None:
        broker.pause([PATH])
        assert broker.rules().paused_tasks == frozenset()
        broker.pause_tasks([PATH])
        broker.resume([PATH])
        assert (broker.paused(), broker.rules().paused_tasks) == (frozenset(), PAUSED)
        broker.resume_tasks([PATH, "never.Paused"])
        assert broker.rules() == Rules()

    def test_odd_names_are_names(self, broker: Broker) -> None:
        broker.pause(ODD_NAMES)
        broker.pause_tasks(ODD_NAMES)
        for name in ODD_NAMES:
            broker.state.put(rules.LIMITS, name, {"concurrency": 1})
        told = broker.poll("w1", Versions()).rules
        assert told is not None
        assert told.paused_queues == told.paused_tasks == told.limits.keys() == set(ODD_NAMES)
        broker.resume(ODD_NAMES)
        assert broker.paused() == frozenset()

    def test_every_process_is_told_of_a_changed_limit_rule_once(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        other = broker_factory(clock)
        known = other.poll("w2", Versions()).versions
        broker.state.put(rules.LIMITS, "api", {"concurrency": 2, "rate": 0.5, "per": 60.0})
        told = other.poll("w2", known)
        assert told.rules == Rules(limits={"api": Limit(concurrency=2, rate=0.5, per=60.0)})
        assert other.poll("w2", told.versions).rules is None
        item = broker.state.get(rules.LIMITS, "api")
        assert item is not None
        changed = broker.state.compare_and_set(rules.LIMITS, "api", {"concurrency": 9}, version=item.version)
        assert changed is not None
        again = other.poll("w2", told.versions)
        assert again.rules == Rules(limits={"api": Limit(concurrency=9)})
        assert broker.state.delete(rules.LIMITS, ["api"]) == [True]
        assert other.poll("w2", again.versions).rules == Rules()
        other.close()

    def test_other_state_is_no_news(self, broker: Broker) -> None:
        broker.state.put(rules.LIMITS, "api", {"concurrency": 2})
        known = broker.poll("w1", Versions()).versions
        broker.state.put("workers", "w1", 1)
        broker.state.add("counters", "n", 1)
        broker.state.delete("workers", ["w1"])
        assert broker.poll("w1", known).rules is None

    @pytest.mark.parametrize("value", [None, [], {"concurrency": "2"}, {"rate": -1}, {"rate": 1, "per": 0}])
    def test_a_limit_rule_that_cannot_be_read_is_left_out(self, broker: Broker, value: object) -> None:
        broker.state.put(rules.LIMITS, "bad", value)  # type: ignore[arg-type]
        broker.state.put(rules.LIMITS, "good", {"concurrency": 0})
        told = broker.poll("w1", Versions()).rules
        assert told is not None
        assert told.limits == {"good": Limit(concurrency=0)}

    def test_of_people_who_set_one_rule_at_once_all_workers_are_told_the_last(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        brokers = [broker_factory(clock) for _ in range(4)]

        def work(own: Broker, number: int) -> None:
            for round_number in range(5):
                own.state.put(rules.LIMITS, "api", {"concurrency": 10 * number + round_number})

        threads = [threading.Thread(target=work, args=(own, number)) for number, own in enumerate(brokers)]
        known = broker.poll("w1", Versions()).versions
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        item = broker.state.get(rules.LIMITS, "api")
        told = broker.poll("w1", known).rules
        assert item is not None
        assert told is not None
        assert isinstance(item.value, dict)
        assert told.limits["api"].concurrency == item.value["concurrency"]
        for own in brokers:
            own.close()

    # --- requests --------------------------------------------------------------------------------

    @pytest.mark.parametrize("worker", ["w1", *ODD_NAMES])
    def test_a_request_is_in_each_answer_until_it_expires(
        self, broker: Broker, clock: ManualClock, worker: str
    ) -> None:
        requests = tuple(
            WorkerRequest(
                id=name,
                kind="stack",
                args={"größe": [1, None]},
                expires_at=clock.now() + timedelta(seconds=seconds),
            )
            for name, seconds in (("a", 10), ("b", 20))
        )
        known = broker.poll(worker, Versions()).versions
        broker.state.put(rules.REQUESTS, worker, rules.requests_value(requests), ttl=20.0)
        for _ in range(2):
            told = broker.poll(worker, known)
            assert told.requests == requests
            assert told.rules is None
            known = told.versions
        assert broker.poll("other", Versions()).requests == ()
        clock.advance(10)
        assert broker.poll(worker, known).requests == requests[1:]
        clock.advance(10)
        assert broker.poll(worker, known).requests == ()

    def test_a_request_that_cannot_be_read_is_left_out(self, broker: Broker) -> None:
        broker.state.put(rules.REQUESTS, "w1", [{"kind": "stop"}])
        assert broker.poll("w1", Versions()).requests == ()
