"""Rules that all workers obey: pauses of queues until a time, pauses of tasks, and limit rules."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from mrq_core.clock import after
from mrq_core.contract import rules
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Cancel, ChangeResult, Limit, Move, Requeue
from mrq_core.contract.queries import JobFilter, QueuePosition
from mrq_core.contract.record import Status
from mrq_core.contract.shared_state import Pause, Rules, Versions, WorkerRequest
from mrq_core.errors import NotSupported
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    LEASE,
    BrokerFactory,
    Contract,
    bring_to,
    claim,
    lose,
    put,
    put_many,
    record_of,
    ref,
    settle,
    started,
    take,
    take_one,
)
from mrq_core.testing.conformance.edits import edit

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
            take(broker, denied_tasks=PAUSED)
        with pytest.raises(NotSupported):
            take(broker, allowed_tasks=PAUSED)

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
        answer = claim(denying, wanted, limit=2, denied_tasks=PAUSED)
        assert [record.id for record in answer.records] == free[:2]
        assert not answer.is_denied
        assert take(denying, wanted, denied_tasks=PAUSED) == free[2:]
        assert claim(denying, wanted, denied_tasks=PAUSED).is_denied
        assert denying.counts([queue])[0].due == 3
        assert take(denying, wanted, worker="w2") == denied

    def test_a_claim_steps_over_a_bounded_number_of_denied_jobs(
        self, denying: Broker, clock: ManualClock
    ) -> None:
        denied = put_many(denying, clock, 90)
        near = put(denying, clock, path="other.Task")
        denied += put_many(denying, clock, 110)
        far = put(denying, clock, path="other.Task")
        assert take(denying, limit=1, denied_tasks=PAUSED) == [near]
        answer = claim(denying, limit=1, denied_tasks=PAUSED)
        assert (answer.records, answer.is_denied) == ((), True)
        assert sorted(take(denying, limit=150, worker="w2")) == sorted(denied[:150])
        assert take(denying, limit=1, denied_tasks=PAUSED) == [far]

    def test_lost_jobs_of_denied_tasks_are_left_to_other_workers(
        self, denying: Broker, clock: ManualClock
    ) -> None:
        record = started(denying, clock)
        lose(clock)
        assert take(denying, denied_tasks=PAUSED) == []
        assert take(denying, worker="w2") == [record.id]

    def test_a_claim_without_due_jobs_is_not_denied(self, denying: Broker, clock: ManualClock) -> None:
        put(denying, clock, delay=10.0)
        answer = claim(denying, denied_tasks=PAUSED)
        assert not answer.is_denied
        assert answer.next_due == clock.now() + timedelta(seconds=10)


class PausedTaskContract(Contract):
    """What a claim does with the jobs of paused tasks."""

    lets_go_in_steps: bool = True
    """Whether one call lets a bounded number of parked jobs go. The model lets all go at once."""

    @pytest.fixture(autouse=True)
    def _needs_limits(self) -> None:
        if not self.supports_limits:
            pytest.skip("this driver has no limits")

    def test_a_claim_parks_the_jobs_of_a_paused_task(self, broker: Broker, clock: ManualClock) -> None:
        first, second = put_many(broker, clock, 2)
        answer = claim(broker, paused_tasks=PAUSED)
        assert (answer.records, answer.next_due) == ((), None)
        for job_id in (first, second):
            record = record_of(broker, job_id)
            assert (record.status, record.claims, record.history) == (Status.QUEUED, 0, ())
        [counts] = broker.counts(["q"])
        assert (counts.waiting, counts.due, counts.claimed) == (2, 0, 0)
        assert take(broker, paused_tasks=PAUSED) == []

    @pytest.mark.parametrize("queue", ["q", "t/x"])
    def test_a_resumed_task_goes_on_in_its_order(
        self, broker: Broker, clock: ManualClock, queue: str
    ) -> None:
        ids = []
        for _ in range(3):
            ids.append(put(broker, clock, queue))
            clock.advance(1)
        wanted = queue if queue == "q" else "t/"
        assert take(broker, wanted, paused_tasks=PAUSED) == []
        # A call may let go what only the next one takes.
        taken = [record for _ in range(6) for record in claim(broker, wanted, limit=1).records]
        assert [record.id for record in taken] == ids
        assert [record.claims for record in taken] == [1, 1, 1]
        assert all(settle(broker, record, ttl=100.0) for record in taken)
        [counts] = broker.counts([queue])
        assert (counts.waiting, counts.due, counts.claimed) == (0, 0, 0)

    def test_jobs_of_other_tasks_pass(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 5, priority=2)
        free = put_many(broker, clock, 2, path="other.Task")
        taken = [job_id for _ in range(3) for job_id in take(broker, limit=3, paused_tasks=PAUSED)]
        assert taken == free

    def test_many_jobs_of_a_paused_task_are_parked_in_bounded_steps(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        put_many(broker, clock, 600)
        clock.advance(1)
        free = put(broker, clock, path="other.Task")
        answer = claim(broker, limit=2, paused_tasks=PAUSED)
        [counts] = broker.counts(["q"])
        assert 0 < 601 - counts.due <= 100
        assert answer.next_due is not None
        assert answer.next_due <= clock.now()
        taken: list[str] = []
        for _ in range(300):
            taken += take(broker, limit=2, paused_tasks=PAUSED)
            if taken:
                break
        assert taken == [free]
        assert broker.counts(["q"])[0].due == 0

    def test_a_resumed_task_lets_its_jobs_go_in_bounded_steps(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = put_many(broker, clock, 250)
        while broker.counts(["q"])[0].due:
            assert take(broker, limit=25, paused_tasks=PAUSED) == []
        assert len(take(broker, limit=1)) == 1
        if self.lets_go_in_steps:
            assert broker.counts(["q"])[0].due <= 100
        taken = [job_id for _ in range(300) for job_id in take(broker, limit=1)]
        assert len(taken) == 249
        assert set(taken) < set(ids)

    def test_running_jobs_of_a_paused_task_go_on(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        clock.advance(LEASE / 2)
        assert take(broker, paused_tasks=PAUSED) == []
        assert broker.renew([ref(record)], LEASE) == [True]
        assert settle(broker, record, Status.RETRY, delay=0.0, is_retry=True)
        assert take(broker, paused_tasks=PAUSED) == []
        again = take_one(broker)
        assert (again.id, again.claims, again.retry_count) == (record.id, 2, 1)

    def test_a_lost_job_of_a_paused_task_waits(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        free = put(broker, clock, path="other.Task")
        lose(clock)
        answer = claim(broker, paused_tasks=PAUSED)
        assert [one.id for one in answer.records] == [free]
        assert answer.next_due is None or answer.next_due > clock.now()
        assert record_of(broker, record.id).claims == 1
        clock.advance(1)
        again = take_one(broker)
        assert (again.id, again.claims) == (record.id, 2)

    @pytest.mark.parametrize("how", ["cancel", "move", "remove", "requeue"])
    def test_a_job_that_a_pause_has_parked_can_be_changed(
        self, broker: Broker, clock: ManualClock, how: str
    ) -> None:
        job_id = put(broker, clock)
        assert take(broker, paused_tasks=PAUSED) == []
        if how == "cancel":
            assert broker.cancel([job_id], Cancel()) == [ChangeResult.DONE]
            assert broker.requeue([job_id], Requeue()) == [ChangeResult.DONE]
            assert take(broker) == [job_id]
        elif how == "move":
            assert broker.move([job_id], Move(queue="other")) == [ChangeResult.DONE]
            assert take(broker) == []
            assert take(broker, "other") == [job_id]
        elif how == "requeue":
            assert broker.requeue([job_id], Requeue()) == [ChangeResult.REFUSED]
            assert take(broker) == [job_id]
        else:
            assert broker.remove([job_id]) == [ChangeResult.DONE]
            assert take(broker) == []
        [counts] = broker.counts(["q"])
        assert (counts.waiting, counts.due) == (0, 0)
        assert take(broker) == []

    def test_an_edited_job_that_a_pause_has_parked_stays_parked_with_its_new_priority(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        first, second, third = put_many(broker, clock, 3)
        assert take(broker, paused_tasks=PAUSED) == []
        assert edit(broker, third, priority=3, params={"a": 1}) is ChangeResult.DONE
        assert take(broker, paused_tasks=PAUSED) == []
        assert (broker.counts(["q"])[0].waiting, broker.counts(["q"])[0].due) == (3, 0)
        found = broker.queue_position(second)
        assert found is not None
        assert (found.parked_under, found.ahead) == (f"task:{PATH}", 2)
        assert [use.waiters for use in found.keys] == [(third, first, second)]
        # A call may let go what only the next one takes.
        taken = [job_id for _ in range(6) for job_id in take(broker, limit=1)]
        assert taken == [third, first, second]

    def test_an_edited_job_that_a_pause_has_parked_is_due_at_its_new_time(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        job_id = put(broker, clock)
        assert take(broker, paused_tasks=PAUSED) == []
        assert edit(broker, job_id, delay=5.0) is ChangeResult.DONE
        assert take(broker) == []
        assert broker.queue_position(job_id) == QueuePosition(ahead=0, due_at=after(clock.now(), 5.0))
        clock.advance(5)
        assert take(broker, paused_tasks=PAUSED) == []
        assert take(broker) == [job_id]

    @pytest.mark.parametrize("status", [Status.RETRY, Status.INTERRUPT])
    def test_a_job_that_a_pause_has_parked_keeps_its_status(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = bring_to(broker, clock, status)
        assert take(broker, paused_tasks=PAUSED) == []
        assert record_of(broker, job_id).status is status
        assert take(broker) == [job_id]

    def test_a_paused_task_takes_no_room_under_limits(self, broker: Broker, clock: ManualClock) -> None:
        limits = {"rule": Limit(concurrency=1)}
        paused = put(broker, clock, limit_keys=("rule",))
        free = put(broker, clock, limit_keys=("rule",), path="other.Task")
        taken = [
            record
            for _ in range(3)
            for record in claim(broker, limits=limits, limit=1, paused_tasks=PAUSED).records
        ]
        assert [record.id for record in taken] == [free]
        assert settle(broker, taken[0], ttl=100.0)
        assert take(broker, limits=limits) == [paused]

    def test_jobs_under_a_removed_rule_are_let_go(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 300, limit_keys=("rule",))
        limits = {"rule": Limit(concurrency=0)}
        while broker.counts(["q"])[0].due:
            assert take(broker, limit=50, limits=limits) == []
        taken = [job_id for _ in range(20) for job_id in take(broker, limit=50)]
        assert sorted(taken) == sorted(ids)

    def test_a_crash_in_the_middle_of_a_resume_leaves_no_job_behind(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        ids = put_many(broker, clock, 250)
        while broker.counts(["q"])[0].due:
            assert take(broker, limit=25, paused_tasks=PAUSED) == []
        assert len(take(broker, limit=1, lease=1.0)) == 1  # the first step
        clock.advance(1.0)
        other = broker_factory(clock)  # another process goes on
        taken = [job_id for _ in range(40) for job_id in take(other, limit=25)]
        assert sorted(taken) == sorted(ids)
        assert other.count(JobFilter(statuses=(Status.STARTED,))).numbers == {"": 250}
        other.close()
