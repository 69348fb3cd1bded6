"""The two numbers beside the data, and upgrades of MongoDB's own kind: killed in the middle, overtaken, after
a lost reply, and of the store of a pair. `tests/golden/test_upgrades.py` has the tests for all drivers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import Any

import pymongo
import pytest
from bson import ObjectId
from pymongo.collection import Collection

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.server import layout, upgrades
from mrq_broker_mongo.server.connection import Connection
from mrq_broker_mongo.store import MongoStore
from mrq_core import failpoints
from mrq_core.contract.queries import Finding, JobFilter
from mrq_core.contract.record import Status
from mrq_core.drivers.versions import Upgrade
from mrq_core.errors import SchemaTooNew
from mrq_core.testing.clock import ManualClock
from mrq_core.testing.conformance.store_kit import put, read_one, start_one, succeed_one
from tests.golden.stores import FOLDER, load_mongo
from tests.interleaving import at
from tests.mongo.kit import Place, claim, lose_reply_to, new_job, success
from tests.mongo.recount import check_collections
from tests.proxy import Proxy

UPGRADES = dict(layout.UPGRADES)
Doc = dict[str, Any]
Apply = Callable[[Connection], None]
Opened = Callable[[MongoBroker], MongoBroker]


def mark(version: int) -> Apply:
    """An upgrade that marks every job with its version, half of the jobs first."""

    def apply(connection: Connection) -> None:
        failpoints.reach("upgrade.before")
        unmarked = {f"mark{version}": {"$exists": False}}

        def some(jobs: Collection[Doc]) -> list[Any]:
            ids = [doc["_id"] for doc in jobs.find(unmarked, {"_id": 1})]
            return ids[: (len(ids) + 1) // 2]

        ids = connection.run("jobs", some)
        change = {"$set": {f"mark{version}": True}}
        connection.run("jobs", lambda jobs: jobs.update_many({"_id": {"$in": ids}}, change))
        failpoints.reach("upgrade.between")
        connection.run("jobs", lambda jobs: jobs.update_many(unmarked, change))
        failpoints.reach("upgrade.after")

    return apply


def marked(opened: MongoBroker | MongoStore, version: int = 2) -> list[int]:
    """The numbers of jobs with the mark of this version, and without it."""
    return [_number(opened, {f"mark{version}": {"$exists": exists}}) for exists in (True, False)]


def _number(opened: MongoBroker | MongoStore, query: Doc) -> int:
    return opened._connection.run("jobs", lambda jobs: jobs.count_documents(query))


def stored(opened: MongoBroker | MongoStore) -> Doc:
    """The document `layout` without its id."""
    doc = opened._connection.run("meta", lambda meta: meta.find_one({"_id": "layout"}, {"_id": 0}))
    return doc or {}


def finding_of(opened: MongoBroker | MongoStore) -> Finding:
    [finding] = [one for one in opened.check() if one.subject == "layout"]
    return finding


class Driver:
    """Makes this process one of another version of the driver."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch

    def becomes(self, version: int, upgrades: dict[int, Upgrade[Connection]] | None = None) -> None:
        made = {number: Upgrade(mark(number), 1) for number in range(2, version + 1)}
        self._monkeypatch.setattr(layout, "VERSION", version)
        self._monkeypatch.setattr(layout, "UPGRADES", made if upgrades is None else upgrades)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    """This process is of version 1."""
    monkeypatch.setattr(layout, "OLDEST", 1)
    driver = Driver(monkeypatch)
    driver.becomes(1)
    return driver


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Closes brokers after the test."""
    with ExitStack() as stack:
        yield lambda broker: stack.enter_context(closing(broker))


class _Kill:
    """Kills the process at the first point of this name, or at the first that follows `after`."""

    def __init__(self, point: str, after: str) -> None:
        self._point = point
        self._after = after

    def __call__(self, name: str) -> None:
        if name == self._after:
            self._after = ""
        elif name == self._point and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)


def killed_at(place: Place, point: str, after: str = "") -> None:
    """Prepares the place in a child that is killed at the point."""
    child = os.fork()
    if child == 0:
        failpoints.hook = _Kill(point, after)
        try:
            place.open().prepare()
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), f"{point} was not reached"


ONE, TWO = {"version": 1, "oldest": 1}, {"version": 2, "oldest": 1}


@pytest.mark.parametrize(
    ("point", "after", "left", "done"),
    [
        ("upgrade.before", "", ONE, 0),
        ("upgrade.between", "", ONE, 2),
        ("upgrade.after", "", ONE, 4),
        ("meta.before", "upgrade.after", ONE, 4),
        ("meta.after", "upgrade.after", TWO, 4),
    ],
)
def test_an_upgrade_that_was_killed_is_made_again_beside_a_worker_of_the_version_before(
    place: Place, driver: Driver, opened: Opened, point: str, after: str, left: Doc, done: int
) -> None:
    before = opened(place.open())
    before.enqueue([new_job() for _ in range(4)])
    [first] = claim(before, limit=1).records
    driver.becomes(2)
    killed_at(place, point, after)
    assert stored(before) == left
    assert marked(before) == [done, 4 - done]
    assert before.settle([success(first)]) == [True]
    [second, third] = claim(before, limit=2).records
    later = opened(place.open())
    later.prepare()
    assert marked(later) == [4, 0]
    assert stored(later) == TWO
    assert before.settle([success(second)]) == [True]
    assert later.settle([success(third)]) == [True]
    [fourth] = claim(before, limit=1).records
    assert later.settle([success(fourth)]) == [True]
    assert before.totals().by_status() == {Status.SUCCESS: 4}
    check_collections(later)


def test_a_driver_that_first_writes_after_an_upgrade_works_down_to_the_oldest_version(
    place: Place, driver: Driver, opened: Opened
) -> None:
    """Here the first write of a broker that has claimed and read already."""
    with closing(place.open()) as first:
        first.enqueue([new_job(), new_job()])
    allowed, refused = opened(place.open()), opened(place.open())
    [record] = claim(allowed, limit=1).records
    assert len(claim(refused, limit=1).records) == 1
    driver.becomes(2)
    with closing(place.open()) as newer:
        newer.prepare()
    driver.becomes(1)
    assert allowed.enqueue([new_job()])[0].created
    assert allowed.settle([success(record)]) == [True]
    assert finding_of(allowed).level == "ok"
    assert finding_of(allowed).message == (
        f"version 2, for drivers of version 1 and later in {place.prefix}_*"
    )
    driver.becomes(3, {3: Upgrade(mark(3), oldest=2)})
    with closing(place.open()) as newest:
        newest.prepare()
    driver.becomes(1)
    with pytest.raises(SchemaTooNew, match="version 3, for drivers of version 2 and later") as caught:
        refused.enqueue([new_job()])
    assert (caught.value.found, caught.value.supported) == (3, 1)
    assert finding_of(refused).level == "error"
    assert "version 3, for drivers of version 2 and later, and this mrq works with version 1" in (
        finding_of(refused).message
    )
    driver.becomes(2)
    assert refused.enqueue([new_job()])[0].created


def test_the_first_write_of_a_new_version_upgrades_the_data_and_the_check_announces_it(
    place: Place, driver: Driver, opened: Opened
) -> None:
    with closing(place.open()) as first:
        first.enqueue([new_job()])
    driver.becomes(2)
    broker = opened(place.open())
    finding = finding_of(broker)
    assert (finding.level, finding.advice) == (
        "warning",
        "run `mrq check --fix`, or start a worker of this version",
    )
    assert "this mrq upgrades the data to version 2" in finding.message
    assert broker.enqueue([new_job()])[0].created
    assert stored(broker) == TWO
    assert marked(broker) == [1, 1]
    assert finding_of(broker).level == "ok"


def test_an_upgrade_that_is_overtaken_does_not_take_the_numbers_back(
    place: Place, driver: Driver, opened: Opened
) -> None:
    """The slow process learns that its version is too old only by the numbers that it reads afterwards."""
    slow, fast = opened(place.open()), opened(place.open())
    slow.enqueue([new_job(), new_job()])
    further = {2: Upgrade(mark(2), 1), 3: Upgrade(mark(3), 3)}

    def overtake(connection: Connection) -> None:
        driver.becomes(3, further)
        fast.prepare()
        driver.becomes(2, {2: Upgrade(overtake, 1)})
        assert stored(fast) == {"version": 3, "oldest": 3}

    driver.becomes(2, {2: Upgrade(overtake, 1)})
    with pytest.raises(SchemaTooNew, match="version 3, for drivers of version 3 and later"):
        slow.prepare()
    assert stored(slow) == {"version": 3, "oldest": 3}
    assert marked(fast, 2) == marked(fast, 3) == [2, 0]


def test_numbers_are_stored_after_each_upgrade(place: Place, driver: Driver, opened: Opened) -> None:
    broker = opened(place.open())
    broker.prepare()
    seen: list[Doc] = []

    def note(connection: Connection) -> None:
        seen.append(stored(broker))

    driver.becomes(4, {2: Upgrade(note, 1), 3: Upgrade(note, 2), 4: Upgrade(note, 1)})
    broker.prepare()
    assert seen == [ONE, TWO, {"version": 3, "oldest": 2}]
    assert stored(broker) == {"version": 4, "oldest": 2}


def test_data_that_a_process_of_the_version_before_lays_out_meanwhile_are_upgraded(
    place: Place, driver: Driver, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the first look of the new version at an empty prefix and its write of the layout."""
    before, after = opened(place.open()), opened(place.open())

    def lay_out() -> None:
        driver.becomes(1)
        before.enqueue([new_job(), new_job()])
        driver.becomes(2)

    driver.becomes(2)
    at(monkeypatch, "meta.after", lay_out)
    after.prepare()
    assert stored(after) == TWO
    assert marked(after) == [2, 0]


def test_the_store_of_a_pair_is_upgraded_beside_a_store_of_the_version_before(
    store_place: Place, driver: Driver
) -> None:
    clock = ManualClock()
    with closing(store_place.open_store(clock)) as before, closing(store_place.open_store(clock)) as after:
        ids = [put(before, clock), put(before, clock)]
        assert stored(before) == {**ONE, "arrangement": "store"}
        start_one(before, clock, ids[0])
        driver.becomes(2)
        ids.append(put(after, clock))
        assert stored(after) == {**TWO, "arrangement": "store"}
        assert marked(after) == [2, 1]
        driver.becomes(1)
        assert succeed_one(before, clock, read_one(before, ids[0]).record)
        for job_id in ids[1:]:
            start_one(before, clock, job_id)
            assert succeed_one(after, clock, read_one(after, job_id).record)
        assert after.totals().by_status() == {Status.SUCCESS: 3}
        with closing(store_place.open_store(clock)) as started_late:
            assert read_one(started_late, put(started_late, clock)).version == 1
            assert finding_of(started_late).level == "ok"


@pytest.mark.parametrize("written", [{"version": 1}, {"version": 1, "arrangement": "store"}])
def test_a_layout_without_the_second_number_is_upgraded_too(
    place: Place, store_place: Place, driver: Driver, written: Doc
) -> None:
    is_store = "arrangement" in written
    with closing(store_place.open_store() if is_store else place.open()) as opened:
        opened._connection.run("meta", lambda meta: meta.insert_one({"_id": "layout", **written}))
        opened.prepare()
        assert stored(opened) == written
        assert finding_of(opened).level == "ok"
        driver.becomes(2)
        for _ in range(2):
            opened.prepare()
            assert stored(opened) == {**written, **TWO}


def test_an_upgrade_whose_reply_was_lost_is_made_once(
    place: Place, proxy: Proxy, driver: Driver, opened: Opened
) -> None:
    before = opened(place.open())
    before.enqueue([new_job()])
    driver.becomes(2)
    behind = opened(replace(place, url=f"mongodb://127.0.0.1:{proxy.port}/mrq").open())

    def lose_reply(connection: Connection) -> None:
        mark(2)(connection)
        lose_reply_to(proxy, place, "update", "meta")

    driver.becomes(2, {2: Upgrade(lose_reply, 1)})
    behind.prepare()
    assert stored(behind) == TWO
    assert marked(before) == [1, 0]
    driver.becomes(1)
    assert len(claim(before).records) == 1


# --- the upgrade to version 2 ----------------------------------------------------------------------


def load_version_1(place: Place) -> int:
    """Writes data of version 1 with the index of exception types; returns the time of their clock in
    milliseconds."""
    load_mongo(place, json.loads((FOLDER / "mongo-1.data.json").read_text(encoding="utf-8"))["mongo"])
    with pymongo.MongoClient[Doc](place.url) as client:
        jobs = client.get_default_database()[f"{place.prefix}_jobs"]
        jobs.create_index(
            [("exception_type", 1), ("_id", 1)],
            name="exception_type",
            partialFilterExpression={"exception_type": {"$exists": True}},
        )
    return int(json.loads((FOLDER / "mongo-1.expected.json").read_text(encoding="utf-8"))["now_ms"])


def index_names(opened: MongoBroker) -> set[str]:
    return opened._connection.run("jobs", lambda jobs: set(jobs.index_information()))


@pytest.mark.parametrize("point", [None, "upgrade.terms", "upgrade.indexes"])
def test_exceptions_of_version_1_are_found_by_their_terms(
    place: Place, opened: Opened, monkeypatch: pytest.MonkeyPatch, point: str | None
) -> None:
    monkeypatch.setattr(upgrades, "BATCH", 2)
    broker = opened(place.open(ManualClock(load_version_1(place))))
    if point is not None:
        killed_at(place, point)
        assert stored(broker) == ONE
    broker.prepare()
    assert stored(broker) == {"version": 2, "oldest": 2}
    [counted] = broker._connection.run("totals", lambda totals: list(totals.find({"_id": "t golden.Error"})))
    assert sum(counted["n"].values()) == 5
    check_collections(broker)
    for name in ("golden.Error", "Error"):
        assert broker.count(JobFilter(exception_types=(name,))).numbers == {"": 5}
        assert len(broker.find(JobFilter(exception_types=(name,))).records) == 5
    assert broker.count(JobFilter(), "exception_type").numbers == {"golden.Error": 5}
    assert {"terms"} == index_names(broker) & {"terms", "exception_type"}
    UPGRADES[2].apply(broker._connection)
    check_collections(broker)


def test_a_job_that_changes_during_the_upgrade_keeps_the_terms_of_its_change(
    place: Place, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may have upgraded already, and work."""
    broker = opened(place.open(ManualClock(load_version_1(place))))
    [failed] = broker.find(JobFilter(statuses=(Status.FAILED,))).records
    done: list[str] = []

    def requeue(name: str) -> None:
        if name == "upgrade.terms" and not done:
            done.append(name)
            with pymongo.MongoClient[Doc](place.url) as client:
                jobs = client.get_default_database()[f"{place.prefix}_jobs"]
                jobs.update_one({"_id": ObjectId(failed.id)}, {"$unset": {"exception_type": ""}})

    monkeypatch.setattr(failpoints, "hook", requeue)
    UPGRADES[2].apply(broker._connection)
    assert done
    monkeypatch.setattr(failpoints, "hook", None)
    doc = broker._connection.run("jobs", lambda jobs: jobs.find_one({"_id": ObjectId(failed.id)}))
    assert doc is not None
    assert "terms" not in doc


def test_a_worker_of_version_1_is_refused_after_the_upgrade(
    place: Place, driver: Driver, opened: Opened
) -> None:
    with closing(place.open()) as before:
        before.prepare()
        assert stored(before) == ONE
    driver.becomes(2, UPGRADES)
    opened(place.open()).prepare()
    driver.becomes(1)
    with pytest.raises(SchemaTooNew, match="version 2, for drivers of version 2 and later"):
        opened(place.open()).enqueue([new_job()])
