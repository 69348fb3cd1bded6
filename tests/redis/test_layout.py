"""The two numbers beside the data, and upgrades of Redis's own kind: killed in the middle, overtaken, on a
cluster, and of the queue half. `tests/golden/test_upgrades.py` has the tests for all drivers."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing

import pytest
import redis
from msgspec.structs import replace

from mrq_broker_redis.broker import RedisBroker
from mrq_broker_redis.jobs import records
from mrq_broker_redis.queue import RedisQueue
from mrq_broker_redis.server import layout, upgrades
from mrq_broker_redis.server.connection import Connection
from mrq_core import failpoints
from mrq_core.contract.messages import ClaimRequest, Wanted
from mrq_core.contract.pair import Entry
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.drivers.versions import Upgrade
from mrq_core.errors import SchemaTooNew
from mrq_core.ids import new_id
from mrq_core.testing.clock import ManualClock
from tests.golden.stores import FOLDER, load_redis
from tests.redis.kit import Place
from tests.redis.recount import check_keys
from tests.redis.servers import Server
from tests.redis.services import cluster, cluster_url
from tests.redis.test_connection import claim, new_job, success

UPGRADES = dict(layout.UPGRADES)
Apply = Callable[[Connection], None]


def mark(version: int) -> Apply:
    """An upgrade that marks the data with its version in two steps, once or again."""

    def apply(connection: Connection) -> None:
        failpoints.reach("upgrade.before")
        connection.execute("SADD", connection.key("begun"), version)
        failpoints.reach("upgrade.between")
        connection.execute("SADD", connection.key("made"), version)

    return apply


def marks(broker: RedisBroker) -> tuple[set[bytes], set[bytes]]:
    """The upgrades that were begun, and those that were made."""
    connection = broker._connection
    begun, made = (connection.execute("SMEMBERS", connection.key(name)) for name in ("begun", "made"))
    return set(begun), set(made)


def stored(broker: RedisBroker | RedisQueue) -> str:
    """The key `layout`."""
    return str(broker._connection.execute("GET", broker._connection.key("layout")).decode())


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
def opened() -> Iterator[Callable[[RedisBroker], RedisBroker]]:
    """Closes brokers after the test."""
    with ExitStack() as stack:
        yield lambda broker: stack.enter_context(closing(broker))


def killed_at(place: Place, point: str) -> None:
    """Prepares the place in a child that is killed at the point."""
    child = os.fork()
    if child == 0:
        failpoints.hook = lambda name: os.kill(os.getpid(), signal.SIGKILL) if name == point else None
        try:
            place.open().prepare()
        finally:
            os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), f"{point} was not reached"


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("upgrade.before", "1 1"),
        ("upgrade.between", "1 1"),
        ("raise_version.before", "1 1"),
        ("raise_version.after", "2 1"),
    ],
)
def test_an_upgrade_that_was_killed_is_made_again_beside_a_worker_of_the_version_before(
    place: Place, driver: Driver, opened: Callable[[RedisBroker], RedisBroker], point: str, left: str
) -> None:
    before = opened(place.open())
    before.enqueue([new_job() for _ in range(3)])
    [first] = claim(before, limit=1).records
    driver.becomes(2)
    killed_at(place, point)
    assert stored(before) == left
    assert before.settle([success(first)]) == [True]
    [second] = claim(before, limit=1).records
    after = opened(place.open())
    after.prepare()
    assert marks(after) == ({b"2"}, {b"2"})
    assert stored(after) == "2 1"
    assert before.settle([success(second)]) == [True]
    [third] = claim(before, limit=1).records
    assert after.settle([success(third)]) == [True]
    assert before.totals().by_status() == {Status.SUCCESS: 3}


def test_a_driver_that_first_writes_after_an_upgrade_works_down_to_the_oldest_version(
    place: Place, driver: Driver, opened: Callable[[RedisBroker], RedisBroker]
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
    driver.becomes(3, {3: Upgrade(mark(3), oldest=2)})
    with closing(place.open()) as newest:
        newest.prepare()
    driver.becomes(1)
    with pytest.raises(SchemaTooNew, match="version 3, for drivers of version 2 and later") as caught:
        refused.enqueue([new_job()])
    assert (caught.value.found, caught.value.supported) == (3, 1)
    driver.becomes(2)
    assert refused.enqueue([new_job()])[0].created


def test_an_upgrade_that_is_overtaken_does_not_take_the_numbers_back(
    place: Place, driver: Driver, opened: Callable[[RedisBroker], RedisBroker]
) -> None:
    slow, fast = opened(place.open()), opened(place.open())
    slow.prepare()
    further = {2: Upgrade(mark(2), 1), 3: Upgrade(mark(3), 2)}

    def overtake(connection: Connection) -> None:
        driver.becomes(3, further)
        fast.prepare()
        assert stored(fast) == "3 2"

    driver.becomes(2, {2: Upgrade(overtake, 1)})
    slow.prepare()
    assert stored(slow) == "3 2"
    assert marks(fast) == ({b"2", b"3"}, {b"2", b"3"})


def test_numbers_are_stored_after_each_upgrade(
    place: Place, driver: Driver, opened: Callable[[RedisBroker], RedisBroker]
) -> None:
    broker = opened(place.open())
    broker.prepare()
    seen: list[str] = []

    def note(connection: Connection) -> None:
        seen.append(stored(broker))

    driver.becomes(4, {2: Upgrade(note, 1), 3: Upgrade(note, 2), 4: Upgrade(note, 1)})
    broker.prepare()
    assert seen == ["1 1", "2 1", "3 2"]
    assert stored(broker) == "4 2"


def test_the_queue_half_is_upgraded_beside_a_queue_of_the_version_before(
    place: Place, driver: Driver
) -> None:
    with closing(place.open_queue()) as before, closing(place.open_queue()) as after:
        before.prepare()
        assert stored(before) == "1 1 queue"
        entry = Entry(id=new_id(), queue="q", version=1, due_at=None)
        assert before.push([entry]) == [True]
        driver.becomes(2)
        after.now()
        assert stored(after) == "2 1 queue"
        driver.becomes(1)
        before.now()
        request = ClaimRequest(worker="w", wanted=(Wanted(name="q"),), limit=5, lease=60.0)
        assert [one.id for one in before.claim(request).entries] == [entry.id]
        [finding] = [one for one in before.check() if one.subject == "layout"]
        assert finding.level == "ok"
        assert finding.message.startswith("version 2, for drivers of version 1 and later under")


@pytest.mark.parametrize(
    ("written", "after"), [("1", "2 1"), ("1 queue", "2 1 queue"), ("1 1 queue", "2 1 queue")]
)
def test_a_layout_without_the_second_number_is_upgraded_too(
    place: Place, server: Server, driver: Driver, written: str, after: str
) -> None:
    with server.client() as client:
        client.set("{" + place.prefix + "}:layout", written)
    driver.becomes(2)
    with closing(place.open_queue() if "queue" in written else place.open()) as opened:
        opened.prepare()
        assert stored(opened) == after
        opened.prepare()
        assert stored(opened) == after


def test_data_on_a_cluster_are_upgraded(driver: Driver) -> None:
    with cluster() as nodes:
        place = Place(cluster_url(nodes), "mrq")
        with closing(place.open()) as before, closing(place.open()) as after:
            before.enqueue([new_job(), new_job()])
            driver.becomes(2)
            after.prepare()
            assert stored(after) == "2 1"
            assert marks(after) == ({b"2"}, {b"2"})
            assert before.settle([success(record) for record in claim(before).records]) == [True] * 2


# --- the upgrade to version 2 ----------------------------------------------------------------------


def load_version_1(place: Place) -> int:
    """Writes data of version 1; returns the time of their clock in milliseconds.

    They contain a started job with the exception type of the attempt before, as earlier drivers left it.
    """
    load_redis(place, json.loads((FOLDER / "redis-1.data.json").read_text(encoding="utf-8"))["redis"])
    with redis.Redis.from_url(place.url) as client:
        [started, *_] = client.zrange(key_in(place, "i:s:started"), 0, 0)
        client.hset(key_in(place, f"j:{started.decode()}"), "g", "golden.Error")
        client.zadd(key_in(place, "i:g:golden.Error"), {started: 0})
    return int(json.loads((FOLDER / "redis-1.expected.json").read_text(encoding="utf-8"))["now_ms"])


def key_in(place: Place, name: str) -> str:
    return "{" + place.prefix + "}:" + name


@pytest.mark.parametrize(
    "point",
    [None, "columns.after", "add_exceptions.before", "add_exceptions.after", "raise_version.before"],
)
def test_exceptions_of_version_1_are_found_by_their_terms(
    place: Place, opened: Callable[[RedisBroker], RedisBroker], point: str | None
) -> None:
    now_ms = load_version_1(place)
    broker = opened(place.open(ManualClock(now_ms)))
    if point is not None:
        killed_at(place, point)
        assert stored(broker) == "1 1"
    broker.prepare()
    assert stored(broker) == "2 2"
    check_keys(broker)
    for name in ("golden.Error", "Error"):
        assert broker.count(JobFilter(exception_types=(name,))).numbers == {"": 5}
    layout.UPGRADES[2].apply(broker._connection)
    check_keys(broker)


def test_jobs_that_change_during_the_upgrade_are_read_again(
    place: Place, opened: Callable[[RedisBroker], RedisBroker], monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = opened(place.open(ManualClock(load_version_1(place))))
    [failed] = broker.find(JobFilter(statuses=(Status.FAILED,))).records
    failed_again = replace(failed, exception_type="golden.Other")

    def change(name: str) -> None:
        """Writes what a driver of version 1 writes."""
        if name != "add_exceptions.before":
            return
        monkeypatch.setattr(failpoints, "hook", None)
        with redis.Redis.from_url(place.url) as client:
            client.set(key_in(place, f"r:{failed.id}"), bytes(records.data_of(failed_again))[5:])
            client.hset(key_in(place, f"j:{failed.id}"), mapping={"v": 99, "g": "golden.Other"})
            client.zrem(key_in(place, "i:g:golden.Error"), failed.id)
            client.zadd(key_in(place, "i:g:golden.Other"), {failed.id: 0})

    monkeypatch.setattr(upgrades, "Status", [Status.FAILED, *(set(Status) - {Status.FAILED})])
    monkeypatch.setattr(failpoints, "hook", change)
    broker.prepare()
    check_keys(broker)
    assert broker.count(JobFilter(exception_types=("Error",))).numbers == {"": 4}
    assert broker.count(JobFilter(exception_types=("Other",))).numbers == {"": 1}


def test_a_worker_of_version_1_is_refused_after_the_upgrade(
    place: Place, driver: Driver, opened: Callable[[RedisBroker], RedisBroker]
) -> None:
    with closing(place.open()) as before:
        before.prepare()
        assert stored(before) == "1 1"
    driver.becomes(2, UPGRADES)
    opened(place.open()).prepare()
    driver.becomes(1)
    with pytest.raises(SchemaTooNew, match="version 2, for drivers of version 2 and later"):
        opened(place.open()).enqueue([new_job()])
