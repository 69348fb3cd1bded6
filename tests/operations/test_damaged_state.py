"""A value of shared state that was changed by hand harms only what it belongs to, on each broker."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mrq_broker_mongo.broker import MongoBroker
from mrq_broker_mongo.store import MongoStore
from mrq_broker_redis.broker import RedisBroker
from mrq_core.client.client import Client
from mrq_core.composed import ComposedBroker
from mrq_core.config.settings import Config
from mrq_core.contract.broker import Broker
from mrq_core.contract.messages import Limit
from mrq_core.contract.shared_state import StateItem, Versions
from mrq_core.errors import InvalidValue
from mrq_core.operations import limits, schedule_sync, schedules, workers
from mrq_core.operations.checking.state_values import delete_unreadable, state_findings
from mrq_core.operations.requests import send_request
from mrq_core.scheduler.definitions import definitions_from
from tests import brokers

Change = Callable[[Any, str, str], object]


def _sqlite(assignment: str) -> Change:
    def change(path: Path, namespace: str, name: str) -> None:
        where = "WHERE namespace = ? AND name = ?"
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute(f"UPDATE state SET {assignment} {where}", (namespace, name)).rowcount
            connection.commit()

    return change


def _redis(value: bytes) -> Change:
    def change(broker: RedisBroker, namespace: str, name: str) -> None:
        broker._connection.execute("HSET", broker._connection.key(f"state:{namespace}"), name, value)

    return change


def _mongo(update: dict[str, Any]) -> Change:
    def change(broker: MongoBroker | MongoStore, namespace: str, name: str) -> None:
        which = {"_id": {"space": namespace, "name": name}}
        found = broker._connection.run("state", lambda state: state.update_one(which, update))
        assert found.modified_count == 1

    return change


_MONGO = {
    "no JSON": _mongo({"$set": {"value": "{bad"}}),
    "a number": _mongo({"$set": {"value": 5}}),
    "nothing": _mongo({"$unset": {"value": "", "version": ""}}),
    "a version that is a text": _mongo({"$set": {"value": "{bad", "version": "x"}}),
    "a version that is a fraction": _mongo({"$set": {"value": "{bad", "version": 7.5}}),
    "a time that is a text": _mongo({"$set": {"value": "{bad", "expires_at": "soon"}}),
    "a count that is a text": _mongo({"$set": {"count": "x"}, "$unset": {"value": ""}}),
}
CHANGES: dict[str, dict[str, Change]] = {
    "sqlite": {
        "no JSON": _sqlite("value = '{bad'"),
        "garbage": _sqlite("value = x'c1ff00'"),
        "a number": _sqlite("value = 5"),
        "a version that is a text": _sqlite("value = '{bad', version = 'x'"),
        "a time that is a text": _sqlite("value = '{bad', expires_ms = 'soon'"),
        "a time without end": _sqlite("value = '{bad', expires_ms = 9223372036854775807"),
    },
    "redis": {
        "empty": _redis(b""),
        "garbage": _redis(b"\xc1\xff\x00"),
        "no JSON": _redis(b"7  {bad"),
        "no version": _redis(b"x  {}"),
        "a time that is a text": _redis(b"7 soon {}"),
        "a time without end": _redis(b"7 999999999999999999999 {}"),
    },
    "mongo": _MONGO,
    "redis+mongo": _MONGO,
}
CASES = [
    pytest.param(
        (name, kind),
        id=f"{name}-{kind}".replace(" ", "_"),
        marks=() if name in brokers.PER_COMMIT else pytest.mark.campaign,
    )
    for name in brokers.NAMES
    for kind in CHANGES[name]
]


class Scene(NamedTuple):
    """A broker, and a change of its values by hand."""

    broker: Broker
    target: Any
    change: Change

    def damage(self, namespace: str, name: str) -> None:
        self.change(self.target, namespace, name)

    def unreadable(self) -> str:
        return "; ".join(finding.message for finding in state_findings(self.broker))


@pytest.fixture(params=CASES)
def scene(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Scene]:
    name, kind = request.param
    address = brokers.address_of(name, tmp_path)
    client = Client(Config(broker=address.broker, store=address.store))
    broker = client.broker
    broker.prepare()
    where = broker._store if isinstance(broker, ComposedBroker) else broker
    target = tmp_path / "jobs.sqlite3" if name == "sqlite" else where
    yield Scene(broker, target, CHANGES[name][kind])
    client.close()


@pytest.fixture
def one_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker, for values that each broker can store."""
    client = Client(Config(broker=f"sqlite:///{tmp_path}/jobs.sqlite3"))
    client.broker.prepare()
    yield client.broker
    client.close()


def test_a_damaged_value_can_be_read_written_and_deleted(scene: Scene) -> None:
    state = scene.broker.state
    for name in "abcd":
        state.put("some", name, {"n": 1})
        scene.damage("some", name)
    assert [(item.name, item.value) for item in state.list("some")] == [(name, None) for name in "abcd"]
    item = state.get("some", "a")
    assert item is not None
    written = state.compare_and_set("some", "a", {"n": 2}, version=item.version)
    assert written is not None
    assert state.compare_and_set("some", "a", {"n": 3}, version=item.version) is None
    assert state.put("some", "b", {"n": 2}).value == {"n": 2}
    assert state.delete("some", ["c"]) == [True]
    values = {item.name: item.value for item in state.list("some")}
    assert values == {"a": {"n": 2}, "b": {"n": 2}, "d": None}


def test_a_damaged_pause_holds_until_it_is_resumed(scene: Scene) -> None:
    broker = scene.broker
    broker.pause(["a", "b"])
    broker.pause_tasks(["some.Task"])
    scene.damage("pauses", "a")
    scene.damage("paused_tasks", "some.Task")
    found = broker.poll("w", Versions()).rules
    assert found is not None
    assert found.paused_queues == {"a", "b"}
    assert found.paused_tasks == {"some.Task"}
    assert scene.unreadable() == (
        "values of pauses cannot be read: a; values of paused_tasks cannot be read: some.Task"
    )
    broker.resume(["a"])
    broker.resume_tasks(["some.Task"])
    assert broker.paused() == {"b"}
    assert scene.unreadable() == ""


def test_a_damaged_limit_leaves_the_others(scene: Scene) -> None:
    broker = scene.broker
    limits.set_limit(broker, "a", concurrency=1)
    limits.set_limit(broker, "b", concurrency=2)
    scene.damage("limits", "a")
    assert [rule.name for rule in limits.list_limits(broker)] == ["b"]
    found = broker.poll("w", Versions()).rules
    assert found is not None
    assert set(found.limits) == {"b"}
    assert scene.unreadable() == "values of limits cannot be read: a"
    limits.publish_limits(broker, {"a": Limit(concurrency=4)})
    assert [rule.limit.concurrency for rule in limits.list_limits(broker)] == [4, 2]
    limits.set_limit(broker, "a", concurrency=3)
    assert [rule.name for rule in limits.list_limits(broker)] == ["a", "b"]


def test_a_damaged_schedule_is_restored_from_its_config(scene: Scene) -> None:
    broker = scene.broker
    definitions = definitions_from({"name": name, "path": f"some.{name}", "interval": 60} for name in "ab")
    schedule_sync.sync_schedules(broker, definitions)
    scene.damage("schedules", "a")
    assert [stored.name for stored in schedules.list_schedules(broker)] == ["b"]
    assert scene.unreadable() == "values of schedules cannot be read: a"
    found, restored = schedule_sync.load_schedules(broker, definitions)
    assert ([stored.name for stored in found], restored) == (["a", "b"], ["a"])
    assert scene.unreadable() == ""


@pytest.mark.parametrize(
    "change",
    [
        {"name": "b"}, {"interval": -1}, {"weekday": 9, "interval": None, "dailytime": "10:00"},
        {"end": 10**18}, {"path": 5},
    ],
)  # fmt: skip
def test_a_definition_that_no_schedule_has_is_as_damaged(one_broker: Broker, change: dict[str, Any]) -> None:
    redefine(one_broker, {"name": "a", "path": "some.Task", "interval": 60}, change)
    assert schedules.list_schedules(one_broker) == []
    assert [one.subject for one in state_findings(one_broker)] == ["shared state"]


def test_a_trigger_that_cannot_be_made_is_named(one_broker: Broker) -> None:
    redefine(one_broker, {"name": "a", "path": "some.Task", "dailytime": "10:00"}, {"dailytime": "soon"})
    [stored] = schedules.list_schedules(one_broker)
    with pytest.raises(InvalidValue, match="the definition of the schedule 'a' cannot be used"):
        schedules.upcoming(stored, 3)


def redefine(broker: Broker, entry: dict[str, Any], change: dict[str, Any]) -> None:
    """Adds a schedule, and changes its stored definition by hand."""
    schedule_sync.sync_schedules(broker, definitions_from([entry]))
    item = broker.state.get("schedules", entry["name"])
    assert item is not None
    value: Any = item.value
    broker.state.put("schedules", item.name, {**value, "definition": {**value["definition"], **change}})


@pytest.mark.parametrize("moment", [10**18, -1, "x", None, True, 1.5])
def test_times_that_no_clock_has_end_no_poll(one_broker: Broker, moment: Any) -> None:
    one_broker.state.put("pauses", "q", {"since": moment, "until": moment})
    one_broker.state.put("requests", "w", [{"id": "x", "kind": "stack", "args": {}, "expires": moment}])
    found = one_broker.poll("w", Versions())
    assert found.requests == ()
    assert set(found.paused or ()) == {"q"}
    request = send_request(one_broker, "w", "stack")
    assert [one.id for one in one_broker.poll("w", Versions()).requests] == [request.id]


def test_damaged_reports_and_requests_stop_no_request(scene: Scene) -> None:
    broker = scene.broker
    for name in ("w", "x"):
        broker.state.put(workers.WORKERS_NAMESPACE, name, {})
    send_request(broker, "w", "stack")
    scene.damage(workers.WORKERS_NAMESPACE, "x")
    scene.damage("requests", "w")
    assert workers.find_worker(broker, "x") is None
    assert broker.poll("w", Versions()).requests == ()
    request = send_request(broker, "w", "stack")
    assert [one.id for one in broker.poll("w", Versions()).requests] == [request.id]
    assert delete_unreadable(broker) == 1
    assert [item.name for item in broker.state.list(workers.WORKERS_NAMESPACE)] == ["w"]


def test_a_value_that_can_be_read_is_no_finding(scene: Scene) -> None:
    scene.broker.state.put("answers", "x", "")
    scene.broker.state.put("schedule_changes", "number", 0)
    assert (scene.unreadable(), delete_unreadable(scene.broker)) == ("", 0)
    assert isinstance(scene.broker.state.get("answers", "x"), StateItem)
