"""The contract of a JobStore: what it alone promises, as one half of a composed broker.

What it shares with a broker, such as filters, logs and shared state, is tested through the composed broker.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from msgspec.structs import replace

from mrq_core import lifecycle
from mrq_core.changing import Replacement, Written
from mrq_core.clock import Clock, after
from mrq_core.errors import JobNotFound
from mrq_core.halves import Entry, JobStore, StoredJob
from mrq_core.ids import new_id
from mrq_core.job import JobRecord, Outcome, Status
from mrq_core.messages import JobFilter, LogLine, NewJob, Note, Settlement, Unique, Versions
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, new_job, run_in_threads

StoreFactory = Callable[[Clock], JobStore]
"""Opens another store, with this clock, on the data of the test that asked for the factory."""

THREADS = 8
SUCCESS = Outcome(status=Status.SUCCESS, ttl=1000.0, result=7)
FAILURE = Outcome(status=Status.FAILED, ttl=1000.0, exception_type="E", traceback="T")
RETRY = Outcome(status=Status.RETRY, delay=5.0, is_retry=True, exception_type="E")
INTERRUPT = Outcome(status=Status.INTERRUPT, delay=0.0)
FULL: dict[str, Any] = {
    "path": "tests.tasks.Other",
    "params": {"a": [1, 2.5, None, {"b.c": "$d"}], "$ref": "x", "": True},
    "raw_queue": "urls_set",
    "priority": 3,
    "at_most_once": True,
    "limit_keys": ("rule:1", "other"),
    "schedule": "each minute",
    "parents": ("0" * 24,),
    "meta": {"trace": {"$ref": 1}},
}
"""Fields of a record that a new job may have."""
WRONG: dict[str, Callable[[Entry], Entry]] = {
    "an earlier version": lambda entry: replace(entry, version=entry.version - 1),
    "a later version": lambda entry: replace(entry, version=entry.version + 1),
    "another queue": lambda entry: replace(entry, queue="x"),
    "no token": lambda entry: replace(entry, token=None),
    "an earlier claim": lambda entry: replace(entry, token=f"{entry.claims}.n"),
    "a later claim": lambda entry: replace(entry, token=f"{entry.claims + 2}.n"),
    "another form of the claim's number": lambda entry: replace(entry, token=f"0{entry.claims + 1}.n"),
    "a token without a number": lambda entry: replace(entry, token="n"),
    "an unknown id": lambda entry: replace(entry, id="f" * 24),
    "no id": lambda entry: replace(entry, id="no id"),
}
"""What makes a fitting entry one that does not fit."""


class StoreContract:
    """The contract of a store. A driver's tests subclass it and give the fixture `store_factory`.

    The data behind a factory are empty when the test starts. Two stores of one factory stand for two
    processes.
    """

    @pytest.fixture
    def store_factory(self) -> StoreFactory:
        raise NotImplementedError("give your test class a fixture `store_factory`: see StoreFactory")

    @pytest.fixture
    def clock(self) -> ManualClock:
        return ManualClock()

    @pytest.fixture
    def store(self, store_factory: StoreFactory, clock: ManualClock) -> Iterator[JobStore]:
        store = store_factory(clock)
        store.prepare()
        yield store
        store.close()

    @pytest.fixture
    def other(self, store_factory: StoreFactory, clock: ManualClock) -> Iterator[JobStore]:
        """The store of another process."""
        store = store_factory(clock)
        yield store
        store.close()

    # --- insert and read ---------------------------------------------------------------------

    def test_a_new_job_is_read_as_it_was_given_as_version_1(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        plain, full = new_job(clock), new_job(clock, "t/a", **FULL, due_at=after(clock.now(), 77.0))
        assert store.insert([plain, full]) == [True, True]
        for job in (plain, full):
            stored = read_one(other, job.record.id)
            assert stored.record == job.record
            assert (stored.version, stored.unique) == (1, None)

    @pytest.mark.parametrize("due", [None, -1000.0, 0.0, 1000.0])
    def test_the_due_time_stays_as_it_is_whatever_time_it_is(
        self, store: JobStore, clock: ManualClock, due: float | None
    ) -> None:
        due_at = None if due is None else after(clock.now(), due)
        job = new_job(clock, due_at=due_at)
        store.insert([job])
        clock.advance(50.0)
        assert read_one(store, job.record.id).record.due_at == due_at

    @pytest.mark.parametrize(("until", "period"), [("queued", None), ("done", None), ("period", 12.5)])
    def test_the_unique_key_of_a_job_is_given_back_as_it_was_given(
        self, store: JobStore, clock: ManualClock, until: str, period: float | None
    ) -> None:
        unique = Unique(key="k 1", until=until, period=period)
        job_id = put(store, clock, unique=unique)
        assert read_one(store, job_id).unique == unique
        start_one(store, clock, job_id)
        settle_one(store, clock, job_id, RETRY)
        found = read_one(store, job_id)
        assert (found.unique, found.record.unique_key) == (unique, "k 1")

    def test_a_store_knows_nothing_of_who_holds_a_unique_key(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        jobs = [new_job(clock, unique=Unique(key="k")) for _ in range(2)]
        assert store.insert(jobs) == [True, True]
        for job in jobs:
            found = read_one(store, job.record.id)
            cancelled = lifecycle.cancelled(found.record, now=clock.now(), ttl=100.0)
            assert write_one(store, clock, found, cancelled) is Written.DONE
            again = lifecycle.requeued(cancelled, now=clock.now(), queue=None, reset_retries=True)
            found = read_one(store, job.record.id)
            assert write_one(store, clock, found, again, reserve=True) is Written.DONE

    def test_a_new_job_may_be_started_already(self, store: JobStore, clock: ManualClock) -> None:
        record = lifecycle.admitted(
            replace(new_job(clock).record, worker="w"),
            job_id=new_id(),
            token="3.abc",
            now=clock.now(),
            lease=LEASE,
        )
        assert store.insert([NewJob(record=record)]) == [True]
        assert read_one(store, record.id).record == record
        assert numbers(store) == {Status.STARTED: 1}
        settlement = Settlement(id=record.id, token="3.abc", outcome=SUCCESS)
        assert store.succeed([settlement], clock.now()) == [True]

    def test_an_id_that_exists_stays_as_it_is(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        job = new_job(clock)
        store.insert([job])
        start_one(store, clock, job.record.id)
        before = read_one(store, job.record.id)
        changed = replace(job, record=replace(job.record, queue="other"))
        fresh = new_job(clock)
        assert other.insert([changed, fresh]) == [False, True]
        found = read_one(store, job.record.id)
        assert (found.record, found.version) == (before.record, before.version)
        check_totals(store, {Status.STARTED: 1, Status.QUEUED: 1})

    def test_of_two_jobs_of_one_id_the_first_is_stored(self, store: JobStore, clock: ManualClock) -> None:
        first, another = new_job(clock, params={"n": 1}), new_job(clock)
        second = replace(first, record=replace(first.record, params={"n": 2}))
        assert store.insert([another, first, second]) == [True, True, False]
        assert read_one(store, first.record.id).record.params == {"n": 1}
        check_totals(store, {Status.QUEUED: 2})

    def test_what_has_expired_makes_room(self, store: JobStore, clock: ManualClock) -> None:
        job_id = put(store, clock, unique=Unique(key="k"))
        start_one(store, clock, job_id)
        store.append_logs([line(clock, job_id)], 1000)
        settle_one(store, clock, job_id, SUCCESS)
        anew = new_job(clock, id=job_id, params={"n": 2})
        clock.advance(999.0)
        assert store.insert([anew]) == [False]
        clock.advance(1.0)
        anew = replace(anew, record=replace(anew.record, queued_at=clock.now()))
        assert store.insert([anew]) == [True]
        found = read_one(store, job_id)
        assert (found.record, found.version, found.unique) == (anew.record, 1, None)
        assert store.read_logs(job_id).lines == ()
        check_totals(store, {Status.QUEUED: 1})
        assert start_one(store, clock, job_id).claims == 1

    def test_nothing_is_inserted_read_or_written_of_nothing(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        assert store.insert([]) == []
        assert list(store.read([])) == []
        assert store.write([], clock.now()) == []
        assert store.start([], worker="w", lease=LEASE, now=clock.now()) == []
        assert store.succeed([], clock.now()) == []
        assert store.annotate([], clock.now()) == []
        store.finish([])

    def test_jobs_are_read_in_the_order_of_the_call_and_unknown_ones_are_none(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        first, second = put(store, clock), put(store, clock)
        found = store.read([second, new_id(), first, "no id", second])
        ids = [None if one is None else one.record.id for one in found]
        assert ids == [second, None, first, None, second]

    def test_an_expired_job_is_read_but_not_found(self, store: JobStore, clock: ManualClock) -> None:
        job_id = put(store, clock)
        start_one(store, clock, job_id)
        settle_one(store, clock, job_id, SUCCESS)
        assert [one.id for one in store.find(JobFilter()).records] == [job_id]
        clock.advance(1000.0)
        assert read_one(store, job_id).record.status is Status.SUCCESS
        assert store.find(JobFilter()).records == ()
        assert store.count(JobFilter()) == {"": 0}
        with pytest.raises(JobNotFound):
            store.read_logs(job_id)

    # --- write -------------------------------------------------------------------------------

    def test_a_write_makes_the_record_what_was_given_and_counts_one_version(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        job_id = put(store, clock, **FULL)
        now = clock.now()
        steps: list[Callable[[JobRecord], JobRecord]] = [
            lambda record: claimed(clock, record),
            lambda record: lifecycle.settled(record, RETRY, now),
            lambda record: replace(record, queue="t/b"),
            lambda record: claimed(clock, record, alone=True),
            lambda record: replace(record, cancel_requested=True),
            lambda record: lifecycle.settled(record, FAILURE, now),
            lambda record: lifecycle.requeued(
                record, now=now, queue="q", reset_retries=True, delay=5.0
            ),
            lambda record: lifecycle.cancelled(record, now=now, ttl=50.0),
        ]  # fmt: skip
        for number, step in enumerate(steps, start=1):
            before = read_one(store, job_id)
            wanted = step(before.record)
            assert before.version == number
            assert write_one(store, clock, before, wanted) is Written.DONE
            found = read_one(other, job_id)
            assert (found.record, found.version) == (wanted, number + 1)
            check_totals(store, {wanted.status: 1})

    def test_what_has_changed_since_it_was_read_is_not_written(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        ids = [put(store, clock) for _ in range(3)]
        before = {job_id: read_one(store, job_id) for job_id in ids}
        first = read_one(other, ids[1])
        assert write_one(other, clock, first, replace(first.record, queue="x")) is Written.DONE
        replacements = [
            Replacement(one, lifecycle.cancelled(one.record, now=clock.now(), ttl=50.0))
            for one in before.values()
        ]
        assert store.write(replacements, clock.now()) == [Written.DONE, Written.CHANGED, Written.DONE]
        found = read_one(store, ids[1])
        assert (found.record.queue, found.record.status, found.version) == ("x", Status.QUEUED, 2)
        check_totals(store, {Status.CANCEL: 2, Status.QUEUED: 1})

    @pytest.mark.parametrize("how", ["write", "start", "succeed", "delete", "anew"])
    def test_every_change_is_seen_by_who_has_read_the_job_before(
        self, store: JobStore, clock: ManualClock, how: str
    ) -> None:
        job_id = put(store, clock)
        if how == "succeed":
            start_one(store, clock, job_id)
        before = read_one(store, job_id)
        record = before.record
        if how == "write":
            write_one(store, clock, before, replace(record, queue="x"))
        elif how == "start":
            start_one(store, clock, job_id)
        elif how == "succeed":
            assert succeed_one(store, clock, record)
        else:
            write_one(store, clock, before, None)
            clock.advance(1.0)
            if how == "anew":
                store.insert([new_job(clock, id=job_id)])
        now_there = store.read([job_id])[0]
        for wanted in (replace(record, queue="y"), None):
            assert write_one(store, clock, before, wanted, ask_to_stop=True) is Written.CHANGED
        found = store.read([job_id])[0]
        assert (found and found.record) == (now_there and now_there.record)
        assert store.poll("w", Versions()).interrupts == ()
        check_totals(store)

    def test_a_deleted_job_is_gone_with_its_logs(self, store: JobStore, clock: ManualClock) -> None:
        job_id, kept = put(store, clock, "x"), put(store, clock)
        store.append_logs([line(clock, job_id), line(clock, kept)], 1000)
        before = read_one(store, job_id)
        assert write_one(store, clock, before, None) is Written.DONE
        assert list(store.read([job_id])) == [None]
        assert [one.id for one in store.find(JobFilter()).records] == [kept]
        with pytest.raises(JobNotFound):
            store.read_logs(job_id)
        assert len(store.read_logs(kept).lines) == 1
        check_totals(store, {Status.QUEUED: 1})
        assert "x" in store.known()
        assert write_one(store, clock, before, None) is Written.CHANGED
        anew = new_job(clock, id=job_id)
        assert store.insert([anew]) == [True]
        assert store.read_logs(job_id).lines == ()

    def test_its_worker_is_told_of_a_job_that_is_to_stop(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        ids = [put(store, clock) for _ in range(2)]
        for job_id, asked in zip(ids, (True, False), strict=True):
            start_one(store, clock, job_id)
            before = read_one(store, job_id)
            marked = replace(before.record, cancel_requested=True)
            assert write_one(store, clock, before, marked, ask_to_stop=asked) is Written.DONE
        changes = other.poll("w", Versions())
        assert changes.interrupts == (ids[0],)
        assert other.poll("w", changes.versions).interrupts == ()
        assert other.poll("another", Versions()).interrupts == ()

    # --- follow-ups --------------------------------------------------------------------------

    def test_follow_ups_are_stored_with_their_parent_and_not_enqueued(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        job_id = put(store, clock)
        start_one(store, clock, job_id)
        before = read_one(store, job_id)
        followups = (
            new_job(clock, "t/a", **FULL, due_at=after(clock.now(), 9.0)).record,
            new_job(clock).record,
        )
        settled = lifecycle.settled(before.record, SUCCESS, clock.now())
        assert write_one(store, clock, before, settled, followups=followups) is Written.DONE
        assert other.unfinished(10) == [(job_id, list(followups))]
        assert list(other.read([one.id for one in followups])) == [None, None]
        assert store.count(JobFilter()) == {"": 1}
        assert read_one(other, job_id).record == settled
        check_totals(store, {Status.SUCCESS: 1})

    def test_finished_follow_ups_are_forgotten_and_others_are_not(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        ids = [put_parent(store, clock) for _ in range(3)]
        version = read_one(store, ids[0]).version
        store.finish([ids[0], ids[2], new_id()])
        assert [parent for parent, _ in store.unfinished(10)] == [ids[1]]
        store.finish([ids[0]])
        assert read_one(store, ids[0]).version == version
        store.finish(ids)
        assert store.unfinished(10) == []

    def test_unfinished_are_those_of_changes_made_before_that_time_and_not_too_many(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        first = put_parent(store, clock)
        clock.advance(1.0)
        middle = clock.now()
        second = put_parent(store, clock)
        assert [parent for parent, _ in store.unfinished(10, before=middle)] == [first]
        assert {parent for parent, _ in store.unfinished(10, before=after(middle, 0.001))} == {first, second}
        assert {parent for parent, _ in store.unfinished(10)} == {first, second}
        assert len(store.unfinished(1)) == 1
        assert store.unfinished(0) == []

    def test_follow_ups_stay_when_the_parent_is_changed_again(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job_id = put_parent(store, clock)
        [(_, followups)] = store.unfinished(10)
        before = read_one(store, job_id)
        again = lifecycle.requeued(before.record, now=clock.now(), queue=None, reset_retries=True)
        write_one(store, clock, before, again)
        start_one(store, clock, job_id)
        assert store.unfinished(10) == [(job_id, followups)]

    def test_follow_ups_of_a_change_that_was_not_made_are_not_stored(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job_id = put(store, clock)
        before = read_one(store, job_id)
        start_one(store, clock, job_id)
        followups = (new_job(clock).record,)
        late = replace(before.record, queue="x")
        assert write_one(store, clock, before, late, followups=followups) is Written.CHANGED
        assert store.unfinished(10) == []

    # --- start -------------------------------------------------------------------------------

    @pytest.mark.parametrize("status", ["new", "retry", "interrupt", "requeued", "given back"])
    def test_a_started_job_is_what_lifecycle_says(
        self, store: JobStore, other: JobStore, clock: ManualClock, status: str
    ) -> None:
        job_id = put(store, clock, **FULL, unique=Unique(key="k"))
        if status == "retry":
            start_one(store, clock, job_id)
            settle_one(store, clock, job_id, RETRY)
        elif status == "interrupt":
            start_one(store, clock, job_id)
            settle_one(store, clock, job_id, INTERRUPT)
        elif status == "requeued":
            start_one(store, clock, job_id)
            settle_one(store, clock, job_id, FAILURE)
            ended = read_one(store, job_id)
            again = lifecycle.requeued(ended.record, now=clock.now(), queue="y", reset_retries=False)
            write_one(store, clock, ended, again)
        elif status == "given back":
            start_one(store, clock, job_id)
            settle_one(store, clock, job_id, Outcome(status=Status.QUEUED, delay=0.0))
        clock.advance(2.0)
        before = read_one(store, job_id)
        expected = lifecycle.claimed(
            before.record, now=clock.now(), worker="w2", nonce="abc", lease=30.0, alone=False
        )
        entry = entry_of(before, nonce="abc")
        assert store.start([entry], worker="w2", lease=30.0, now=clock.now()) == [expected]
        found = read_one(other, job_id)
        assert (found.record, found.version) == (expected, before.version + 1)
        check_totals(store, {Status.STARTED: 1})

    @pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
    @pytest.mark.parametrize("waits", ["new", "to be retried"])
    def test_an_entry_that_does_not_fit_starts_nothing(
        self, store: JobStore, clock: ManualClock, wrong: Callable[[Entry], Entry], waits: str
    ) -> None:
        job_id = put(store, clock)
        if waits == "to be retried":
            start_one(store, clock, job_id)
            settle_one(store, clock, job_id, RETRY)
        before = read_one(store, job_id)
        fitting = entry_of(before)
        assert store.start([wrong(fitting)], worker="w", lease=LEASE, now=clock.now()) == [None]
        found = read_one(store, job_id)
        assert (found.record, found.version) == (before.record, before.version)
        check_totals(store, {before.record.status: 1})
        [record] = store.start([fitting], worker="w", lease=LEASE, now=clock.now())
        assert record is not None

    @pytest.mark.parametrize("status", [Status.STARTED, Status.SUCCESS, Status.FAILED, Status.CANCEL])
    def test_a_job_that_does_not_wait_is_not_started(
        self, store: JobStore, clock: ManualClock, status: Status
    ) -> None:
        job_id = put(store, clock)
        if status is Status.CANCEL:
            before = read_one(store, job_id)
            cancelled = lifecycle.cancelled(before.record, now=clock.now(), ttl=100.0)
            write_one(store, clock, before, cancelled)
        else:
            start_one(store, clock, job_id)
            if status is not Status.STARTED:
                settle_one(store, clock, job_id, Outcome(status=status, ttl=100.0))
        before = read_one(store, job_id)
        assert store.start([entry_of(before)], worker="w", lease=LEASE, now=clock.now()) == [None]
        assert read_one(store, job_id).record == before.record
        check_totals(store, {status: 1})

    def test_an_interrupted_job_that_has_ended_is_not_started(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job_id = put(store, clock, at_most_once=True)
        start_one(store, clock, job_id)
        settle_one(store, clock, job_id, Outcome(status=Status.INTERRUPT, ttl=100.0))
        before = read_one(store, job_id)
        assert store.start([entry_of(before)], worker="w", lease=LEASE, now=clock.now()) == [None]
        assert read_one(store, job_id).record == before.record

    def test_jobs_are_started_each_under_its_token_and_given_in_the_order_of_the_entries(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        ids = [put(store, clock, params={"n": number}) for number in range(6)]
        start_one(store, clock, ids[1])
        settle_one(store, clock, ids[1], RETRY)
        start_one(store, clock, ids[4])
        found = [read_one(store, job_id) for job_id in ids]
        entries = [entry_of(one, nonce="a" if place < 3 else "b") for place, one in enumerate(found)]
        entries = [entries[place] for place in (5, 1, 4, 0, 3, 2)]
        records = store.start(entries, worker="w", lease=LEASE, now=clock.now())
        assert [record and record.id for record in records] == [
            None if entry.id == ids[4] else entry.id for entry in entries
        ]
        for entry, record in zip(entries, records, strict=True):
            if record is not None:
                assert record.token == entry.token
                assert record.params == {"n": ids.index(record.id)}
                assert read_one(store, record.id).record == record
        check_totals(store, {Status.STARTED: 6})

    def test_of_two_entries_for_one_job_one_starts_it(self, store: JobStore, clock: ManualClock) -> None:
        before = read_one(store, put(store, clock))
        entries = [entry_of(before, nonce="a"), entry_of(before, nonce="b")]
        [first, second] = store.start(entries, worker="w", lease=LEASE, now=clock.now())
        assert first is not None
        assert (first.token, second) == ("1.a", None)
        assert read_one(store, first.id).record == first
        check_totals(store, {Status.STARTED: 1})

    def test_an_entry_starts_its_job_once(self, store: JobStore, other: JobStore, clock: ManualClock) -> None:
        entries = [entry_of(read_one(store, put(store, clock))) for _ in range(3)]
        assert None not in store.start(entries, worker="w", lease=LEASE, now=clock.now())
        for one in (store, other):
            assert one.start(entries, worker="w", lease=LEASE, now=clock.now()) == [None] * 3
        check_totals(store, {Status.STARTED: 3})

    # --- succeed -----------------------------------------------------------------------------

    @pytest.mark.parametrize(
        "more",
        [
            {},
            {"ttl": None},
            {"result": {"a": [1, "$b", {"$ref": 2}]}},
            {"result": "x" * 5000},
            {"total_time": 1.5, "greenlet_time": 0.5, "switches": 3, "memory_diff": -1000},
        ],
        ids=lambda more: ",".join(more),
    )
    def test_a_success_is_what_lifecycle_says(
        self, store: JobStore, other: JobStore, clock: ManualClock, more: dict[str, Any]
    ) -> None:
        outcome = replace(SUCCESS, **more)
        ids = [put(store, clock, **FULL) for _ in range(3)]
        records = [start_one(store, clock, job_id) for job_id in ids]
        clock.advance(3.0)
        settlements = [settlement_of(record, outcome) for record in records]
        versions = [read_one(store, job_id).version for job_id in ids]
        assert store.succeed(settlements, clock.now()) == [True, True, True]
        for record, version in zip(records, versions, strict=True):
            found = read_one(other, record.id)
            assert found.record == lifecycle.settled(record, outcome, clock.now())
            assert found.version > version
        check_totals(store, {Status.SUCCESS: 3})

    def test_a_success_of_jobs_with_limits_and_unique_keys_concerns_nothing_else(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        job_id = put(store, clock, limit_keys=("a", "b"), unique=Unique(key="k"))
        assert succeed_one(store, clock, start_one(store, clock, job_id))

    def test_a_success_of_a_job_that_another_process_has_started_is_written(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        record = start_one(store, clock, put(store, clock))
        assert succeed_one(other, clock, record)
        check_totals(store, {Status.SUCCESS: 1})

    def test_a_success_is_written_once(self, store: JobStore, other: JobStore, clock: ManualClock) -> None:
        record = start_one(store, clock, put(store, clock))
        settlement = settlement_of(record, SUCCESS)
        assert store.succeed([settlement, settlement], clock.now()) == [True, False]
        assert store.succeed([settlement], clock.now()) == [False]
        assert other.succeed([settlement], clock.now()) == [False]
        check_totals(store, {Status.SUCCESS: 1})

    @pytest.mark.parametrize("why", ["token", "retry", "cancel requested", "claimed again", "removed"])
    @pytest.mark.parametrize("whose", ["ours", "theirs"])
    def test_a_success_that_has_to_be_looked_at_is_not_written(
        self, store: JobStore, other: JobStore, clock: ManualClock, why: str, whose: str
    ) -> None:
        record = start_one(store, clock, put(store, clock))
        settlement = settlement_of(record, SUCCESS)
        before = read_one(store, record.id)
        if why == "token":
            settlement = replace(settlement, token="1.other")
        elif why == "retry":
            settle_one(store, clock, record.id, RETRY)
        elif why == "cancel requested":
            marked = replace(before.record, cancel_requested=True)
            assert write_one(store, clock, before, marked) is Written.DONE
        elif why == "claimed again":
            write_one(store, clock, before, claimed(clock, before.record, alone=True))
        elif why == "removed":
            write_one(store, clock, before, None)
        found = store.read([record.id])[0]
        asked = store if whose == "ours" else other
        other_job = start_one(asked, clock, put(store, clock))
        answers = asked.succeed([settlement, settlement_of(other_job, SUCCESS)], clock.now())
        assert answers == [False, True]
        now_there = store.read([record.id])[0]
        assert (found and found.record) == (now_there and now_there.record)
        assert (found and found.version) == (now_there and now_there.version)
        check_totals(store)

    def test_a_success_of_an_unknown_job_is_not_written(self, store: JobStore, clock: ManualClock) -> None:
        settlements = [Settlement(id=job_id, token="1.a", outcome=SUCCESS) for job_id in (new_id(), "no id")]
        assert store.succeed(settlements, clock.now()) == [False, False]
        check_totals(store, {})

    # --- annotate ----------------------------------------------------------------------------

    def test_progress_is_written_under_the_latest_token(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        running, waiting = start_one(store, clock, put(store, clock)), put(store, clock)
        ended = start_one(store, clock, put(store, clock))
        succeed_one(store, clock, ended)
        clock.advance(1.0)
        notes = [
            Note(id=running.id, token=running.token or "", progress=0.5),
            Note(id=running.id, token="1.other", progress=0.7),
            Note(id=waiting, token="1.a", progress=0.7),
            Note(id=ended.id, token=ended.token or "", progress=0.7),
            Note(id="no id", token="1.a", progress=0.7),
        ]
        assert other.annotate(notes, clock.now()) == [True, False, False, False, False]
        found = read_one(store, running.id).record
        assert found == replace(running, progress=0.5, updated_at=clock.now())
        assert read_one(store, waiting).record.progress == 0.0

    def test_progress_is_no_new_version(self, store: JobStore, clock: ManualClock) -> None:
        record = start_one(store, clock, put(store, clock))
        before = read_one(store, record.id)
        note = Note(id=record.id, token=record.token or "", progress=0.5)
        assert store.annotate([note], clock.now()) == [True]
        assert read_one(store, record.id).version == before.version
        settled = lifecycle.settled(before.record, FAILURE, clock.now())
        assert write_one(store, clock, before, settled) is Written.DONE

    # --- prune and totals --------------------------------------------------------------------

    def test_prune_deletes_expired_jobs_with_their_logs_and_says_how_many(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        ids = [put(store, clock) for _ in range(5)]
        for job_id in ids[:4]:
            start_one(store, clock, job_id)
            store.append_logs([line(clock, job_id)], 1000)
        for job_id in ids[:3]:
            settle_one(store, clock, job_id, SUCCESS)
        assert store.prune(10) == 0
        clock.advance(1000.0)
        assert other.prune(0) == 0
        assert other.prune(2) == 2
        assert other.prune(10) == 1
        assert [one is None for one in store.read(ids)] == [True, True, True, False, False]
        check_totals(store, {Status.STARTED: 1, Status.QUEUED: 1})
        store.insert([new_job(clock, id=ids[0])])
        assert store.read_logs(ids[0]).lines == ()
        assert len(store.read_logs(ids[3]).lines) == 1

    def test_names_of_queues_stay_known(self, store: JobStore, clock: ManualClock) -> None:
        put(store, clock, "a")
        put(store, clock, "t/b")
        job_id = put(store, clock, "c")
        before = read_one(store, job_id)
        write_one(store, clock, before, replace(before.record, queue="d"))
        assert store.known() == ["a", "c", "d", "t/b"]
        assert store.known("t/") == ["t/b"]
        assert store.known(after="a", limit=2) == ["c", "d"]

    @pytest.mark.parametrize("seed", range(5))
    def test_totals_are_a_count_after_any_history(
        self, store: JobStore, other: JobStore, clock: ManualClock, seed: int
    ) -> None:
        chosen = random.Random(seed)
        ids: list[str] = []
        for _ in range(60):
            one = chosen.choice([store, other])
            if not ids or chosen.random() < 0.3:
                ids.append(put(one, clock, chosen.choice(["q", "r", "t/a"]), path=chosen.choice("ab")))
                continue
            job_id = chosen.choice(ids)
            found = one.read([job_id])[0]
            if found is None:
                continue
            record = found.record
            if record.status is Status.STARTED:
                outcome = chosen.choice([SUCCESS, FAILURE, RETRY, INTERRUPT])
                if outcome is SUCCESS and chosen.random() < 0.5:
                    assert succeed_one(one, clock, record)
                else:
                    settle_one(one, clock, job_id, outcome)
            elif record.status.is_waiting and chosen.random() < 0.8:
                assert start_one(one, clock, job_id)
            elif record.is_ended and chosen.random() < 0.7:
                again = lifecycle.requeued(record, now=clock.now(), queue="r", reset_retries=False)
                assert write_one(one, clock, found, again) is Written.DONE
            else:
                assert write_one(one, clock, found, None) is Written.DONE
        check_totals(store)

    # --- many at once ------------------------------------------------------------------------

    @pytest.mark.parametrize("shared", [True, False], ids=["one store", "a store each"])
    def test_of_all_who_write_what_they_have_read_one_is_written_each_time(
        self, store: JobStore, store_factory: StoreFactory, clock: ManualClock, shared: bool
    ) -> None:
        job_id = put(store, clock)

        def work() -> None:
            mine = store if shared else store_factory(clock)
            left = 10
            while left:
                before = read_one(mine, job_id)
                wanted = replace(before.record, retry_count=before.record.retry_count + 1)
                left -= write_one(mine, clock, before, wanted) is Written.DONE
            if not shared:
                mine.close()

        run_in_threads(work, [()] * THREADS)
        found = read_one(store, job_id)
        assert found.record.retry_count == 10 * THREADS
        assert found.version == 10 * THREADS + 1
        check_totals(store, {Status.QUEUED: 1})

    def test_of_all_who_start_a_job_one_has_it(self, store: JobStore, clock: ManualClock) -> None:
        found = [read_one(store, put(store, clock)) for _ in range(20)]
        started: list[JobRecord] = []

        def work(name: str) -> None:
            entries = [entry_of(one, nonce=name) for one in found]
            records = store.start(entries, worker=name, lease=LEASE, now=clock.now())
            started.extend(record for record in records if record is not None)

        run_in_threads(work, [(f"w{number}",) for number in range(THREADS)])
        assert sorted(record.id for record in started) == sorted(one.record.id for one in found)
        for record in started:
            assert read_one(store, record.id).record == record
        check_totals(store, {Status.STARTED: 20})

    def test_of_all_who_end_an_attempt_one_has_written_it(self, store: JobStore, clock: ManualClock) -> None:
        records = [start_one(store, clock, put(store, clock)) for _ in range(20)]
        written: list[bool] = []

        def work(number: int) -> None:
            outcome = replace(SUCCESS, result=number)
            written.extend(store.succeed([settlement_of(one, outcome) for one in records], clock.now()))

        run_in_threads(work, [(number,) for number in range(THREADS)])
        assert sum(written) == len(records)
        check_totals(store, {Status.SUCCESS: 20})

    def test_of_all_who_insert_an_id_one_has_stored_it(self, store: JobStore, clock: ManualClock) -> None:
        jobs = [new_job(clock) for _ in range(20)]
        created: list[bool] = []
        run_in_threads(lambda: created.extend(store.insert(jobs)), [()] * THREADS)
        assert sum(created) == len(jobs)
        check_totals(store, {Status.QUEUED: 20})


# --- words ----------------------------------------------------------------------------------


def put(store: JobStore, clock: ManualClock, queue: str = "q", **fields: Any) -> str:
    """Stores a new job; answers with its id."""
    job = new_job(clock, queue, **fields)
    assert store.insert([job]) == [True]
    return job.record.id


def read_one(store: JobStore, job_id: str) -> StoredJob:
    """A job that has to be there."""
    [found] = store.read([job_id])
    assert found is not None
    return found


def write_one(
    store: JobStore, clock: ManualClock, before: StoredJob, wanted: JobRecord | None, **more: Any
) -> Written:
    [answer] = store.write([Replacement(before, wanted, **more)], clock.now())
    return answer


def entry_of(stored: StoredJob, nonce: str = "n") -> Entry:
    """A claimed entry of the job as it was read."""
    record = stored.record
    return Entry(
        id=record.id,
        queue=record.queue,
        version=stored.version,
        due_at=record.due_at,
        claims=record.claims,
        token=lifecycle.make_token(record.claims + 1, nonce),
    )


def claimed(clock: ManualClock, record: JobRecord, alone: bool = False) -> JobRecord:
    return lifecycle.claimed(record, now=clock.now(), worker="w", nonce="c", lease=LEASE, alone=alone)


def start_one(store: JobStore, clock: ManualClock, job_id: str) -> JobRecord:
    """Starts a job that has to wait."""
    entry = entry_of(read_one(store, job_id))
    [record] = store.start([entry], worker="w", lease=LEASE, now=clock.now())
    assert record is not None
    return record


def settle_one(store: JobStore, clock: ManualClock, job_id: str, outcome: Outcome) -> None:
    """Ends the running attempt of a job in full."""
    before = read_one(store, job_id)
    settled = lifecycle.settled(before.record, outcome, clock.now())
    assert write_one(store, clock, before, settled) is Written.DONE


def settlement_of(record: JobRecord, outcome: Outcome) -> Settlement:
    assert record.token is not None
    return Settlement(id=record.id, token=record.token, outcome=outcome)


def succeed_one(store: JobStore, clock: ManualClock, record: JobRecord) -> bool:
    [written] = store.succeed([settlement_of(record, SUCCESS)], clock.now())
    return written


def put_parent(store: JobStore, clock: ManualClock) -> str:
    """A job that has ended, with a follow-up that is not known to be enqueued."""
    job_id = put(store, clock)
    start_one(store, clock, job_id)
    before = read_one(store, job_id)
    settled = lifecycle.settled(before.record, SUCCESS, clock.now())
    followups = (new_job(clock).record,)
    assert write_one(store, clock, before, settled, followups=followups) is Written.DONE
    return job_id


def line(clock: ManualClock, job_id: str) -> LogLine:
    return LogLine(job_id=job_id, attempt=1, seq=0, at=clock.now(), level="INFO", message="m")


def numbers(store: JobStore) -> dict[Status, int]:
    """How many jobs there are by status, counted."""
    return {Status(name): number for name, number in store.count(JobFilter(), "status").items()}


def check_totals(store: JobStore, expected: dict[Status, int] | None = None) -> None:
    """Totals are a count, of queues and of paths; and what is expected."""
    totals = store.totals()
    assert totals.by_status() == (numbers(store) if expected is None else expected)
    for group, table in (("queue", totals.by_queue), ("path", totals.by_path)):
        sums = {name: sum(row.values()) for name, row in table.items()}
        assert {name: n for name, n in sums.items() if n} == store.count(JobFilter(), group)
