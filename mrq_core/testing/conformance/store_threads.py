"""Many who use a store at the same time."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from mrq_core.contract.pair import JobStore, WriteResult
from mrq_core.contract.record import JobRecord, Status
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, new_job, run_in_threads
from mrq_core.testing.conformance.store_kit import (
    SUCCESS,
    StoreFactory,
    StorePart,
    check_totals,
    entry_of,
    insert,
    put,
    read_one,
    settlement_of,
    start_one,
    write_one,
)

THREADS = 8


class StoreThreadContract(StorePart):
    """Of all who make the same change, one has made it."""

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
                left -= write_one(mine, clock, before, wanted) is WriteResult.DONE
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
        run_in_threads(lambda: created.extend(insert(store, jobs)), [()] * THREADS)
        assert sum(created) == len(jobs)
        check_totals(store, {Status.QUEUED: 20})
