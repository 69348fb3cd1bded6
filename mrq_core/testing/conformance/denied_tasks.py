"""What a claim does with the jobs of tasks that its worker denies, or does not allow."""

from __future__ import annotations

from datetime import timedelta

import pytest

from mrq_core.contract.broker import Broker
from mrq_core.errors import NotSupported
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    Contract,
    claim,
    lose,
    put,
    put_many,
    started,
    take,
)

DENIED = frozenset({"tests.tasks.Example"})


class DeniedTaskContract(Contract):
    """What a claim does with the jobs of tasks that its worker denies."""

    @pytest.fixture
    def denying(self, broker: Broker) -> Broker:
        """The broker, if it supports denied tasks."""
        if not broker.supports_denied_tasks:
            pytest.skip("this broker refuses denied tasks")
        return broker

    def test_a_broker_without_denied_tasks_refuses_them(self, broker: Broker) -> None:
        if broker.supports_denied_tasks:
            pytest.skip("this broker supports denied tasks")
        with pytest.raises(NotSupported):
            take(broker, denied_tasks=DENIED)
        with pytest.raises(NotSupported):
            take(broker, allowed_tasks=DENIED)

    @pytest.mark.parametrize("patterns", [{"mail.Send"}, {"mail.*"}, {"no.such", "mail.*"}])
    @pytest.mark.parametrize("is_lost", [False, True])
    def test_a_claim_takes_jobs_of_allowed_tasks_only(
        self, denying: Broker, clock: ManualClock, patterns: set[str], is_lost: bool
    ) -> None:
        others = [
            put(denying, clock, path=path) for path in ("mailing.Send", "other.mail.Send", "other.Task")
        ]
        mine = put(denying, clock, path="mail.Send")
        if is_lost:
            assert len(take(denying, limit=4, worker="w2")) == 4
            lose(clock)
        taken = take(denying, limit=4, lost_limit=4, allowed_tasks=frozenset(patterns))
        assert taken == [mine]
        answer = claim(denying, lost_limit=4, allowed_tasks=frozenset(patterns))
        assert (answer.records, answer.is_denied) == ((), not is_lost)
        assert sorted(take(denying, limit=4, lost_limit=4, worker="w2")) == sorted(others)

    def test_a_pattern_names_the_tasks_of_a_module_and_of_its_submodules(
        self, denying: Broker, clock: ManualClock
    ) -> None:
        deep = put(denying, clock, path="shop.mail.Send")
        put(denying, clock, path="shops.mail.Send")
        near = put(denying, clock, path="shop.Send")
        assert take(denying, denied_tasks=frozenset({"shops.*", "shop.mail.*"})) == [near]
        assert take(denying, allowed_tasks=frozenset({"shop.*"}), denied_tasks=frozenset({"shop.x"})) == [
            deep
        ]

    def test_a_task_that_is_allowed_and_denied_is_denied(self, denying: Broker, clock: ManualClock) -> None:
        put(denying, clock, path="shop.mail.Send")
        allowed = put(denying, clock, path="shop.Send")
        taken = take(denying, allowed_tasks=frozenset({"shop.*"}), denied_tasks=frozenset({"shop.mail.*"}))
        assert taken == [allowed]

    @pytest.mark.parametrize("queue", ["q", "t/x"])
    def test_jobs_of_denied_tasks_are_left_to_other_workers_in_their_order(
        self, denying: Broker, clock: ManualClock, queue: str
    ) -> None:
        wanted = queue if queue == "q" else "t/"
        denied, free = [], []
        for _ in range(3):
            denied.append(put(denying, clock, queue))
            free.append(put(denying, clock, queue, path="other.Task"))
            clock.advance(1)
        answer = claim(denying, wanted, limit=2, denied_tasks=DENIED)
        assert [record.id for record in answer.records] == free[:2]
        assert not answer.is_denied
        assert take(denying, wanted, denied_tasks=DENIED) == free[2:]
        assert claim(denying, wanted, denied_tasks=DENIED).is_denied
        assert denying.counts([queue])[0].due == 3
        assert take(denying, wanted, worker="w2") == denied

    def test_a_claim_steps_over_a_bounded_number_of_denied_jobs(
        self, denying: Broker, clock: ManualClock
    ) -> None:
        denied = put_many(denying, clock, 90)
        near = put(denying, clock, path="other.Task")
        denied += put_many(denying, clock, 110)
        far = put(denying, clock, path="other.Task")
        assert take(denying, limit=1, denied_tasks=DENIED) == [near]
        answer = claim(denying, limit=1, denied_tasks=DENIED)
        assert (answer.records, answer.is_denied) == ((), True)
        assert sorted(take(denying, limit=150, worker="w2")) == sorted(denied[:150])
        assert take(denying, limit=1, denied_tasks=DENIED) == [far]

    def test_lost_jobs_of_denied_tasks_are_left_to_other_workers(
        self, denying: Broker, clock: ManualClock
    ) -> None:
        record = started(denying, clock)
        lose(clock)
        assert take(denying, denied_tasks=DENIED) == []
        assert take(denying, worker="w2") == [record.id]

    def test_a_claim_without_due_jobs_is_not_denied(self, denying: Broker, clock: ManualClock) -> None:
        put(denying, clock, delay=10.0)
        answer = claim(denying, denied_tasks=DENIED)
        assert not answer.is_denied
        assert answer.next_due == clock.now() + timedelta(seconds=10)
