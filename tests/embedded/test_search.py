"""Searches take any params, and come back in time however rare the matches are."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from mrq_core.clock import SystemClock
from mrq_core.contract.matching import GROUPS, matches
from mrq_core.contract.messages import Cancel, ChangeResult, Outcome, Remove, Settlement
from mrq_core.contract.queries import JobFilter, Order
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers import pacing
from mrq_core.embedded.broker import EmbeddedBroker
from mrq_core.embedded.jobs import indexes, searching
from mrq_core.embedded.jobs.conditions import Condition, condition
from mrq_core.operations.jobs import count_all
from mrq_core.testing.clock import ManualClock
from tests.embedded.kit import claim, job, open_broker


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
    assert broker.count(JobFilter(params={key: "x' OR 1 --"})).numbers == {"": 1}


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


def test_the_condition_of_a_search_is_made_once_for_all_its_queues(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[JobFilter] = []

    def counted(wanted: JobFilter, now_ms: int | None) -> Condition:
        made.append(wanted)
        return condition(wanted, now_ms)

    monkeypatch.setattr(searching, "condition", counted)
    one = job(queue="q7")
    broker.enqueue([one])
    found = broker.find(JobFilter(queues=tuple(f"q{number}" for number in range(50))))
    assert [record.id for record in found.records] == [one.record.id]
    assert len(made) == 1


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


STATUSES = (Status.QUEUED, Status.FAILED, Status.RETRY, Status.SUCCESS)


def fill_at_random(broker: EmbeddedBroker, clock: ManualClock, chance: random.Random) -> list[JobRecord]:
    """Jobs in many states, some of them expired. Returns the visible jobs."""
    queues = ["a", "b", "t/x", "t/y", "t/z"]
    jobs = [
        job(
            chance.choice(queues),
            path=f"p{chance.randrange(3)}",
            params={"n": chance.randrange(3)},
            schedule=chance.choice([None, "daily", "hourly"]),
            search_keys={name: chance.randrange(4) for name in ("k", "m") if chance.random() < 0.7},
        )
        for _ in range(400)
    ]
    broker.enqueue(jobs)
    running = claim(broker, "a", "b", "t/", limit=150).records + claim(broker, "t/", limit=150).records
    settlements = []
    for record in running:
        status = chance.choice([*STATUSES[1:], Status.STARTED])
        error = {
            "exception_type": f"shop.E{chance.randrange(3)}",
            "exception_message": f"no lamps, {chance.randrange(3)} chairs",
            "error_group": f"group {chance.randrange(3)}",
        }
        outcome = Outcome(
            status=status,
            delay=5.0 if status is Status.RETRY else None,
            ttl=None if status is Status.RETRY else chance.choice([10.0, 1000.0]),
            is_retry=status is Status.RETRY,
            **({} if status is Status.SUCCESS else error),  # type: ignore[arg-type]
        )
        if status is not Status.STARTED:
            settlements.append(Settlement(id=record.id, token=record.token or "", outcome=outcome))
    assert all(broker.settle(settlements))
    clock.advance(10.0)
    found = [record for record in broker.get([new.record.id for new in jobs]) if record is not None]
    assert len(running) > 100
    assert 200 < len(found) < 400
    return found


def random_filter(chance: random.Random, records: list[JobRecord]) -> JobFilter:
    """A filter of one to four parts."""
    one = chance.choice(records)
    parts: dict[str, Any] = {
        "ids": tuple(record.id for record in chance.sample(records, 30)),
        "statuses": tuple(chance.sample(STATUSES, chance.randint(1, 3))),
        "paths": (f"p{chance.randrange(3)}", "p1"),
        "queues": tuple(chance.sample(["a", "b", "t/x", "t/", "none/"], chance.randint(1, 2))),
        "workers": ("w1",),
        "schedules": ("daily",),
        "exception_types": tuple(chance.sample(["E1", "shop.E1", "shop.E2", "E9"], chance.randint(1, 3))),
        "error_words": tuple(chance.sample(["no", "lamps", "1", "2"], chance.randint(1, 2))),
        "error_groups": (f"group {chance.randrange(3)}", "group 1"),
        "search_keys": one.search_keys or {"k": 1},
        "since": one.queued_at,
        "params": {"n": chance.randrange(3)},
    }
    return JobFilter(**{name: parts[name] for name in chance.sample(sorted(parts), chance.randint(1, 4))})


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.campaign) for seed in (1, 2, 3))])
@pytest.mark.parametrize("small", [False, True])
def test_any_filter_finds_and_counts_what_matches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, small: bool
) -> None:
    chance = random.Random(seed)
    if small:  # every bound is reached, and every count stops after each part
        monkeypatch.setattr(pacing, "MAX_SECONDS", 0.0)
        monkeypatch.setattr(pacing, "FIRST", 7)
        monkeypatch.setattr(pacing, "LEAST", 7)
        monkeypatch.setattr(searching, "MOST_EXPIRED", chance.choice([1, 10_000]))
        monkeypatch.setattr(indexes, "COUNTED", (2, 5))
        monkeypatch.setattr(indexes, "MOST_SUBQUEUES", 2)
        monkeypatch.setattr(searching, "MOST_SEEKS", 1)
    clock = ManualClock(SystemClock().now_ms())
    with closing(open_broker(tmp_path / "mrq.sqlite3", clock=clock)) as broker:
        records = fill_at_random(broker, clock, chance)
        matched = 0
        for _ in range(150):
            wanted = random_filter(chance, records)
            expected = [record for record in records if matches(record, wanted)]
            matched += bool(expected)
            for order in Order:
                ids = sorted((record.id for record in expected), reverse=order is Order.NEWEST_FIRST)
                first = broker.find(wanted, order=order, limit=7)
                rest = broker.find(wanted, order=order, cursor=first.cursor, limit=400).records
                found = [*first.records, *(rest if first.cursor else ())]
                assert [record.id for record in found] == ids, wanted
            assert count_all(broker, wanted) == {"": len(expected)}, wanted
            for group in GROUPS:
                values = Counter(getattr(record, group) for record in expected)
                del values[None]
                assert count_all(broker, wanted, group) == values, (wanted, group)
        assert matched > 40


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


def test_a_count_that_no_index_serves_stops_in_time_and_says_that_it_is_not_all(
    broker: EmbeddedBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.enqueue([job(params={"n": n % 4}) for n in range(1000)])
    monkeypatch.setattr(pacing, "MAX_SECONDS", 0.0)
    monkeypatch.setattr(pacing, "FIRST", 100)
    wanted = JobFilter(params={"n": 1})
    first = broker.count(wanted, "queue")
    assert (first.is_complete, 20 <= first.number <= 30) == (False, True)
    assert count_all(broker, wanted, "queue") == {"q": 250}
