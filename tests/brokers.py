"""The brokers on which the tests of worker, command line and client run, and addresses of empty brokers.

These tests run on PER_COMMIT in the usual run, and on all brokers in a campaign. MRQ_TEST_BROKERS names
others. The tests of worker, command line and dashboard take long: in the usual run each runs on one of
PER_COMMIT.
"""

from __future__ import annotations

import itertools
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.store import MongoStore
from mrq_broker_redis.broker import RedisBroker
from mrq_core.composed import ComposedBroker
from mrq_core.contract.broker import Broker
from tests.composed.recount import check_halves
from tests.embedded.recount import check_tables
from tests.mongo import recount, servers
from tests.redis.recount import check_keys
from tests.redis.servers import Server

NAMES = tuple(os.environ.get("MRQ_TEST_BROKERS", "sqlite,redis,mongo,redis+mongo").split(","))
PER_COMMIT = NAMES if "MRQ_TEST_BROKERS" in os.environ else ("sqlite", "redis")
PARAMS = [name if name in PER_COMMIT else pytest.param(name, marks=pytest.mark.campaign) for name in NAMES]
"""The names as parameters of a fixture; those that a commit leaves to the campaign are marked."""

_ON_EACH = frozenset(
    {
        *("test_crashes", "test_fleet", "test_lost_claims", "test_native_settling"),
        "test_io_of_brokers",
        "test_recursion",
    }
)
"""Modules that run on each of PER_COMMIT: they depend on the broker."""
_ON_FIRST = frozenset(
    {
        *("test_fork_server", "test_giving_up", "test_hostile_code", "test_hostile_plugins", "test_imports"),
        *("test_log_handlers", "test_odd_values", "test_process_end", "test_solo", "test_solo_log"),
        "test_stray_exceptions",
        *("test_processes", "test_processes_starting", "test_processes_surroundings", "test_surroundings"),
        *("test_surroundings_logging", "test_surroundings_signals", "test_surroundings_streams"),
        "test_swallowed_interrupts",
    }
)
"""Modules that run on the first of PER_COMMIT: their tests take seconds, and hardly depend on the broker, or
mostly on SQLite."""
_VARIANTS = 1
"""The number of variants of a test of the worker in the usual run: each of them starts processes."""

_PARAMETERS = ("project", "project_broker", "config")
"""The parameters of a test that name its broker. `config` is that of the dashboard's tests."""

_numbers = itertools.count()
_servers: dict[str, Server | servers.Server] = {}


class Address(NamedTuple):
    """Where a broker is: the values of BROKER and STORE."""

    broker: str
    store: str = ""

    def flags(self) -> list[str]:
        """The same for the command line."""
        return ["--broker", self.broker, *(["--store", self.store] if self.store else [])]


def address_of(name: str, folder: Path) -> Address:
    """The address of an empty broker. Servers are started when they are first asked for."""
    if name == "sqlite":
        return Address(f"sqlite:///{folder}/jobs.sqlite3")
    if name in ("redis", "mongo"):
        return Address(_with_prefix(server_url(name)))
    if name == "redis+mongo":
        return Address(_with_prefix(server_url("redis")), _with_prefix(server_url("mongo")))
    pytest.fail(f"MRQ_TEST_BROKERS names {name}: expected sqlite, redis, mongo or redis+mongo")


def server_url(name: str) -> str:
    """The URL of the server that tests share, Redis or MongoDB. It is started when it is first asked for."""
    return _redis() if name == "redis" else _mongo()


def _with_prefix(url: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}prefix=project-{os.getpid()}-{next(_numbers)}"


def _redis() -> str:
    named = os.environ.get("MRQ_TEST_REDIS_URL")
    if named:
        return named
    if "redis" not in _servers:
        _servers["redis"] = Server("--appendonly", "yes")
    return _servers["redis"].url


def _mongo() -> str:
    named = os.environ.get("MRQ_TEST_MONGO_URL")
    if named:
        return named
    if "mongo" not in _servers:
        _servers["mongo"] = servers.Server()
    return _servers["mongo"].url


def leave_to_campaign(items: Iterable[pytest.Item]) -> None:
    """Marks the tests of worker, commands and dashboard that do not run on their broker in the usual run.

    A test outside _ON_EACH and _ON_FIRST runs on one of PER_COMMIT. Its name decides which, so that the
    choice does not change with other tests. Of a test of the worker, only the first variant runs.
    """
    variants: dict[tuple[Path, str], list[str]] = {}
    for item in items:
        if not isinstance(item, pytest.Function) or not hasattr(item, "callspec"):
            continue
        broker = next(
            (item.callspec.params[name] for name in _PARAMETERS if name in item.callspec.params), None
        )
        module = item.path.stem
        if broker not in PER_COMMIT:
            continue
        parts = item.callspec.id.split("-")
        parts.remove(str(broker))
        if item.path.parent.name == "worker":
            earlier = variants.setdefault((item.path, item.originalname), [])
            if (variant := "-".join(parts)) not in earlier:
                earlier.append(variant)
            if earlier.index(variant) >= _VARIANTS:
                item.add_marker(pytest.mark.campaign)
                continue
        if module in _ON_EACH or "MRQ_TEST_BROKERS" in os.environ:
            continue
        test = " ".join([module, item.originalname, *parts])
        number = 0 if module in _ON_FIRST else zlib.crc32(test.encode()) % len(PER_COMMIT)
        if broker != PER_COMMIT[number]:
            item.add_marker(pytest.mark.campaign)


def repair(broker: Broker) -> None:
    """What housekeeping does in a minute, now, where numbers may be wrong for so long."""
    keeper = broker._store if isinstance(broker, ComposedBroker) else broker
    if isinstance(keeper, MongoBroker | MongoStore):
        recount.repair(keeper)


def check_counters(name: str, broker: Broker, folder: Path) -> None:
    """What the broker keeps counted is what a recount gives."""
    if name == "sqlite":
        check_tables(folder / "jobs.sqlite3")
    elif name == "redis":
        assert isinstance(broker, RedisBroker)
        check_keys(broker)
    elif name == "redis+mongo":
        assert isinstance(broker, ComposedBroker)
        check_halves(broker)
    else:
        assert isinstance(broker, MongoBroker)
        recount.check_collections(broker)


def stop_servers() -> None:
    """Ends what was started."""
    while _servers:
        _, server = _servers.popitem()
        server.stop()
