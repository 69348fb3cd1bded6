"""What calls of the store cost: few commands, each through an index, and few entries of indexes changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pymongo
import pytest

from mrq_broker_mongo.store import MongoStore
from mrq_core.contract import lifecycle
from mrq_core.contract.messages import NewJob, Note, Outcome, Unique
from mrq_core.contract.pair import Entry, Replacement
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.contract.shared_state import Versions
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.base import LEASE, new_job
from mrq_core.testing.conformance.store_kit import FAILURE, RETRY, SUCCESS, entry_of, settlement_of
from tests.mongo.explaining import Doc, Explained, check
from tests.mongo.kit import Place


@pytest.fixture
def explained(store_place: Place) -> Iterator[Explained]:
    with pymongo.MongoClient[Doc](store_place.url) as client:
        yield Explained(client)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(store_place: Place, explained: Explained, clock: ManualClock) -> Iterator[MongoStore]:
    """A store with a thousand jobs of each sort."""
    store = store_place.open_store(clock)
    connection = store._connection
    connect = lambda: pymongo.MongoClient[Doc](store_place.url, event_listeners=[explained])  # noqa: E731
    connection.location = connection.location._replace(connect=connect)
    store.prepare()
    store.insert([new_job(clock) for _ in range(1000)])
    for status in (Status.STARTED, Status.SUCCESS, Status.FAILED):
        entries = insert(store, clock, 1000)
        if status is not Status.STARTED:
            end(store, clock, started(store, clock, entries), Outcome(status=status, ttl=1e6))
    yield store
    explained.is_on = False
    store.close()


def insert(store: MongoStore, clock: ManualClock, number: int, **fields: Any) -> list[Entry]:
    """New jobs; answers with entries for them that were claimed together."""
    jobs = [new_job(clock, **fields) for _ in range(number)]
    assert all(answer.created for answer in store.insert(jobs))
    return [entry_of(stored) for stored in store.read([job.record.id for job in jobs]) if stored is not None]


def started(store: MongoStore, clock: ManualClock, entries: list[Entry]) -> list[JobRecord]:
    records = store.start(entries, worker="w", lease=LEASE, now=clock.now())
    return [record for record in records if record is not None]


def end(store: MongoStore, clock: ManualClock, records: list[JobRecord], outcome: Outcome) -> None:
    found = store.read([record.id for record in records])
    store.write(
        [Replacement(one, lifecycle.settled(one.record, outcome, clock.now())) for one in found if one],
        clock.now(),
    )


def commands(store: MongoStore, explained: Explained, work: Callable[[], object], **more: int) -> list[str]:
    """The commands that the work sends, without the prefix."""
    prefix = store._connection.name("")
    return [one.replace(prefix, "") for one in check(explained, work, **more).commands]


LIMITED: dict[str, Any] = {"limit_keys": ("k", "l")}
UNIQUE: dict[str, Any] = {"unique": Unique(key="u")}


@pytest.mark.parametrize("fields", [{}, LIMITED, UNIQUE], ids=["plain", "limited", "unique"])
def test_the_way_of_fifty_jobs_takes_seven_commands(
    store: MongoStore, explained: Explained, clock: ManualClock, fields: dict[str, Any]
) -> None:
    """Limits and unique keys make no difference."""
    jobs = [new_job(clock, **fields) for _ in range(50)]
    assert commands(store, explained, lambda: store.insert(jobs)) == ["insert jobs", "update totals"]
    entries = [entry_of(one) for one in store.read([job.record.id for job in jobs]) if one is not None]
    records: list[JobRecord] = []
    sent = commands(store, explained, lambda: records.extend(started(store, clock, entries)))
    assert sent == ["find jobs", "update jobs", "update totals"]
    updates = [command for command, _ in explained.found if command.get("update", "").endswith("_jobs")]
    assert [len(command["updates"]) for command in updates] == [1], "one for all"
    assert len(records) == 50
    settlements = [settlement_of(record, SUCCESS) for record in records]
    sent = commands(store, explained, lambda: store.succeed(settlements, clock.now()))
    assert sent == ["update jobs", "update totals"]
    assert store.count(JobFilter(ids=tuple(entry.id for entry in entries)), "status").numbers == {
        "success": 50
    }


def test_other_jobs_are_started_and_ended_in_as_many_commands(
    store: MongoStore, explained: Explained, clock: ManualClock
) -> None:
    entries = insert(store, clock, 50)
    end(store, clock, started(store, clock, entries), RETRY)
    entries = [entry_of(one) for one in store.read([entry.id for entry in entries]) if one is not None]
    records: list[JobRecord] = []
    sent = commands(store, explained, lambda: records.extend(started(store, clock, entries)))
    assert sent == ["find jobs", "update jobs", "update totals"]
    assert len(records) == 50
    notes = [Note(id=one.id, token=one.token or "", progress=0.5) for one in records]
    assert commands(store, explained, lambda: store.annotate(notes, clock.now())) == ["update jobs"]
    sent = commands(store, explained, lambda: end(store, clock, records, FAILURE))
    assert sent == ["find jobs", "update jobs", "update totals"]


def test_only_what_others_were_quicker_with_is_read_back(
    store: MongoStore, explained: Explained, clock: ManualClock
) -> None:
    entries = insert(store, clock, 50)
    settlements = [settlement_of(one, SUCCESS) for one in started(store, clock, entries)]
    sent = commands(store, explained, lambda: started(store, clock, entries))
    assert sent == ["find jobs"]
    assert all(store.succeed(settlements[:25], clock.now()))
    sent = commands(store, explained, lambda: store.succeed(settlements[25:], clock.now()))
    assert sent == ["update jobs", "update totals"]
    again = lambda: store.succeed(settlements, clock.now())  # noqa: E731
    assert commands(store, explained, again, scanned=100) == ["find jobs", "update jobs", "find jobs"]


def test_every_other_call_goes_through_an_index(
    store: MongoStore, explained: Explained, clock: ManualClock
) -> None:
    entries = insert(store, clock, 20)
    found = [one for one in store.read([entry.id for entry in entries]) if one is not None]
    followups = (new_job(clock),)
    parents = [
        Replacement(one, lifecycle.cancelled(one.record, now=clock.now(), ttl=1.0), followups)
        for one in found[:10]
    ]
    check(explained, lambda: store.write(parents, clock.now()))
    check(explained, lambda: store.unfinished(10, before=clock.now()))
    check(explained, lambda: store.finish(found[0].record.id, [followups[0].record.id]))
    check(explained, lambda: store.write([Replacement(one, None) for one in found[10:]], clock.now()))
    check(explained, lambda: store.find(JobFilter(statuses=(Status.STARTED,)), limit=20))
    check(explained, lambda: store.find(JobFilter(queues=("q",)), limit=20))
    check(explained, lambda: store.poll("w", Versions()))
    check(explained, store.queue_names)
    clock.advance(1.0)
    store.prune(0)  # which recounts, and that reads every job
    check(explained, lambda: store.prune(5))
    anew: list[NewJob] = [new_job(clock, id=one.record.id) for one in found[:10]]
    check(explained, lambda: store.insert(anew), scanned=60)


def test_a_claim_changes_the_index_of_statuses_and_no_other(
    store: MongoStore, clock: ManualClock, store_place: Place
) -> None:
    """The server's profiler counts the entries of indexes that each command changes."""
    entries = insert(store, clock, 50, due_at=clock.now(), limit_keys=("k",))
    records: list[JobRecord] = []
    assert _changed(store_place, lambda: records.extend(started(store, clock, entries))) == (50, 50)
    settlements = [settlement_of(record, SUCCESS) for record in records]
    # By a success also the index of expiry:
    assert _changed(store_place, lambda: store.succeed(settlements, clock.now())) == (100, 50)


def _changed(place: Place, work: Callable[[], object]) -> tuple[int, int]:
    """How many entries of the indexes of jobs the work adds, and how many it deletes."""
    with pymongo.MongoClient[Doc](place.url) as client:
        database = client.get_default_database()
        database.command("profile", 2)
        try:
            work()
        finally:
            database.command("profile", 0)
        found = list(database["system.profile"].find({"ns": f"{database.name}.{place.prefix}_jobs"}))
        database.drop_collection("system.profile")
    return sum(one.get("keysInserted", 0) for one in found), sum(one.get("keysDeleted", 0) for one in found)
