"""A store's attempts: started under the token of an entry, annotated, and ended with success."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Note, Outcome, Settlement, Unique
from mrq_core.contract.pair import Entry, JobStore, WriteResult
from mrq_core.contract.record import Status
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE
from mrq_core.testing.conformance.store_kit import (
    FAILURE,
    FULL,
    INTERRUPT,
    RETRY,
    SUCCESS,
    StorePart,
    check_totals,
    claimed,
    entry_of,
    put,
    read_one,
    settle_one,
    settlement_of,
    start_one,
    succeed_one,
    write_one,
)

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


class StartContract(StorePart):
    """What start promises."""

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
        expected = lifecycle.claimed(before.record, now=clock.now(), worker="w2", nonce="abc", lease=30.0)
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


class SucceedContract(StorePart):
    """What succeed promises."""

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
            assert write_one(store, clock, before, marked) is WriteResult.DONE
        elif why == "claimed again":
            write_one(store, clock, before, claimed(clock, before.record))
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


class AnnotateContract(StorePart):
    """What annotate promises."""

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
        assert write_one(store, clock, before, settled) is WriteResult.DONE
