"""Edits of waiting jobs: params with search keys, priority, due time; and the guard of an edit."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import Cancel, ChangeResult, Edit, Limit, Requeue, Unique
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import WAITING, JobRecord, Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    BrokerFactory,
    Contract,
    bring_to,
    claim,
    new_job,
    put,
    put_many,
    record_of,
    run_in_threads,
    settle,
    started,
    take,
    take_one,
)

ONE = {"rule": Limit(concurrency=1)}
SLOW = {"rule": Limit(rate=1, per=10.0)}
KEYS = ("rule",)
DONE, REFUSED, UNKNOWN = ChangeResult.DONE, ChangeResult.REFUSED, ChangeResult.UNKNOWN
ROUNDS = 25


def edit_of(record: JobRecord, **changes: Any) -> Edit:
    """An edit of the job as this record has it."""
    return Edit(id=record.id, claims=record.claims, edits=record.edits, **changes)


def edit(broker: Broker, job_id: str, **changes: Any) -> ChangeResult:
    """Edits a job in its present version."""
    [answer] = broker.edit([edit_of(record_of(broker, job_id), **changes)])
    return answer


def found(broker: Broker, **parts: Any) -> list[str]:
    return sorted(record.id for record in broker.find(JobFilter(**parts)).records)


def _edit_beside_claim(
    broker: Broker, other: Broker, change: Edit
) -> tuple[list[ChangeResult], list[JobRecord]]:
    """Edits a job with one broker, and claims it with the other at the same time."""
    answers: list[ChangeResult] = []
    claimed: list[JobRecord] = []

    def work(is_edit: bool) -> None:
        if is_edit:
            answers.extend(broker.edit([change]))
        else:
            claimed.extend(claim(other, limit=1).records)

    run_in_threads(work, [(True,), (False,)])
    return answers, claimed


class EditContract(Contract):
    """What edit promises."""

    # --- values ----------------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "params",
        [{"a": 2, "b": [1, None]}, {}, {"$ref": {"$id": 1}, "a": "ü\0"}],
        ids=["others", "none", "odd"],
    )
    def test_an_edit_replaces_params_and_search_keys(
        self, broker: Broker, clock: ManualClock, params: JsonObject
    ) -> None:
        job_id = put(broker, clock, params={"a": 1, "$ref": "x"}, search_keys={"a": 1, "user": "me"})
        keys: JsonObject = {"a": 2, "$ref": True}
        assert edit(broker, job_id, params=params, search_keys=keys) is DONE
        record = record_of(broker, job_id)
        assert (record.params, record.search_keys, record.edits) == (params, keys, 1)
        assert found(broker, search_keys={"a": 1}) == found(broker, search_keys={"user": "me"}) == []
        assert found(broker, search_keys={"a": 2}) == found(broker, search_keys={"$ref": True}) == [job_id]
        taken = take_one(broker)
        assert (taken.params, taken.search_keys, taken.edits) == (params, keys, 1)
        assert settle(broker, taken, ttl=100.0)
        assert record_of(broker, job_id).params == params

    def test_params_without_search_keys_leave_none(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock, params={"a": 1}, search_keys={"a": 1})
        assert edit(broker, job_id, params={"a": 2}) is DONE
        assert record_of(broker, job_id).search_keys == {}
        assert found(broker, search_keys={"a": 1}) == []
        assert broker.remove([job_id]) == [DONE]
        assert found(broker) == []

    def test_parts_that_are_left_out_stay(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock, params={"a": 1}, search_keys={"a": 1}, priority=2, delay=5.0)
        before = record_of(broker, job_id)
        clock.advance(1)
        assert edit(broker, job_id) is DONE
        expected = {name: getattr(before, name) for name in JobRecord.__struct_fields__} | {"edits": 1}
        assert record_of(broker, job_id) == JobRecord(**expected)
        assert found(broker, search_keys={"a": 1}) == [job_id]
        assert edit(broker, job_id, priority=-1) is DONE
        expected |= {"edits": 2, "priority": -1}
        assert record_of(broker, job_id) == JobRecord(**expected)

    def test_an_edited_priority_changes_the_order(self, broker: Broker, clock: ManualClock) -> None:
        first, second, third = put_many(broker, clock, 3)
        assert edit(broker, third, priority=4) is DONE
        assert edit(broker, first, priority=-4) is DONE
        assert take(broker) == [third, second, first]

    @pytest.mark.parametrize("queue", ["q", "t/a"])
    def test_an_edited_due_time_is_kept(self, broker: Broker, clock: ManualClock, queue: str) -> None:
        later, sooner = put(broker, clock, queue), put(broker, clock, queue, delay=100.0)
        wanted = "t/" if queue == "t/a" else queue
        assert edit(broker, later, due_at=after(clock.now(), 50.0)) is DONE
        clock.advance(1)
        assert edit(broker, sooner, delay=5.0) is DONE
        assert record_of(broker, sooner).due_at == after(clock.now(), 5.0)
        answer = claim(broker, wanted)
        assert (answer.records, answer.next_due) == ((), after(clock.now(), 5.0))
        clock.advance(5)
        assert take(broker, wanted) == [sooner]
        assert edit(broker, later, delay=0.0) is DONE
        assert take(broker, wanted) == [later]

    def test_an_edit_changes_no_totals(self, broker: Broker, clock: ManualClock) -> None:
        job_id = bring_to(broker, clock, Status.RETRY)
        put_many(broker, clock, 2)
        totals, counts = broker.totals(), broker.counts(["q"])
        assert edit(broker, job_id, params={"a": 1}, priority=3) is DONE
        assert (broker.totals(), broker.counts(["q"])) == (totals, counts)

    def test_editing_a_retried_job_keeps_its_attempt(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock, search_keys={"a": 1})
        error = {"exception_type": "a.E", "exception_message": "no lamps", "error_group": "g"}
        assert settle(broker, record, Status.RETRY, delay=60.0, is_retry=True, **error)
        before = record_of(broker, record.id)
        clock.advance(5)
        assert edit(broker, record.id, params={"a": 2}, search_keys={"a": 2}, delay=0.0) is DONE
        after_it = record_of(broker, record.id)
        assert (after_it.updated_at, after_it.exception_type) == (before.updated_at, "a.E")
        assert found(broker, error_words=("lamps",), search_keys={"a": 2}) == [record.id]
        again = take_one(broker)
        assert (again.params, again.claims, again.retry_count) == ({"a": 2}, 2, 1)
        [attempt] = again.history
        assert (attempt.ended_at, attempt.exception_type) == (before.updated_at, "a.E")

    # --- the guard -------------------------------------------------------------------------------

    @pytest.mark.parametrize("status", list(Status))
    def test_only_waiting_jobs_are_edited(self, broker: Broker, clock: ManualClock, status: Status) -> None:
        job_id = bring_to(broker, clock, status)
        before = record_of(broker, job_id)
        is_edited = status in WAITING
        assert edit(broker, job_id, params={"a": 1}) is (DONE if is_edited else REFUSED)
        record = record_of(broker, job_id)
        assert record.params == ({"a": 1} if is_edited else {})
        assert is_edited or record == before

    def test_an_interrupted_at_most_once_job_is_not_edited(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock, at_most_once=True)
        settle(broker, record, Status.INTERRUPT, ttl=100.0)
        assert edit(broker, record.id, delay=0.0) is REFUSED
        assert take(broker) == []

    def test_an_edit_is_refused_after_a_claim(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        seen = record_of(broker, job_id)
        settle(broker, take_one(broker), Status.RETRY, delay=0.0)
        assert broker.edit([edit_of(seen, params={"a": 1})]) == [REFUSED]
        assert take_one(broker).params == {}

    def test_an_edit_is_refused_after_another_edit(self, broker: Broker, clock: ManualClock) -> None:
        seen = record_of(broker, put(broker, clock))
        first, second = edit_of(seen, params={"a": 1}), edit_of(seen, params={"a": 2})
        assert broker.edit([first]) == [DONE]
        assert broker.edit([second]) == [REFUSED]
        assert take_one(broker).params == {"a": 1}

    def test_a_repeated_edit_is_refused_and_changes_nothing(self, broker: Broker, clock: ManualClock) -> None:
        once = edit_of(record_of(broker, put(broker, clock)), delay=5.0)
        assert broker.edit([once]) == [DONE]
        before = record_of(broker, once.id)
        clock.advance(1)
        assert broker.edit([once]) == [REFUSED]
        assert record_of(broker, once.id) == before

    def test_edits_of_one_call_are_made_in_order(self, broker: Broker, clock: ManualClock) -> None:
        seen = record_of(broker, put(broker, clock))
        second = Edit(id=seen.id, claims=0, edits=1, priority=1)
        other = Edit(id="0" * 24, claims=0, edits=0, priority=1)
        odd = Edit(id="no id at all", claims=0, edits=0, priority=1)
        first = edit_of(seen, params={"a": 1})
        assert broker.edit([first, other, second, odd, first]) == [DONE, UNKNOWN, DONE, UNKNOWN, REFUSED]
        record = record_of(broker, seen.id)
        assert (record.params, record.priority, record.edits) == ({"a": 1}, 1, 2)

    def test_an_edit_of_an_expired_job_is_unknown(self, broker: Broker, clock: ManualClock) -> None:
        record = started(broker, clock)
        settle(broker, record, Status.FAILED, ttl=10.0)
        clock.advance(10)
        assert broker.edit([edit_of(record, priority=1)]) == [UNKNOWN]

    def test_an_edit_beside_a_claim_is_seen_by_it_or_refused(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        other = broker_factory(clock)
        try:
            for _ in range(ROUNDS):
                record = record_of(broker, put(broker, clock, params={"n": 0}))
                change = edit_of(record, params={"n": 1}, search_keys={"n": 1})
                answers, claimed = _edit_beside_claim(broker, other, change)
                claimed += claim(other, limit=1).records
                [taken] = claimed
                assert answers in ([DONE], [REFUSED])
                assert taken.params == {"n": 1 if answers == [DONE] else 0}
                assert record_of(broker, record.id).params == taken.params
                assert settle(other, taken, ttl=100.0)
        finally:
            other.close()

    def test_of_edits_at_once_one_is_made(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        brokers = [broker, *(broker_factory(clock) for _ in range(3))]
        try:
            record = record_of(broker, put(broker, clock))
            answers: list[ChangeResult] = []
            lock = threading.Lock()

            def work(number: int) -> None:
                made = brokers[number].edit([edit_of(record, params={"n": number})])
                with lock:
                    answers.extend(made)

            run_in_threads(work, [(number,) for number in range(4)])
            assert sorted(answers) == [DONE, REFUSED, REFUSED, REFUSED]
            assert record_of(broker, record.id).edits == 1
        finally:
            for other in brokers[1:]:
                other.close()

    # --- keys ------------------------------------------------------------------------------------

    def test_an_edited_job_keeps_its_unique_key(self, broker: Broker, clock: ManualClock) -> None:
        if not self.supports_unique:
            pytest.skip("this driver has no unique keys")
        job_id = put(broker, clock, unique=Unique(key="k"))
        assert edit(broker, job_id, params={"a": 1}, delay=5.0, priority=1) is DONE
        assert record_of(broker, job_id).unique_key == "k"
        [second] = broker.enqueue([new_job(clock, unique=Unique(key="k"))])
        assert (second.id, second.created) == (job_id, False)
        clock.advance(5)
        assert settle(broker, take_one(broker), ttl=100.0)
        assert broker.enqueue([new_job(clock, unique=Unique(key="k"))])[0].created

    def _skip_without_limits(self) -> None:
        if not self.supports_limits:
            pytest.skip("this driver has no limits")

    def test_an_edited_job_keeps_its_limit_keys(self, broker: Broker, clock: ManualClock) -> None:
        self._skip_without_limits()
        first, second = put_many(broker, clock, 2, limit_keys=KEYS)
        assert edit(broker, second, params={"a": 1}) is DONE
        assert take(broker, limits=ONE) == [first]
        assert take(broker, limits=ONE) == []

    def test_a_parked_job_stays_parked_with_its_new_priority(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        self._skip_without_limits()
        first, second, third = put_many(broker, clock, 3, limit_keys=KEYS)
        running = take_one(broker, limits=ONE)
        assert (running.id, take(broker, limits=ONE)) == (first, [])
        assert edit(broker, third, priority=3, params={"a": 1}) is DONE
        record = record_of(broker, third)
        assert (record.due_at, record.priority) == (None, 3)
        assert (broker.counts(["q"])[0].waiting, broker.counts(["q"])[0].due) == (2, 0)
        assert take(broker, limits=ONE) == []
        assert settle(broker, running, ttl=100.0)
        assert record_of(broker, second).due_at is None
        assert record_of(broker, third).due_at == clock.now()
        running = take_one(broker, limits=ONE)
        assert (running.id, running.params) == (third, {"a": 1})
        assert settle(broker, running, ttl=100.0)
        assert take(broker, limits=ONE) == [second]

    def test_a_parked_job_with_a_new_due_time_is_in_its_queue(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        self._skip_without_limits()
        _, second = put_many(broker, clock, 2, limit_keys=KEYS)
        running = take_one(broker, limits=ONE)
        assert take(broker, limits=ONE) == []
        assert edit(broker, second, delay=5.0) is DONE
        assert record_of(broker, second).due_at == after(clock.now(), 5.0)
        assert settle(broker, running, ttl=100.0)
        assert take(broker, limits=ONE) == []
        clock.advance(5)
        assert take(broker, limits=ONE) == [second]

    def test_a_job_that_was_pushed_back_keeps_its_time(self, broker: Broker, clock: ManualClock) -> None:
        self._skip_without_limits()
        first, second, third = put_many(broker, clock, 3, limit_keys=KEYS)
        assert take(broker, limits=SLOW) == [first]
        assert edit(broker, second, priority=4, params={"a": 1}) is DONE
        assert record_of(broker, second).due_at == after(clock.now(), 10.0)
        clock.advance(10)
        assert take(broker, limits=SLOW) == [second]
        clock.advance(10)
        assert take(broker, limits=SLOW) == [third]

    @pytest.mark.parametrize("delay", [1.0, 15.0])
    def test_a_job_with_a_new_due_time_is_charged_anew(
        self, broker: Broker, clock: ManualClock, delay: float
    ) -> None:
        self._skip_without_limits()
        first, second = put_many(broker, clock, 2, limit_keys=KEYS)
        assert take(broker, limits=SLOW) == [first]
        assert edit(broker, second, delay=delay) is DONE
        clock.advance(delay)
        assert take(broker, limits=SLOW) == []
        assert record_of(broker, second).due_at == after(clock.now(), 20.0 - delay)
        clock.advance(20.0 - delay)
        assert take(broker, limits=SLOW) == [second]

    @pytest.mark.parametrize("status", sorted(WAITING))
    def test_an_edited_job_is_cancelled_and_requeued_like_any_other(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job_id = bring_to(broker, clock, status, search_keys={"a": 1})
        assert edit(broker, job_id, params={"a": 2}, search_keys={"a": 2}, delay=5.0, priority=1) is DONE
        assert broker.cancel([job_id], Cancel()) == [DONE]
        assert broker.counts(["q"])[0].waiting == 0
        assert broker.requeue([job_id], Requeue()) == [DONE]
        assert take_one(broker).params == {"a": 2}
        assert found(broker, search_keys={"a": 2}) == [job_id]
