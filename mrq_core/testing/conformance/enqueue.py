"""Enqueueing: idempotent by id, stored as given, unique by key."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.messages import Enqueued
from mrq_core.contract.record import Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    BrokerFactory,
    Contract,
    new_job,
    put,
    put_many,
    record_of,
    settle,
    started,
    take,
    take_one,
)


def nested(levels: int) -> JsonValue:
    """Lists and dicts inside each other, to this depth."""
    value: JsonValue = "the bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"inside": value}
    return value


VALUES: dict[str, JsonValue] = {
    "nothing": None,
    "empty": ["", [], {}, {"": ""}],
    "unicode": {"schlüssel": "grün 🦊 \u2028 \uffff", "日本": "e\u0301"},
    "control characters": 'tab\t newline\n return\r escape\x1b quote" back\\slash',
    "nul in a text": "a\x00b",
    "numbers": [0, -1, 2**63 - 1, -(2**63), 0.1, -1.5e300, 5e-324, 1e16],
    "booleans are no numbers": [True, False, 1, 0],
    "whole floats stay floats": [1.0, 0.0],
    "large": "x" * 100_000,
    "many": list(range(10_000)),
    "deep": nested(60),
    "keys like operators": {"$set": {"$gt": 1}, "a.b": 1, "$where": "1", ".": 2, "$": 3, "_id": 4},
    "texts like operators": ["$now", "$$ROOT", "$literal", "%(x)s", "{0}", "?", ":name", "*"],
    "texts like SQL": ["'; DROP TABLE jobs; --", '"', "''", "NULL", "1 OR 1=1"],
    "keys with quotes": {'"': 1, "'": 2, "`": 3, "a b": 4, "[0]": 5, "#": 6, "\\": 7, "\n": 8},
    "keys that look like paths": {"$.a": 1, "a[0]": 2, "a": {"b": 3}, '$."a"': 4},
}


class EnqueueContract(Contract):
    """What enqueue promises, unique keys aside."""

    def test_an_enqueued_job_is_stored_as_it_was_given(self, broker: Broker, clock: ManualClock) -> None:
        job = new_job(
            clock,
            "main/sub",
            params={"a": 1},
            priority=-3,
            at_most_once=True,
            schedule="nightly",
            parents=("5f5f5f5f5f5f5f5f5f5f5f5f",),
            meta={"trace": "00-ab", "tags": ["x"]},
        )
        assert broker.enqueue([job]) == [Enqueued(id=job.record.id, created=True)]
        assert record_of(broker, job.record.id) == replace(job.record, due_at=clock.now())

    def test_a_job_is_due_at_once_unless_it_says_otherwise(self, broker: Broker, clock: ManualClock) -> None:
        job_id = put(broker, clock)
        assert record_of(broker, job_id).due_at == clock.now()
        assert take(broker) == [job_id]

    def test_a_delay_counts_from_the_brokers_now(self, broker: Broker, clock: ManualClock) -> None:
        job = new_job(clock, delay=10.5)
        clock.advance(100)
        broker.enqueue([job])
        assert record_of(broker, job.record.id).due_at == after(clock.now(), 10.5)

    def test_a_due_time_is_kept_to_the_millisecond(self, broker: Broker, clock: ManualClock) -> None:
        due_at = after(clock.now(), 86_400.001)
        assert record_of(broker, put(broker, clock, due_at=due_at)).due_at == due_at

    def test_enqueueing_the_same_id_twice_is_one_job(self, broker: Broker, clock: ManualClock) -> None:
        job = new_job(clock)
        broker.enqueue([job])
        assert broker.enqueue([job]) == [Enqueued(id=job.record.id, created=False)]
        assert take(broker) == [job.record.id]

    def test_an_id_that_exists_is_left_as_it_is(self, broker: Broker, clock: ManualClock) -> None:
        job = new_job(clock, params={"first": True})
        broker.enqueue([job])
        before = record_of(broker, job.record.id)
        again = replace(job, record=replace(job.record, params={}, queue="other", priority=4), delay=9.0)
        assert broker.enqueue([again]) == [Enqueued(id=job.record.id, created=False)]
        assert record_of(broker, job.record.id) == before
        assert take(broker, "other") == []

    def test_the_same_id_twice_in_one_call_is_one_job(self, broker: Broker, clock: ManualClock) -> None:
        job = new_job(clock)
        other = replace(job, record=replace(job.record, queue="other"))
        answers = broker.enqueue([job, other, job])
        assert [answer.created for answer in answers] == [True, False, False]
        assert record_of(broker, job.record.id).queue == "q"

    @pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILED, Status.STARTED])
    def test_a_job_that_ran_is_not_queued_again_by_its_id(
        self, broker: Broker, clock: ManualClock, status: Status
    ) -> None:
        job = new_job(clock)
        broker.enqueue([job])
        record = take_one(broker)
        if status is not Status.STARTED:
            settle(broker, record, status, ttl=100.0)
        assert broker.enqueue([job]) == [Enqueued(id=job.record.id, created=False)]
        assert take(broker) == []

    def test_answers_line_up_with_the_jobs(self, broker: Broker, clock: ManualClock) -> None:
        known = new_job(clock)
        broker.enqueue([known])
        jobs = [new_job(clock), known, new_job(clock)]
        assert broker.enqueue(jobs) == [
            Enqueued(id=jobs[0].record.id, created=True),
            Enqueued(id=known.record.id, created=False),
            Enqueued(id=jobs[2].record.id, created=True),
        ]

    def test_nothing_is_enqueued_by_an_empty_call(self, broker: Broker) -> None:
        assert broker.enqueue([]) == []

    def test_a_thousand_jobs_are_enqueued_in_one_call(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 1000)
        assert take(broker, limit=1000) == ids

    def test_another_process_sees_the_job(
        self, broker: Broker, broker_factory: BrokerFactory, clock: ManualClock
    ) -> None:
        job_id = put(broker, clock, params={"a": [1]})
        other = broker_factory(clock)
        assert record_of(other, job_id) == record_of(broker, job_id)
        assert take(other) == [job_id]
        other.close()

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
    def test_params_come_back_as_they_were(
        self, broker: Broker, clock: ManualClock, value: JsonValue
    ) -> None:
        job_id = put(broker, clock, params={"value": value})
        stored = record_of(broker, job_id).params["value"]
        assert stored == value
        assert repr(stored) == repr(value)

    @pytest.mark.parametrize("value", VALUES.values(), ids=VALUES.keys())
    def test_keys_and_values_survive_a_claim_and_a_result(
        self, broker: Broker, clock: ManualClock, value: JsonValue
    ) -> None:
        params = dict(value) if isinstance(value, dict) else {"value": value}
        record = started(broker, clock, params=params)
        assert record.params == params
        assert settle(broker, record, result=value, ttl=100.0)
        stored = record_of(broker, record.id)
        assert stored.params == params
        assert repr(stored.result) == repr(value)

    @pytest.mark.parametrize("text", ["über/ß", "a b", "$q", "q.r", "q'", 'q"', "q:*", "q{1}", "x" * 200])
    def test_any_text_can_be_the_name_of_a_queue_and_a_path(
        self, broker: Broker, clock: ManualClock, text: str
    ) -> None:
        job_id = put(broker, clock, text, path=text)
        put(broker, clock, text + "x")
        assert take(broker, text) == [job_id]
        assert broker.totals().by_path[text][Status.STARTED] == 1

    def test_what_the_caller_does_to_its_params_later_changes_nothing(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        inner: list[JsonValue] = [1]
        job_id = put(broker, clock, params={"list": inner})
        inner.append(2)
        given = record_of(broker, job_id)
        assert given.params == {"list": [1]}
        given.params["list"] = "changed"
        assert record_of(broker, job_id).params == {"list": [1]}
