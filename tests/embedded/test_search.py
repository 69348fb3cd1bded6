"""Searches take any params, and come back in time however rare the matches are."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from mrq_core.contract.messages import Cancel, ChangeResult, JobFilter, Order, Remove
from mrq_core.contract.record import Status
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.embedded.jobs import searching
from tests.embedded.kit import job, open_broker


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[EmbeddedBroker]:
    with closing(open_broker(tmp_path / "mrq.sqlite3")) as broker:
        yield broker


@pytest.mark.parametrize("key", ["a.b", "$", "$.a", 'a"b', "a'b", "", "a[0]", "ä", "--", "%"])
def test_any_key_of_params_can_be_searched_for(broker: EmbeddedBroker, key: str) -> None:
    wanted = job(params={key: "x' OR 1 --"})
    broker.enqueue([job(params={"a": {"b": "x' OR 1 --"}}), wanted, job(params={key: "y"})])
    page = broker.find(JobFilter(params={key: "x' OR 1 --"}))
    assert [record.id for record in page.records] == [wanted.record.id]
    assert broker.count(JobFilter(params={key: "x' OR 1 --"})) == {"": 1}


def test_a_search_that_no_index_serves_stops_in_time_and_goes_on_from_its_cursor(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rare = job(params={"n": -1})
    broker.enqueue([rare, *(job(params={"n": n}) for n in range(999))])
    monkeypatch.setattr(searching, "MAX_SECONDS", 0.0)
    wanted = JobFilter(params={"n": -1})
    pages = [broker.find(wanted)]
    while pages[-1].cursor is not None:
        pages.append(broker.find(wanted, cursor=pages[-1].cursor))
    assert len(pages) > 5
    assert all(page.searched_until == page.cursor for page in pages)
    assert [record.id for page in pages for record in page.records] == [rare.record.id]


@pytest.mark.parametrize("order", list(Order))
def test_several_values_of_one_index_are_merged_in_order(broker: EmbeddedBroker, order: Order) -> None:
    names = ["a", "b", "c", "a", "c", "b"] * 30
    jobs = [job(path=f"tests.tasks.{name}") for name in names]
    broker.enqueue(jobs)
    wanted = JobFilter(paths=("tests.tasks.a", "tests.tasks.c", "tests.tasks.a"), statuses=(Status.QUEUED,))
    expected = [new.record.id for new in jobs if new.record.path != "tests.tasks.b"]
    found: list[str] = []
    cursor = None
    while True:
        page = broker.find(wanted, order=order, cursor=cursor, limit=17)
        found += [record.id for record in page.records]
        cursor = page.cursor
        if cursor is None:
            break
    assert found == sorted(expected, reverse=order is Order.NEWEST_FIRST)


def test_a_bulk_action_acts_on_each_job_once_also_while_it_is_cut_short(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.enqueue([job(params={"n": n % 10}) for n in range(1000)])
    monkeypatch.setattr(searching, "MAX_SECONDS", 0.0)
    numbers = {ChangeResult.DONE: 0}
    cursor = None
    while True:
        applied = broker.apply(JobFilter(params={"n": 3}), Cancel(), limit=30, cursor=cursor)
        assert applied.matched == sum(applied.changes.values())
        numbers[ChangeResult.DONE] += applied.changes.get(ChangeResult.DONE, 0)
        cursor = applied.cursor
        if cursor is None:
            break
    assert numbers == {ChangeResult.DONE: 100}
    assert broker.totals().by_status() == {Status.QUEUED: 900, Status.CANCEL: 100}


def test_more_than_a_chunk_and_more_than_the_variables_of_a_statement_are_taken(
    broker: EmbeddedBroker,
) -> None:
    jobs = [job() for _ in range(2500)]
    assert all(answer.created for answer in broker.enqueue(jobs))
    ids = [new.record.id for new in jobs]
    assert len(broker.get(ids * 20)) == 50_000
    assert broker.remove(ids) == [ChangeResult.DONE] * 2500
    assert broker.apply(JobFilter(), Remove()).matched == 0
