"""Search keys of jobs that are older than the option `searchable` of their task, on each broker."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest

from mrq_core import hookimpl, task
from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.messages import AddedKeys, Cancel, ChangeResult, ClaimRequest, Wanted
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import Status
from mrq_core.operations.queries import search_keys
from mrq_core.operations.queries.search_keys import FillStep, fill_search_keys
from mrq_core.plugins.manager import Plugins
from mrq_core.plugins.opening import open_broker
from tests import brokers

BILL, AWAY = f"{__name__}.bill", "away.Task"


@task
def bill(**params: object) -> None:
    """A task that names no search keys: the configuration does."""


@hookimpl
def mrq_encode(value: JsonValue) -> JsonValue:
    return {"hidden": value} if isinstance(value, dict) else value


@hookimpl
def mrq_decode(value: JsonValue) -> JsonValue:
    assert isinstance(value, dict)
    if value["hidden"] == {"user_id": "broken"}:
        raise ValueError("the key is gone")
    return value["hidden"]


class Setting:
    """Clients of one broker with different configurations."""

    def __init__(self, address: brokers.Address) -> None:
        self._address = address
        self.client = self._client({}, None)

    def naming(self, *names: str, path: str = BILL, hiding: bool = False) -> Client:
        """A client whose configuration names these params of the task."""
        module = None
        if hiding:
            module = ModuleType("mrq_config")
            vars(module).update(mrq_encode=mrq_encode, mrq_decode=mrq_decode)
        return self._client({path: {"searchable": list(names)}}, module)

    def _client(self, tasks: dict[str, object], module: ModuleType | None) -> Client:
        values = {"broker": self._address.broker, "store": self._address.store, "tasks": tasks}
        config = replace(load_config(values), module=module)
        plugins = Plugins(config)
        broker = self.client.broker if hasattr(self, "client") else open_broker(config, plugins)
        return Client(config, broker, plugins)


@pytest.fixture(params=brokers.PARAMS)
def setting(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Setting]:
    made = Setting(brokers.address_of(request.param, tmp_path))
    made.client.broker.prepare()
    yield made
    made.client.close()


def fill(client: Client) -> list[FillStep]:
    return list(fill_search_keys(client.broker, client.plugins, client.searchable_of))


def examined(client: Client) -> tuple[int, int]:
    """The numbers of jobs that a call examines, and to which it adds keys."""
    steps = fill(client)
    return sum(step.examined for step in steps), sum(step.filled for step in steps)


def found(client: Client, **keys: JsonValue) -> list[str]:
    return sorted(record.id for record in client.broker.find(JobFilter(search_keys=keys)).records)


def test_jobs_that_are_older_than_the_option_are_found_by_their_keys(setting: Setting) -> None:
    params: list[dict[str, object]] = [
        {"user_id": 42, "order": {"id": "a"}},
        {"user_id": "42"},
        {"user_id": [42]},
        {},
    ]
    number, text, *_ = ids = setting.client.queue_jobs(BILL, params)
    away = setting.client.queue_job(AWAY, {"user_id": 42})
    client = setting.naming("user_id", "order.id")
    assert fill(client) == [FillStep(path=BILL, examined=4, filled=2)]
    assert found(client, user_id=42) == [number]
    assert found(client, user_id="42") == [text]
    assert found(client, **{"order.id": "a"}) == [number]
    assert [record.search_keys for record in client.broker.get(ids[2:]) if record is not None] == [{}, {}]
    code_is_elsewhere = setting.naming("user_id", path=AWAY)
    assert examined(code_is_elsewhere) == (1, 1)
    assert found(client, user_id=42) == sorted([number, away])


def test_params_are_decoded_by_the_plugins(setting: Setting) -> None:
    hiding = setting.naming(path=AWAY, hiding=True)
    [good, broken] = hiding.queue_jobs(BILL, [{"user_id": 42}, {"user_id": "broken"}])
    client = setting.naming("user_id", hiding=True)
    [step] = fill(client)
    assert (step.examined, step.filled, step.failed) == (2, 1, 1)
    assert step.error is not None
    assert step.error.startswith(f"{broken}: ")
    assert "the key is gone" in step.error
    assert found(client, user_id=42) == [good]
    [record] = client.broker.get([good])
    assert record is not None
    assert (record.params, record.search_keys) == ({"hidden": {"user_id": 42}}, {"user_id": 42})


def test_a_later_call_continues_where_the_first_call_got_to(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs of the last day are examined again, because the id of a new job may be that old."""
    monkeypatch.setattr(search_keys, "BATCH", 3)
    monkeypatch.setattr(search_keys, "_DAY", -60.0)
    ids = setting.client.queue_jobs(BILL, [{"user_id": number, "n": number} for number in range(10)])
    client = setting.naming("user_id")
    steps = fill_search_keys(client.broker, client.plugins, client.searchable_of)
    assert next(steps).filled == 3
    assert next(steps).filled == 3  # the first step is stored; the process dies in the second one
    del steps
    assert [found(client, user_id=number) for number in (0, 5, 6)] == [[ids[0]], [ids[5]], []]
    assert examined(client) == (7, 4)
    assert [found(client, user_id=number) for number in range(10)] == [[job_id] for job_id in sorted(ids)]
    assert examined(client) == (0, 0)
    monkeypatch.setattr(search_keys, "_DAY", 60.0)
    assert examined(setting.naming("user_id", "n")) == (10, 10)
    assert found(client, user_id=3, n=3) == [ids[3]]
    assert examined(setting.naming("user_id", "n")) == (10, 0)


def test_a_job_that_changes_meanwhile_is_filled_as_it_is_now(
    setting: Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = setting.naming("user_id")
    first, second, third = setting.client.queue_jobs(BILL, [{"user_id": number} for number in range(3)])
    add = client.broker.add_search_keys

    def add_later(added: Sequence[AddedKeys]) -> list[ChangeResult]:
        [record] = client.broker.claim(request).records
        assert record.id == first
        client.broker.remove([second])
        client.broker.cancel([third], Cancel())
        return add(added)

    request = ClaimRequest(worker="w", wanted=(Wanted(name="default"),), limit=1, lease=60.0)
    monkeypatch.setattr(client.broker, "add_search_keys", add_later)
    assert examined(client) == (3, 2)
    assert [found(client, user_id=number) for number in range(3)] == [[first], [], [third]]
    assert [client.fetch(job_id).status for job_id in (first, third)] == [Status.STARTED, Status.CANCEL]
