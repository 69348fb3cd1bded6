"""A store's compare-and-set, and the follow-ups that are stored with it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Unique
from mrq_core.contract.pair import JobStore, Replacement, WriteResult
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.shared_state import Versions
from mrq_core.errors import JobNotFound
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import new_job
from mrq_core.testing.conformance.store_kit import (
    FAILURE,
    FULL,
    RETRY,
    SUCCESS,
    StorePart,
    check_totals,
    claimed,
    insert,
    line,
    put,
    put_parent,
    read_one,
    start_one,
    succeed_one,
    write_one,
)


class WriteContract(StorePart):
    """What write promises."""

    def test_a_write_makes_the_record_what_was_given_and_counts_one_version(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        job_id = put(store, clock, **FULL)
        now = clock.now()
        steps: list[Callable[[JobRecord], JobRecord]] = [
            lambda record: claimed(clock, record),
            lambda record: lifecycle.settled(record, RETRY, now),
            lambda record: replace(record, queue="t/b"),
            lambda record: claimed(clock, record),
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
            assert write_one(store, clock, before, wanted) is WriteResult.DONE
            found = read_one(other, job_id)
            assert (found.record, found.version) == (wanted, number + 1)
            check_totals(store, {wanted.status: 1})

    def test_what_has_changed_since_it_was_read_is_not_written(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        ids = [put(store, clock) for _ in range(3)]
        before = {job_id: read_one(store, job_id) for job_id in ids}
        first = read_one(other, ids[1])
        assert write_one(other, clock, first, replace(first.record, queue="x")) is WriteResult.DONE
        replacements = [
            Replacement(one, lifecycle.cancelled(one.record, now=clock.now(), ttl=50.0))
            for one in before.values()
        ]
        assert store.write(replacements, clock.now()) == [
            WriteResult.DONE,
            WriteResult.CHANGED,
            WriteResult.DONE,
        ]
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
            assert write_one(store, clock, before, wanted, ask_to_stop=True) is WriteResult.CHANGED
        found = store.read([job_id])[0]
        assert (found and found.record) == (now_there and now_there.record)
        assert store.poll("w", Versions()).interrupts == ()
        check_totals(store)

    def test_a_deleted_job_is_gone_with_its_logs(self, store: JobStore, clock: ManualClock) -> None:
        job_id, kept = put(store, clock, "x"), put(store, clock)
        store.append_logs([line(clock, job_id), line(clock, kept)], 1000)
        before = read_one(store, job_id)
        assert write_one(store, clock, before, None) is WriteResult.DONE
        assert list(store.read([job_id])) == [None]
        assert [one.id for one in store.find(JobFilter()).records] == [kept]
        with pytest.raises(JobNotFound):
            store.read_logs(job_id)
        assert len(store.read_logs(kept).lines) == 1
        check_totals(store, {Status.QUEUED: 1})
        assert "x" in store.queue_names()
        assert write_one(store, clock, before, None) is WriteResult.CHANGED
        anew = new_job(clock, id=job_id)
        assert insert(store, [anew]) == [True]
        assert store.read_logs(job_id).lines == ()

    def test_its_worker_is_told_of_a_job_that_is_to_stop(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        ids = [put(store, clock) for _ in range(2)]
        for job_id, asked in zip(ids, (True, False), strict=True):
            start_one(store, clock, job_id)
            before = read_one(store, job_id)
            marked = replace(before.record, cancel_requested=True)
            assert write_one(store, clock, before, marked, ask_to_stop=asked) is WriteResult.DONE
        changes = other.poll("w", Versions())
        assert changes.interrupts == (ids[0],)
        assert other.poll("w", changes.versions).interrupts == ()
        assert other.poll("another", Versions()).interrupts == ()


PERIOD = Unique(key="k", until="period", period=7.0)


class FollowUpContract(StorePart):
    """Follow-ups are stored with a change, and forgotten when they are enqueued."""

    def test_follow_ups_are_stored_with_their_parent_and_not_enqueued(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        job_id = put(store, clock)
        start_one(store, clock, job_id)
        before = read_one(store, job_id)
        followups = (
            new_job(clock, "t/a", **FULL, due_at=after(clock.now(), 9.0), unique=PERIOD),
            new_job(clock),
        )
        settled = lifecycle.settled(before.record, SUCCESS, clock.now())
        assert write_one(store, clock, before, settled, followups=followups) is WriteResult.DONE
        assert other.unfinished(10) == [(job_id, list(followups))]
        assert list(other.read([one.record.id for one in followups])) == [None, None]
        assert store.count(JobFilter()).numbers == {"": 1}
        assert read_one(other, job_id).record == settled
        check_totals(store, {Status.SUCCESS: 1})

    def test_finished_follow_ups_are_forgotten_and_others_are_not(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        ids = [put_parent(store, clock) for _ in range(3)]
        version = read_one(store, ids[0]).version
        followups = {parent: [one.record.id for one in jobs] for parent, jobs in store.unfinished(10)}
        store.finish(ids[0], followups[ids[0]])
        store.finish(ids[2], [new_id(), *followups[ids[2]]])
        assert [parent for parent, _ in store.unfinished(10)] == [ids[1]]
        store.finish(ids[0], followups[ids[0]])
        assert read_one(store, ids[0]).version == version
        for others in ([], [new_id()], followups[ids[0]]):  # of an earlier attempt
            store.finish(ids[1], others)
        assert [parent for parent, _ in store.unfinished(10)] == [ids[1]]
        store.finish(new_id(), followups[ids[1]])
        store.finish(ids[1], followups[ids[1]])
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
        followups = (new_job(clock),)
        late = replace(before.record, queue="x")
        assert write_one(store, clock, before, late, followups=followups) is WriteResult.CHANGED
        assert store.unfinished(10) == []
