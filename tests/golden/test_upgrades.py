"""Upgrades of stored data: beside workers of the version before, after a crash, and in several processes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import pytest

import mrq_broker_mongo.server.layout as mongo_layout
import mrq_broker_redis.server.layout as redis_layout
import mrq_core.embedded.server.layout as sqlite_layout
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.record import JobRecord, Status
from mrq_core.drivers.versions import Upgrade
from mrq_core.errors import BrokerUnavailable, SchemaTooNew
from tests.brokers import server_url
from tests.embedded.kit import job
from tests.embedded.kit import open_broker as open_sqlite
from tests.mongo.kit import Place as MongoPlace
from tests.redis.kit import Place as RedisPlace


class Stored(NamedTuple):
    """Data of one driver: how to open a broker on them, and the module with their version."""

    open: Callable[[], Broker]
    layout: ModuleType
    mark: Callable[[Any], None]
    """An upgrade: marks the data, once or again."""
    marks: Callable[[], int]
    """How many marks the data bear."""


@pytest.fixture(params=["sqlite", "redis", "mongo"])
def stored(request: pytest.FixtureRequest, tmp_path: Path) -> Stored:
    return {"sqlite": _sqlite, "redis": _redis, "mongo": _mongo}[request.param](tmp_path)


def _sqlite(folder: Path) -> Stored:
    path = folder / "jobs.sqlite3"

    def mark(connection: Any) -> None:
        connection.execute("CREATE TABLE marks (n)")

    def marks() -> int:
        with closing(open_sqlite(path)) as broker:
            return int(
                broker._database.read(
                    lambda c: c.execute("SELECT count(*) FROM sqlite_master WHERE name = 'marks'").fetchone()[
                        0
                    ]
                )
            )

    return Stored(lambda: open_sqlite(path), sqlite_layout, mark, marks)


def _redis(folder: Path) -> Stored:
    place = RedisPlace(server_url("redis"), folder.name)

    def mark(connection: Any) -> None:
        connection.execute("SADD", connection.key("marks"), "2")

    def marks() -> int:
        with closing(place.open()) as broker:
            return int(broker._connection.execute("SCARD", broker._connection.key("marks")))

    return Stored(place.open, redis_layout, mark, marks)


def _mongo(folder: Path) -> Stored:
    place = MongoPlace(server_url("mongo"), folder.name)

    def mark(connection: Any) -> None:
        connection.run("meta", lambda meta: meta.update_one({"_id": "mark"}, {"$set": {"n": 2}}, upsert=True))

    def marks() -> int:
        with closing(place.open()) as broker:
            return int(broker._connection.run("meta", lambda meta: meta.count_documents({"_id": "mark"})))

    return Stored(place.open, mongo_layout, mark, marks)


class Version:
    """Makes this process one of version 1 or of version 2 of the driver."""

    def __init__(self, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> None:
        self._stored = stored
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(stored.layout, "OLDEST", 1)

    def is_one(self) -> None:
        self._monkeypatch.setattr(self._stored.layout, "VERSION", 1)
        self._monkeypatch.setattr(self._stored.layout, "UPGRADES", {})

    def is_two(self, *, apply: Callable[[Any], None] | None = None, oldest: int = 1) -> None:
        upgrade = Upgrade(apply or self._stored.mark, oldest)
        self._monkeypatch.setattr(self._stored.layout, "VERSION", 2)
        self._monkeypatch.setattr(self._stored.layout, "UPGRADES", {2: upgrade})


@pytest.fixture
def version(stored: Stored, monkeypatch: pytest.MonkeyPatch) -> Version:
    """Data of version 1 are there, and this process is of version 1."""
    version = Version(stored, monkeypatch)
    version.is_one()
    with closing(stored.open()) as broker:
        broker.prepare()
    return version


def claim(broker: Broker) -> JobRecord:
    [record] = broker.claim(ClaimRequest(worker="w", wanted=(Wanted(name="q"),), limit=1, lease=60.0)).records
    return record


def settle(broker: Broker, record: JobRecord) -> bool:
    outcome = Outcome(status=Status.SUCCESS, ttl=60.0)
    [accepted] = broker.settle([Settlement(id=record.id, token=record.token or "", outcome=outcome)])
    return accepted


def layout_of(broker: Broker) -> str:
    [finding] = [finding for finding in broker.check() if finding.subject == "layout"]
    return f"{finding.level}: {finding.message}"


def test_workers_of_the_version_before_go_on_beside_an_upgrade(stored: Stored, version: Version) -> None:
    with closing(stored.open()) as before:
        before.enqueue([job(), job(), job()])
        first = claim(before)
        version.is_two()
        with closing(stored.open()) as after:
            after.prepare()
            assert stored.marks() == 1
            assert layout_of(after).startswith("ok: version 2, for drivers of version 1 and later")
            second = claim(after)
        version.is_one()
        assert settle(before, first)
        third = claim(before)
        assert before.get([third.id])[0] is not None
        with closing(stored.open()) as started_late:
            started_late.prepare()
            assert settle(started_late, second)
            assert settle(started_late, third)
            assert layout_of(started_late).startswith("ok: version 2")
        assert before.totals().by_status() == {Status.SUCCESS: 3}


def test_an_upgrade_that_died_is_made_by_the_next_process(stored: Stored, version: Version) -> None:
    def die(connection: Any) -> None:
        raise BrokerUnavailable("the process died")

    version.is_two(apply=die)
    with closing(stored.open()) as broker, pytest.raises(BrokerUnavailable, match="died"):
        broker.prepare()
    version.is_one()
    assert stored.marks() == 0
    with closing(stored.open()) as broker:
        assert layout_of(broker).startswith("ok: version 1,")
    version.is_two()
    with closing(stored.open()) as broker:
        broker.prepare()
        assert layout_of(broker).startswith("ok: version 2,")
    assert stored.marks() == 1


def test_of_processes_that_upgrade_at_once_all_find_the_result(stored: Stored, version: Version) -> None:
    version.is_two()
    failures: list[BaseException] = []

    def work() -> None:
        try:
            with closing(stored.open()) as broker:
                broker.prepare()
                broker.enqueue([job()])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with closing(stored.open()) as broker:
        assert broker.totals().by_status() == {Status.QUEUED: 6}
        assert layout_of(broker).startswith("ok: version 2,")
    assert stored.marks() == 1


def test_only_a_driver_below_the_oldest_version_is_refused(stored: Stored, version: Version) -> None:
    version.is_two(oldest=2)
    with closing(stored.open()) as broker:
        broker.prepare()
    version.is_one()
    with closing(stored.open()) as broker:
        with pytest.raises(SchemaTooNew, match=r"version 2, for drivers of version 2 and later.*upgrade mrq"):
            broker.prepare()
        assert any("upgrade mrq" in finding.message + finding.advice for finding in broker.check())
