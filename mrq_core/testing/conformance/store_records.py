"""A store's records: inserted, read, pruned and counted."""

from __future__ import annotations

import random

import pytest
from msgspec.structs import replace

from mrq_core.clock import after
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import Enqueued, NewJob, Settlement, Unique
from mrq_core.contract.pair import JobStore, WriteResult
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.errors import JobNotFound
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, new_job
from mrq_core.testing.conformance.store_kit import (
    FAILURE,
    FULL,
    INTERRUPT,
    RETRY,
    SUCCESS,
    StorePart,
    check_totals,
    insert,
    line,
    numbers,
    put,
    read_one,
    settle_one,
    start_one,
    succeed_one,
    write_one,
)


class RecordContract(StorePart):
    """What insert, read and prune promise, and that totals are a count."""

    def test_a_new_job_is_read_as_it_was_given_as_version_1(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        plain, full = new_job(clock), new_job(clock, "t/a", **FULL, due_at=after(clock.now(), 77.0))
        assert insert(store, [plain, full]) == [True, True]
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

    @pytest.mark.parametrize(
        ("until", "period"), [("queued", None), ("done", None), ("period", 12.5), ("record", None)]
    )
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

    def test_a_store_does_not_know_the_holder_of_another_unique_key(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        jobs = [new_job(clock, unique=Unique(key="k")) for _ in range(2)]
        assert insert(store, jobs) == [True, True]
        for job in jobs:
            found = read_one(store, job.record.id)
            cancelled = lifecycle.cancelled(found.record, now=clock.now(), ttl=100.0)
            assert write_one(store, clock, found, cancelled) is WriteResult.DONE
            again = lifecycle.requeued(cancelled, now=clock.now(), queue=None, reset_retries=True)
            found = read_one(store, job.record.id)
            assert write_one(store, clock, found, again, reserve=True) is WriteResult.DONE

    def test_a_key_until_record_is_held_as_long_as_the_record_exists(
        self, store: JobStore, other: JobStore, clock: ManualClock
    ) -> None:
        unique = Unique(key="k", until="record")
        first, second = new_job(clock, unique=unique), new_job(clock, unique=unique)
        assert store.insert([first, second]) == [
            Enqueued(id=first.record.id, created=True),
            Enqueued(id=first.record.id, created=False),
        ]
        start_one(store, clock, first.record.id)
        settle_one(store, clock, first.record.id, SUCCESS)
        assert read_one(other, first.record.id).unique == unique
        assert other.insert([second]) == [Enqueued(id=first.record.id, created=False)]
        clock.advance(1000.0)
        assert other.insert([second]) == [Enqueued(id=second.record.id, created=True)]
        assert store.prune(10) <= 1
        found = read_one(store, second.record.id)
        assert store.insert([new_job(clock, unique=unique)]) == [Enqueued(id=second.record.id, created=False)]
        assert write_one(store, clock, found, None) is WriteResult.DONE
        assert store.insert([first]) == [Enqueued(id=first.record.id, created=True)]

    def test_a_new_job_may_be_started_already(self, store: JobStore, clock: ManualClock) -> None:
        record = lifecycle.admitted(
            replace(new_job(clock).record, worker="w"),
            job_id=new_id(),
            token="3.abc",
            now=clock.now(),
            lease=LEASE,
        )
        assert insert(store, [NewJob(record=record)]) == [True]
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
        assert insert(other, [changed, fresh]) == [False, True]
        found = read_one(store, job.record.id)
        assert (found.record, found.version) == (before.record, before.version)
        check_totals(store, {Status.STARTED: 1, Status.QUEUED: 1})

    def test_of_two_jobs_of_one_id_the_first_is_stored(self, store: JobStore, clock: ManualClock) -> None:
        first, another = new_job(clock, params={"n": 1}), new_job(clock)
        second = replace(first, record=replace(first.record, params={"n": 2}))
        assert insert(store, [another, first, second]) == [True, True, False]
        assert read_one(store, first.record.id).record.params == {"n": 1}
        check_totals(store, {Status.QUEUED: 2})

    def test_what_has_expired_makes_room(self, store: JobStore, clock: ManualClock) -> None:
        job_id = put(store, clock, unique=Unique(key="k"))
        start_one(store, clock, job_id)
        store.append_logs([line(clock, job_id)], 1000)
        settle_one(store, clock, job_id, SUCCESS)
        anew = new_job(clock, id=job_id, params={"n": 2})
        clock.advance(999.0)
        assert insert(store, [anew]) == [False]
        clock.advance(1.0)
        anew = replace(anew, record=replace(anew.record, queued_at=clock.now()))
        assert insert(store, [anew]) == [True]
        found = read_one(store, job_id)
        assert (found.record, found.version, found.unique) == (anew.record, 1, None)
        assert store.read_logs(job_id).lines == ()
        check_totals(store, {Status.QUEUED: 1})
        assert start_one(store, clock, job_id).claims == 1

    def test_nothing_is_inserted_read_or_written_of_nothing(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        assert insert(store, []) == []
        assert list(store.read([])) == []
        assert store.write([], clock.now()) == []
        assert store.start([], worker="w", lease=LEASE, now=clock.now()) == []
        assert store.succeed([], clock.now()) == []
        assert store.annotate([], clock.now()) == []
        store.finish("no id", [])

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
        assert store.count(JobFilter()).numbers == {"": 0}
        with pytest.raises(JobNotFound):
            store.read_logs(job_id)

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

    def test_names_of_queues_are_known_until_a_prune_forgets_them(
        self, store: JobStore, clock: ManualClock
    ) -> None:
        put(store, clock, "a")
        put(store, clock, "t/b")
        job_id = put(store, clock, "c")
        before = read_one(store, job_id)
        write_one(store, clock, before, replace(before.record, queue="d"))
        assert store.queue_names() == ["a", "c", "d", "t/b"]
        assert store.queue_names("t/") == ["t/b"]
        assert store.queue_names(after="a", limit=2) == ["c", "d"]
        for _ in range(3):
            clock.advance(60.0)
            store.prune(1000)
        assert store.queue_names() == ["a", "d", "t/b"]

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
                assert write_one(one, clock, found, again) is WriteResult.DONE
            else:
                assert write_one(one, clock, found, None) is WriteResult.DONE
        check_totals(store)
