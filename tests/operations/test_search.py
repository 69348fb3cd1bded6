"""Searches, counts of tabs and suggestions, on each broker."""

from __future__ import annotations

import time
from typing import Any

import pytest

from mrq_core.clock import SystemClock, from_ms, to_ms
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Requeue
from mrq_core.contract.queries import Order, Page
from mrq_core.contract.record import Status
from mrq_core.errors import InvalidValue
from mrq_core.operations.queries import search as search_module
from mrq_core.operations.queries.query import parse_query
from mrq_core.operations.queries.search import SearchPage, counts_by_status, search
from mrq_core.operations.queries.suggestions import MOST, suggestions
from mrq_core.operations.task_descriptions import TASKS_NAMESPACE
from mrq_core.testing.conformance.base import bring_to, put_many, settle, take_one


class Now(SystemClock):
    """The host's clock, as the helpers of the contract use clocks."""

    def now(self) -> Any:
        return from_ms(self.now_ms())


CLOCK: Any = Now()


def ran(broker: Broker, status: Status = Status.SUCCESS, queue: str = "q", **more: Any) -> str:
    """A job that has run, with the outcome `more`."""
    fields = {name: more.pop(name) for name in ("path", "params") if name in more}
    [job_id] = put_many(broker, CLOCK, 1, queue, **fields)
    record = take_one(broker, queue)
    assert record.id == job_id
    assert settle(broker, record, status, ttl=1000.0, **more)
    return job_id


def let_the_clock_move(broker: Broker) -> None:
    """Returns in the next millisecond: two jobs that end in one are not in order."""
    before = broker.now()
    while to_ms(broker.now()) <= to_ms(before):
        pass


def found(broker: Broker, text: str, **more: Any) -> list[str]:
    """The ids of all jobs of a query, page by page."""
    query, ids, cursor = parse_query(broker, text), [], None
    while True:
        page = search(broker, query, cursor=cursor, **more)
        ids += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            return ids


def test_a_search_pages_through_the_jobs_newest_first(each_broker: Broker) -> None:
    ids = put_many(each_broker, CLOCK, 7, "main/a")
    put_many(each_broker, CLOCK, 2, "other")
    assert found(each_broker, "queue:main/* is:waiting", limit=3) == ids[::-1]
    assert found(each_broker, "queue:main/", limit=3, order=Order.OLDEST_FIRST) == ids
    assert found(each_broker, "queue:main/* is:running") == []


def test_conditions_are_applied_after_the_find(each_broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search_module, "_BATCH", 4)
    ids = [
        ran(each_broker, total_time=float(number), params={"o": {"n": number % 2}}) for number in range(12)
    ]
    slow = ids[6:]
    assert found(each_broker, "duration:>5s", limit=50) == slow[::-1]
    assert found(each_broker, "duration:>5s", limit=4) == slow[::-1]
    assert found(each_broker, "duration:>5s", limit=1, order=Order.OLDEST_FIRST) == slow
    assert found(each_broker, "duration:>5s params.o.n:1", limit=2) == [
        i for i in slow[::-1] if ids.index(i) % 2
    ]
    numbers = counts_by_status(each_broker, parse_query(each_broker, "status:failed duration:>5s"))
    assert (dict(numbers.numbers), numbers.is_complete) == ({Status.SUCCESS: 6}, True)


def test_a_search_that_runs_out_of_time_says_how_far_it_got(
    each_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_module, "_BATCH", 2)
    ids = [ran(each_broker, total_time=1.0) for _ in range(6)]
    query = parse_query(each_broker, "duration:>5s")
    page = search(each_broker, query, seconds=0.0)
    assert (page.records, page.cursor) == ((), ids[4])
    assert page.searched_until == ids[4]
    assert page.searched_back_to is not None
    assert abs(page.searched_back_to.timestamp() - time.time()) < 120
    pages = 1
    while page.cursor is not None:
        page, pages = search(each_broker, query, cursor=page.cursor, seconds=0.0), pages + 1
    assert pages in (3, 4)
    assert page.searched_back_to is None
    counted = counts_by_status(each_broker, query, seconds=0.0)
    assert (dict(counted.numbers), counted.is_complete) == ({}, False)


def test_a_second_read_starts_only_if_it_ends_in_time(
    each_broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(6):
        ran(each_broker, total_time=1.0)
    find, reads = each_broker.find, []

    def slow(*args: Any, **more: Any) -> Page:
        reads.append(args)
        time.sleep(0.03)
        return find(*args, **more)

    monkeypatch.setattr(search_module, "_BATCH", 1)
    monkeypatch.setattr(each_broker, "find", slow)
    query = parse_query(each_broker, "duration:>5s")
    assert search(each_broker, query, seconds=0.05).cursor is not None
    assert len(reads) == 1
    assert (
        search(each_broker, parse_query(each_broker, "duration:>5s since:1h"), seconds=0.2).cursor is not None
    )
    assert len(reads) == 2, "a read without an index may take 250 ms"


def test_a_task_is_still_failing_until_it_succeeds(each_broker: Broker) -> None:
    old = ran(each_broker, Status.FAILED, path="a.Fixed", exception_type="E")
    let_the_clock_move(each_broker)
    ran(each_broker, Status.SUCCESS, path="a.Fixed")
    new = ran(each_broker, Status.FAILED, path="a.Fixed", exception_type="E")
    broken = [ran(each_broker, status, path="a.Broken") for status in (Status.TIMEOUT, Status.ABORT)]
    assert found(each_broker, "is:still-failing") == [*broken[::-1], new]
    each_broker.requeue([old], Requeue())
    record = take_one(each_broker, "q")
    assert record.id == old
    let_the_clock_move(each_broker)
    settle(each_broker, record, Status.SUCCESS, ttl=1000.0)
    assert found(each_broker, "is:still-failing path:a.Fixed") == [], "a job that was requeued has succeeded"


def test_a_search_for_failing_tasks_ends_in_time_and_goes_on(each_broker: Broker) -> None:
    ids = [ran(each_broker, Status.FAILED, path=f"a.Task{number}") for number in range(5)]
    query = parse_query(each_broker, "is:still-failing")
    page = search(each_broker, query, seconds=0.0)
    assert [record.id for record in page.records] == [ids[4]]
    assert page.cursor == page.searched_until == ids[4]
    assert found(each_broker, "is:still-failing", seconds=0.0) == ids[::-1]


@pytest.mark.parametrize("limit", [0, -1, 1001])
def test_a_limit_is_checked(each_broker: Broker, limit: int) -> None:
    with pytest.raises(InvalidValue, match="limit is"):
        search(each_broker, parse_query(each_broker, ""), limit=limit)
    with pytest.raises(InvalidValue, match="cursor"):
        search(each_broker, parse_query(each_broker, ""), cursor="x")


def test_tabs_count_all_statuses(each_broker: Broker) -> None:
    for status in (Status.QUEUED, Status.FAILED, Status.SUCCESS):
        bring_to(each_broker, CLOCK, status, f"q-{status}")
    numbers = counts_by_status(each_broker, parse_query(each_broker, "status:failed queue:q-*"))
    assert numbers.is_complete
    assert dict(numbers.numbers) == {Status.QUEUED: 1, Status.FAILED: 1, Status.SUCCESS: 1}
    numbers = counts_by_status(each_broker, parse_query(each_broker, "is:ended"))
    assert dict(numbers.numbers) == {Status.FAILED: 1, Status.SUCCESS: 1}


def texts(broker: Broker, text: str, position: int | None = None) -> list[str]:
    return [one.text for one in suggestions(broker, text, position)]


def test_suggestions_name_parts_and_known_values(each_broker: Broker) -> None:
    put_many(each_broker, CLOCK, 3, "main/a", path="mail.Send")
    put_many(each_broker, CLOCK, 1, "main/b", path="mail.Sort")
    ran(each_broker, Status.FAILED, path="x.Y", exception_type="KeyError", error_group="x.Y KeyError x:f")
    each_broker.state.put(
        TASKS_NAMESPACE,
        "mail.Send",
        {
            "path": "mail.Send",
            "options": {"searchable": ["user_id"]},
            "arguments": [{"name": "to"}, {"name": "copies"}],
        },
    )
    assert texts(each_broker, "")[:3] == ["status:", "queue:", "path:"]
    assert texts(each_broker, "st")[:2] == ["status:", "status:started"]
    assert texts(each_broker, "queue:") == ["queue:main/", "queue:main/a", "queue:main/b", "queue:q"]
    assert texts(each_broker, "path:mail") == ["path:mail.Send", "path:mail.Sort"]
    assert texts(each_broker, "path:sort") == ["path:mail.Sort"]
    assert texts(each_broker, "error:") == ["error:KeyError"]
    assert texts(each_broker, "group:x") == ['group:"x.Y KeyError x:f"']
    assert texts(each_broker, "status:failed,ti") == ["status:failed,timeout"]
    assert texts(each_broker, "is:s") == ["is:still-failing"]
    assert texts(each_broker, "key.u") == ["key.user_id:"]
    assert texts(each_broker, "params.") == ["params.", "params.copies:", "params.to:"]
    assert texts(each_broker, "duration:")[0] == "duration:>1s"
    assert texts(each_broker, "xyzzy:1") == []
    first = suggestions(each_broker, "status:fai")[0]
    assert (first.kind, first.detail) == ("status", "1 job")


def test_a_suggestion_replaces_the_part_at_the_position(each_broker: Broker) -> None:
    text = 'path:a.B status:fa since:1h "open'
    [first] = suggestions(each_broker, text, text.index(" since"))
    replaced = text[: first.start] + first.text + text[first.end :]
    assert replaced == 'path:a.B status:failed since:1h "open'
    [first] = suggestions(each_broker, text, text.index("fa"))[3:4]
    assert (text[first.start : first.end], first.text.partition(":")[0]) == ("status:fa", "status")
    assert suggestions(each_broker, "status:failed ")[0].start == 14


def test_suggestions_are_bounded_and_fast(each_broker: Broker) -> None:
    for number in range(300):
        put_many(each_broker, CLOCK, 1, f"queue{number}", path=f"a.Task{number}")
    suggestions(each_broker, "queue:q")
    begin = time.monotonic()
    assert len(suggestions(each_broker, "queue:q")) == MOST
    assert time.monotonic() - begin < 0.2


def test_a_page_of_a_plain_filter_is_one_read(each_broker: Broker) -> None:
    page = search(each_broker, parse_query(each_broker, "status:failed"))
    assert page == SearchPage(records=(), cursor=None)
