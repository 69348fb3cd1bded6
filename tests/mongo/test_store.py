"""MongoDB as the store of a broker whose queue is elsewhere."""

from __future__ import annotations

import builtins
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pymongo
import pytest
from msgspec.structs import replace

from mrq_broker_mongo import plugin
from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.server import layout
from mrq_broker_mongo.server.layout import INDEXES, STORE_INDEXES
from mrq_broker_mongo.store import MongoStore
from mrq_core.contract import lifecycle
from mrq_core.contract.driver import Opening
from mrq_core.contract.messages import Cancel, Unique
from mrq_core.contract.pair import JobStore, Replacement
from mrq_core.contract.queries import Finding, JobFilter
from mrq_core.errors import ConfigError
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance import StoreContract, StoreFactory
from mrq_core.testing.conformance.base import LEASE
from mrq_core.testing.conformance.store_kit import (
    FAILURE,
    RETRY,
    entry_of,
    put,
    read_one,
    settle_one,
    start_one,
    succeed_one,
    write_one,
)
from tests.mongo.kit import Place, new_job, open_store
from tests.mongo.servers import Server

Doc = dict[str, Any]
OF_A_QUEUE = {"due_at", "lease_until", "root", "parked", "allowed_at"}
"""Fields by which documents get into the indexes of a queue."""


class TestMongoStore(StoreContract):
    @pytest.fixture
    def store_factory(self, store_place: Place) -> StoreFactory:
        return partial(open_store, store_place)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(store_place: Place, clock: ManualClock) -> Iterator[MongoStore]:
    store = store_place.open_store(clock)
    yield store
    store.close()


@pytest.fixture
def database(server_url: str) -> Iterator[Any]:
    """For looking behind the store's back."""
    with pymongo.MongoClient[Doc](server_url) as client:
        yield client.get_default_database()


# --- documents --------------------------------------------------------------------------------------


def test_no_document_has_what_the_indexes_of_a_queue_go_by(
    store: MongoStore, store_place: Place, clock: ManualClock, database: Any
) -> None:
    """In whatever state a job is: the partial indexes of the broker would hold none of them."""
    ids = [
        put(store, clock, "t/a", limit_keys=("k",), unique=Unique(key="u"), due_at=clock.now())
        for _ in range(6)
    ]
    for job_id in ids[1:]:
        start_one(store, clock, job_id)
    settle_one(store, clock, ids[2], RETRY)
    settle_one(store, clock, ids[3], FAILURE)
    assert succeed_one(store, clock, read_one(store, ids[4]).record)
    marked = read_one(store, ids[5])
    write_one(store, clock, marked, replace(marked.record, cancel_requested=True))
    documents = {str(doc["_id"]): doc for doc in database[f"{store_place.prefix}_jobs"].find()}
    assert documents.keys() == set(ids)
    for doc in documents.values():
        assert not OF_A_QUEUE & doc.keys(), doc
    assert [job_id for job_id in ids if "special" in documents[job_id]] == [ids[5]]
    times = [sorted({"due", "lease"} & documents[job_id].keys()) for job_id in ids]
    assert times == [["due"], ["lease"], ["due"], [], [], ["lease"]]


def test_a_store_has_the_collections_and_indexes_that_it_uses_and_no_others(
    server_url: str, database: Any
) -> None:
    place = Place(server_url, f"test-only-{new_id()}")
    store = place.open_store()
    store.prepare()
    store.insert([new_job("t/a", Unique(key="u"), limit_keys=("k",), raw_queue="x_raw")])
    [record] = store.find(JobFilter()).records
    write_one(store, ManualClock(), read_one(store, record.id), None)
    names = {one for one in database.list_collection_names() if one.startswith(f"{place.prefix}_")}
    assert names == {f"{place.prefix}_{name}" for name in ("jobs", "totals", "state", "meta", "metrics")}
    for collection in ("jobs", "state"):
        there = set(database[f"{place.prefix}_{collection}"].index_information())
        assert there == {"_id_", *(one.name for one in STORE_INDEXES if one.collection == collection)}
    store.close()
    for name in names:
        database.drop_collection(name)


# --- two uses of a prefix ---------------------------------------------------------------------------


@pytest.fixture
def contended(server_url: str) -> Iterator[Place]:
    """A prefix that both want."""
    place = Place(server_url, "test-contended")
    place.clear()
    yield place
    place.clear()


STORE_CALLS: dict[str, Callable[[MongoStore], object]] = {
    "prepare": lambda store: store.prepare(),
    "insert": lambda store: store.insert([new_job()]),
    "read": lambda store: store.read([new_id()]),
    "find": lambda store: store.find(JobFilter()),
    "totals": lambda store: store.totals(),
    "prune": lambda store: store.prune(10),
}


@pytest.mark.parametrize("call", STORE_CALLS.values(), ids=STORE_CALLS)
def test_what_holds_queues_is_not_used_as_a_store(
    contended: Place, call: Callable[[MongoStore], object], database: Any
) -> None:
    broker = contended.open()
    broker.enqueue([new_job()])
    before = list(database[f"{contended.prefix}_jobs"].find())
    store = contended.open_store()
    for _ in range(2):
        with pytest.raises(ConfigError, match="they belong to the broker mongo without a STORE; set MONGO"):
            call(store)
    assert list(database[f"{contended.prefix}_jobs"].find()) == before
    assert list(database[f"{contended.prefix}_meta"].find({"_id": "layout"})) == [
        {"_id": "layout", "version": layout.VERSION, "oldest": layout.OLDEST}
    ]
    finding = found(store)["layout"]
    assert (finding.level, finding.advice) == ("error", "set MONGODB_PREFIX to another name")
    assert "indexes" not in found(store)
    assert found(broker)["layout"].level == "ok"
    broker.close()
    store.close()


BROKER_CALLS: dict[str, Callable[[MongoBroker, str], object]] = {
    "prepare": lambda broker, job_id: broker.prepare(),
    "enqueue": lambda broker, job_id: broker.enqueue([new_job()]),
    "cancel": lambda broker, job_id: broker.cancel([job_id], Cancel()),
}


@pytest.mark.parametrize("call", BROKER_CALLS.values(), ids=BROKER_CALLS)
def test_a_store_is_not_used_as_what_holds_queues(
    contended: Place, call: Callable[[MongoBroker, str], object], database: Any
) -> None:
    store = contended.open_store()
    job = new_job()
    store.insert([job])
    before = list(database[f"{contended.prefix}_jobs"].find())
    broker = contended.open()
    for _ in range(2):
        with pytest.raises(ConfigError, match="with mongo as its STORE; set MONGODB_PREFIX"):
            call(broker, job.record.id)
    assert list(database[f"{contended.prefix}_jobs"].find()) == before
    assert found(broker)["layout"].level == "error"
    assert found(store)["layout"].level == "ok"
    broker.close()
    store.close()


def test_of_those_who_prepare_a_prefix_at_once_for_two_uses_one_use_wins(contended: Place) -> None:
    for _ in range(5):
        contended.clear()
        opened: list[MongoBroker | MongoStore] = []
        for _ in range(4):
            opened += [contended.open(), contended.open_store()]
        winners: list[type] = []
        barrier = threading.Barrier(len(opened))

        def work(
            one: MongoBroker | MongoStore,
            barrier: threading.Barrier = barrier,
            winners: list[type] = winners,
        ) -> None:
            barrier.wait()
            try:
                one.prepare()
            except ConfigError:
                return
            winners.append(type(one))

        threads = [threading.Thread(target=work, args=(one,)) for one in opened]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(winners) == 4
        assert len(set(winners)) == 1
        for one in opened:
            one.close()


def test_a_mark_that_is_not_known_is_refused(contended: Place, database: Any) -> None:
    database[f"{contended.prefix}_meta"].insert_one({"_id": "layout", "version": 1, "arrangement": "new"})
    for one in (contended.open(), contended.open_store()):
        with pytest.raises(ConfigError, match="are marked 'new', by a newer mrq or by hand; set MONGODB"):
            one.prepare()
        one.close()


# --- checks and opening -----------------------------------------------------------------------------


def found(one: MongoBroker | MongoStore) -> dict[str, Finding]:
    return {finding.subject: finding for finding in one.check()}


@pytest.mark.parametrize("index", STORE_INDEXES, ids=lambda index: f"{index.collection}.{index.name}")
def test_an_index_that_a_store_lacks_is_named_and_made(
    store: MongoStore, store_place: Place, database: Any, index: layout.Index
) -> None:
    store.prepare()
    database[f"{store_place.prefix}_{index.collection}"].drop_index(index.name)
    finding = found(store)["indexes"]
    assert finding.level == "error"
    assert finding.message == f"missing: {store_place.prefix}_{index.collection}.{index.name}"
    store.prepare()
    assert found(store)["indexes"].message == f"all {len(STORE_INDEXES)} are there"
    assert len(STORE_INDEXES) < len(INDEXES)


def test_an_empty_prefix_is_no_error_and_stays_empty(server: Server) -> None:
    place = Place(server.url.replace("/mrq", "/untouched"), "mrq")
    store = place.open_store()
    assert {finding.level for finding in store.check()} == {"ok"}
    assert list(store.read([new_id()])) == [None]
    assert store.find(JobFilter()).records == ()
    with server.client() as client:
        assert "untouched" not in client.list_database_names()
    store.close()


def test_the_driver_opens_a_store_and_says_what_it_needs(
    store_place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = plugin.mrq_driver()
    assert driver.open_store is not None
    opening = Opening(settings={"MONGODB": store_place.url, "MONGODB_PREFIX": store_place.prefix})
    store = driver.open_store(opening)
    assert isinstance(store, JobStore)
    assert store.name == "mongo"
    store.close()
    imported = builtins.__import__

    def without(name: str, *more: Any, **others: Any) -> Any:
        if name.startswith("mrq_broker_mongo.store"):
            raise ModuleNotFoundError("No module named 'pymongo'", name="pymongo")
        return imported(name, *more, **others)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"the MongoDB store needs the package pymongo, .*install pymongo$"):
        driver.open_store(opening)


# --- being deleted ----------------------------------------------------------------------------------


def test_a_job_that_somebody_is_deleting_is_gone(
    store: MongoStore, store_place: Place, clock: ManualClock, database: Any
) -> None:
    """A crash may leave it marked: it is not read, and no entry starts it."""
    job_id = put(store, clock)
    jobs = database[f"{store_place.prefix}_jobs"]
    entry = entry_of(read_one(store, job_id))
    jobs.update_one({}, {"$set": {"removal": {"by": 1, "at": clock.now(), "is_asked": True}}})
    for version in (1, 2):
        assert list(store.read([job_id])) == [None]
        tried = replace(entry, version=version)
        assert store.start([tried], worker="w", lease=LEASE, now=clock.now()) == [None]
        jobs.update_one({}, {"$inc": {"v": 1}})


def test_a_read_that_is_late_does_not_change_a_job_that_has_the_id_now(
    store: MongoStore, store_place: Place, clock: ManualClock, database: Any
) -> None:
    """Both are of version 1: the time of their enqueue tells them apart."""
    job_id = put(store, clock)
    before = read_one(store, job_id)
    write_one(store, clock, before, None)
    clock.advance(0.001)
    put(store, clock, id=job_id, params={"n": 2})
    cancelled = lifecycle.cancelled(before.record, now=clock.now(), ttl=5.0)
    assert [one.name for one in store.write([Replacement(before, cancelled)], clock.now())] == ["CHANGED"]
    assert read_one(store, job_id).version == 1
