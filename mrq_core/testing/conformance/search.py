"""Looking: get, find, count, totals, counts, known; and apply, which acts on what is found."""

from __future__ import annotations

from typing import Any

import pytest

from mrq_core.clock import after
from mrq_core.contract.broker import Broker
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.messages import Action, Cancel, ChangeResult, Move, Remove, Requeue
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import InvalidValue
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import (
    Contract,
    bring_to,
    claim,
    put,
    put_many,
    record_of,
    settle,
    started,
    status_of,
    take_one,
)

INVALID_CURSORS = ["no cursor", "%", "🦊", "' OR 1=1", "$gt", "z" * 24, "1.2.3"]


def found(broker: Broker, **parts: Any) -> list[str]:
    """Ids of all jobs that match, oldest first."""
    page = broker.find(JobFilter(**parts), order=Order.OLDEST_FIRST, limit=1000)
    assert page.cursor is None
    return [record.id for record in page.records]


def all_pages(broker: Broker, wanted: JobFilter, order: Order, limit: int) -> list[list[JobRecord]]:
    pages: list[list[JobRecord]] = []
    cursor: str | None = None
    while True:
        page = broker.find(wanted, order=order, cursor=cursor, limit=limit)
        pages.append(list(page.records))
        cursor = page.cursor
        if cursor is None:
            return pages


class SearchContract(Contract):
    """What get, find, count, counts and known promise."""

    def test_get_lines_up_with_the_ids(self, broker: Broker, clock: ManualClock) -> None:
        first, second = put_many(broker, clock, 2)
        records = broker.get([second, "0" * 24, "", first, second])
        assert [record and record.id for record in records] == [second, None, None, first, second]
        assert broker.get([]) == []

    # --- filters -----------------------------------------------------------------------------------

    def test_an_empty_filter_finds_all_jobs(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 5)
        assert found(broker) == ids

    def test_find_by_ids(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 4)
        assert found(broker, ids=(ids[2], ids[0], "0" * 24)) == [ids[0], ids[2]]

    def test_find_by_statuses(self, broker: Broker, clock: ManualClock) -> None:
        ids = {status: bring_to(broker, clock, status, queue=status) for status in Status}
        for status in Status:
            assert found(broker, statuses=(status,)) == [ids[status]]
        expected = sorted([ids[Status.FAILED], ids[Status.STARTED]])
        assert found(broker, statuses=(Status.FAILED, Status.STARTED)) == expected

    def test_find_by_paths(self, broker: Broker, clock: ManualClock) -> None:
        ids = {path: put(broker, clock, path=path) for path in ("a.B", "a.BC", "axB", "A.b", "%")}
        assert found(broker, paths=("a.B",)) == [ids["a.B"]]
        assert found(broker, paths=("%",)) == [ids["%"]]
        assert found(broker, paths=("a.B", "A.b")) == [ids["a.B"], ids["A.b"]]

    def test_find_by_queues_and_trees(self, broker: Broker, clock: ManualClock) -> None:
        names = ("main", "main/a", "main/b/c", "main_", "other", "mainx/a")
        ids = {name: put(broker, clock, name) for name in names}
        assert found(broker, queues=("main",)) == [ids["main"]]
        assert found(broker, queues=("main/",)) == [ids["main/a"], ids["main/b/c"]]
        assert found(broker, queues=("other", "main/b/")) == sorted([ids["other"], ids["main/b/c"]])

    def test_an_exception_is_found_until_the_next_attempt(self, broker: Broker, clock: ManualClock) -> None:
        job = started(broker, clock)
        wanted = JobFilter(exception_types=("ValueError",))
        assert settle(broker, job, Status.RETRY, delay=0.0, is_retry=True, exception_type="ValueError")
        assert found(broker, exception_types=("ValueError",)) == [job.id]
        assert broker.count(wanted).numbers == {"": 1}
        assert broker.count(JobFilter(), group_by="exception_type").numbers == {"ValueError": 1}
        again = take_one(broker)
        for _ in range(2):  # once while it runs, and once after its success
            assert found(broker, exception_types=("ValueError",)) == []
            assert broker.count(wanted).numbers == {"": 0}
            assert broker.count(JobFilter(), group_by="exception_type").numbers == {}
            assert broker.apply(wanted, Requeue(), limit=10).matched == 0
            assert broker.apply(wanted, Remove(), limit=10).matched == 0
            settle(broker, again, ttl=1000.0)
        assert status_of(broker, job.id) is Status.SUCCESS

    def test_find_by_workers(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 3)
        for worker in ("w1", "w2", "w10"):
            claim(broker, limit=1, worker=worker)
        assert found(broker, workers=("w1",)) == [ids[0]]
        assert found(broker, workers=("w2", "w10")) == ids[1:]

    def test_find_by_exception_types(self, broker: Broker, clock: ManualClock) -> None:
        failed = started(broker, clock)
        settle(broker, failed, Status.FAILED, ttl=100.0, exception_type="a.E")
        settle(broker, started(broker, clock), Status.FAILED, ttl=100.0, exception_type="a.F")
        put(broker, clock)
        assert found(broker, exception_types=("a.E",)) == [failed.id]

    def test_find_by_schedules(self, broker: Broker, clock: ManualClock) -> None:
        nightly = put(broker, clock, schedule="nightly")
        put(broker, clock, schedule="daily")
        put(broker, clock)
        assert found(broker, schedules=("nightly", "never")) == [nightly]

    def test_find_by_the_time_of_queueing(self, broker: Broker, clock: ManualClock) -> None:
        start = clock.now()
        ids = []
        for _ in range(3):
            ids.append(put(broker, clock))
            clock.advance(10)
        assert found(broker, since=after(start, 5.0)) == ids[1:]
        assert found(broker, until=after(start, 5.0)) == ids[:1]
        assert found(broker, since=after(start, 5.0), until=after(start, 15.0)) == [ids[1]]

    @pytest.mark.parametrize(
        "value",
        [
            "x",
            "",
            "1",
            1,
            0,
            -5,
            2**63 - 1,
            1.5,
            True,
            False,
            None,
            [1, "a"],
            {"b": [None]},
            "$ne",
            "' OR 1=1",
        ],
        ids=repr,
    )
    def test_find_by_the_value_of_a_param(self, broker: Broker, clock: ManualClock, value: Any) -> None:
        match = put(broker, clock, params={"a": value, "other": 1})
        others: list[JsonValue] = ["y", "01", 7, [], {}, {"b": []}, [1], "[]"]
        for other in others:
            put(broker, clock, params={"a": other})
        put(broker, clock, params={"b": value})
        put(broker, clock, params={"nested": {"a": value}})
        assert found(broker, params={"a": value}) == [match]

    def test_a_boolean_param_is_no_number(self, broker: Broker, clock: ManualClock) -> None:
        yes, one, no, zero = (put(broker, clock, params={"a": value}) for value in (True, 1, False, 0))
        assert found(broker, params={"a": True}) == [yes]
        assert found(broker, params={"a": 1}) == [one]
        assert found(broker, params={"a": False}) == [no]
        assert found(broker, params={"a": 0}) == [zero]

    @pytest.mark.parametrize(
        "key", ["", "a.b", "$gt", "$", '"', "'", "a[0]", "ключ", "$.a", "a b", "\\", "*"]
    )
    def test_find_by_params_of_any_name(self, broker: Broker, clock: ManualClock, key: str) -> None:
        match = put(broker, clock, params={key: 1, "z": 2})
        put(broker, clock, params={"a": {"b": 1, "": 1}, "z": 2})
        put(broker, clock, params={key: 2})
        assert found(broker, params={key: 1}) == [match]
        assert found(broker, params={key: 1, "z": 3}) == []

    @pytest.mark.parametrize("value", [{"$gt": 0}, {"$exists": True}, {"$ne": None}, "%", "*", "1 OR 1"])
    def test_a_filter_is_never_an_operator(self, broker: Broker, clock: ManualClock, value: Any) -> None:
        put(broker, clock, params={"a": 1})
        assert found(broker, params={"a": value}) == []
        assert found(broker, paths=(str(value),)) == []

    def test_every_part_of_a_filter_has_to_hold(self, broker: Broker, clock: ManualClock) -> None:
        match = put(broker, clock, path="p", params={"a": 1})
        put(broker, clock, path="p", params={"a": 2})
        put(broker, clock, "r", path="p", params={"a": 1})
        put(broker, clock, path="o", params={"a": 1})
        parts = {"queues": ("q",), "paths": ("p",), "statuses": (Status.QUEUED,), "params": {"a": 1}}
        assert found(broker, **parts) == [match]
        assert found(broker, **{**parts, "statuses": (Status.FAILED,)}) == []

    # --- pages -------------------------------------------------------------------------------------

    def test_the_newest_come_first_unless_asked(self, broker: Broker, clock: ManualClock) -> None:
        ids = put_many(broker, clock, 3)
        assert [record.id for record in broker.find(JobFilter()).records] == ids[::-1]

    @pytest.mark.parametrize("order", list(Order))
    @pytest.mark.parametrize("limit", [1, 3, 10, 11])
    def test_pages_show_each_job_once(
        self, broker: Broker, clock: ManualClock, order: Order, limit: int
    ) -> None:
        ids = put_many(broker, clock, 10)
        pages = all_pages(broker, JobFilter(), order, limit)
        seen = [record.id for page in pages for record in page]
        assert seen == (ids if order is Order.OLDEST_FIRST else ids[::-1])
        assert all(len(page) <= limit for page in pages)

    @pytest.mark.parametrize("order", list(Order))
    def test_paging_shows_each_job_that_matches_all_the_while_exactly_once(
        self, broker: Broker, clock: ManualClock, order: Order
    ) -> None:
        staying = put_many(broker, clock, 20)
        leaving = put_many(broker, clock, 20)
        wanted = JobFilter(queues=("q",))
        seen: list[str] = []
        cursor: str | None = None
        while True:
            page = broker.find(wanted, order=order, cursor=cursor, limit=3)
            seen += [record.id for record in page.records]
            put(broker, clock)
            if leaving:
                broker.remove([leaving.pop()])
                broker.move([leaving.pop(0)], Move(queue="elsewhere"))
            cursor = page.cursor
            if cursor is None or len(seen) > 200:
                break
        assert len(seen) == len(set(seen))
        assert set(staying) <= set(seen)

    @pytest.mark.parametrize("cursor", INVALID_CURSORS)
    def test_a_cursor_that_no_page_gave_is_invalid(
        self, broker: Broker, clock: ManualClock, cursor: str
    ) -> None:
        put(broker, clock)
        with pytest.raises(InvalidValue):
            broker.find(JobFilter(), cursor=cursor)
        with pytest.raises(InvalidValue):
            broker.apply(JobFilter(), Cancel(), cursor=cursor)
        assert broker.count(JobFilter(), "status").numbers == {"queued": 1}

    # --- counting ----------------------------------------------------------------------------------

    def test_count_counts_what_matches(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 3)
        put(broker, clock, "r")
        assert broker.count(JobFilter()).numbers == {"": 4}
        assert broker.count(JobFilter(queues=("q",))).numbers == {"": 3}
        assert broker.count(JobFilter(queues=("none",))).numbers == {"": 0}

    def test_count_groups(self, broker: Broker, clock: ManualClock) -> None:
        put_many(broker, clock, 2, path="p1")
        put(broker, clock, "r", path="p2")
        record = claim(broker, "r", worker="w9").records[0]
        settle(broker, record, Status.FAILED, ttl=100.0, exception_type="E")
        assert broker.count(JobFilter(), "queue").numbers == {"q": 2, "r": 1}
        assert broker.count(JobFilter(), "path").numbers == {"p1": 2, "p2": 1}
        assert broker.count(JobFilter(), "status").numbers == {"queued": 2, "failed": 1}
        assert broker.count(JobFilter(), "worker").numbers.get("w9") == 1
        assert broker.count(JobFilter(), "exception_type").numbers.get("E") == 1
        assert broker.count(JobFilter(paths=("p1",)), "status").numbers == {"queued": 2}

    @pytest.mark.parametrize("group_by", ["", "id", "params", "1", "status; --"])
    def test_jobs_are_counted_by_some_fields_only(self, broker: Broker, group_by: str) -> None:
        with pytest.raises(InvalidValue):
            broker.count(JobFilter(), group_by)

    def test_counts_tell_what_queues_hold(self, broker: Broker, clock: ManualClock) -> None:
        since = clock.now()
        put_many(broker, clock, 3)
        put(broker, clock, delay=100.0)
        clock.advance(1)
        put(broker, clock)
        claim(broker, limit=1)
        held, unknown = broker.counts(["q", "unknown"])
        assert (held.queue, held.waiting, held.due, held.claimed) == ("q", 4, 3, 1)
        assert held.oldest_due == since
        assert (unknown.queue, unknown.waiting, unknown.due, unknown.claimed) == ("unknown", 0, 0, 0)
        assert unknown.oldest_due is None

    def test_known_names_the_queues_that_have_jobs(self, broker: Broker, clock: ManualClock) -> None:
        names = ["a", "b", "main/x", "main/y", "mai\u0300n"]
        for name in reversed(names):
            put(broker, clock, name)
        assert broker.queue_names() == names
        assert broker.queue_names(prefix="main/") == ["main/x", "main/y"]
        assert broker.queue_names(limit=2) == ["a", "b"]
        assert broker.queue_names(after="b", limit=2) == ["main/x", "main/y"]
        assert broker.queue_names(prefix="main/", after="main/x") == ["main/y"]
        assert broker.queue_names(prefix="%") == []


class ApplyContract(Contract):
    """What bulk actions promise."""

    @pytest.mark.parametrize(
        ("action", "status"),
        [
            (Cancel(), Status.CANCEL),
            (Requeue(), Status.QUEUED),
            (Move(queue="r"), Status.RETRY),
            (Remove(), None),
        ],
        ids=["cancel", "requeue", "move", "remove"],
    )
    def test_an_action_is_applied_to_what_matches(
        self, broker: Broker, clock: ManualClock, action: Action, status: Status | None
    ) -> None:
        matching = [bring_to(broker, clock, Status.RETRY, queue=f"m/{number}") for number in range(3)]
        other = bring_to(broker, clock, Status.RETRY, queue="other")
        before = record_of(broker, other)
        applied = broker.apply(JobFilter(queues=("m/",)), action)
        assert (applied.matched, applied.cursor) == (3, None)
        assert {change: number for change, number in applied.changes.items() if number} == {
            ChangeResult.DONE: 3
        }
        assert [record and record.status for record in broker.get(matching)] == [status] * 3
        assert record_of(broker, other) == before

    def test_each_step_is_bounded_and_goes_on_where_it_stopped(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = put_many(broker, clock, 7)
        matched, cursor = 0, None
        for step in range(10):
            applied = broker.apply(JobFilter(), Cancel(), limit=3, cursor=cursor)
            assert applied.matched <= 3
            matched, cursor = matched + applied.matched, applied.cursor
            if step == 0:
                assert [status_of(broker, job_id) is Status.CANCEL for job_id in ids] == [True] * 3 + [
                    False
                ] * 4
            if cursor is None:
                break
        assert matched == 7
        assert broker.count(JobFilter(), "status").numbers == {"cancel": 7}

    def test_jobs_that_still_match_are_acted_on_at_most_once(
        self, broker: Broker, clock: ManualClock
    ) -> None:
        ids = [bring_to(broker, clock, Status.FAILED, queue=f"f/{number}") for number in range(5)]
        cursor, changed = None, 0
        for _ in range(10):
            applied = broker.apply(JobFilter(), Requeue(), limit=2, cursor=cursor)
            changed += applied.changes.get(ChangeResult.DONE, 0)
            cursor = applied.cursor
            for record in claim(broker, "f/").records:
                settle(broker, record, Status.FAILED, ttl=100.0)
            if cursor is None:
                break
        assert cursor is None
        assert changed == 5
        assert [record_of(broker, job_id).claims for job_id in ids] == [2] * 5

    def test_every_change_is_counted_as_what_it_was(self, broker: Broker, clock: ManualClock) -> None:
        bring_to(broker, clock, Status.SUCCESS, queue="a")
        bring_to(broker, clock, Status.STARTED, queue="b")
        bring_to(broker, clock, Status.QUEUED, queue="c")
        applied = broker.apply(JobFilter(), Cancel())
        assert applied.matched == 3
        assert {change: number for change, number in applied.changes.items() if number} == {
            ChangeResult.REFUSED: 1,
            ChangeResult.REQUESTED: 1,
            ChangeResult.DONE: 1,
        }
