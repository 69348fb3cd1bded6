"""Search keys, which a task takes from its params."""

from __future__ import annotations

import pytest

from mrq_core import task
from mrq_core.client.client import Client
from mrq_core.config.sources import load_config
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.terms import keys_in
from mrq_core.errors import ConfigError, ValueTooLarge
from mrq_core.testing.memory import MemoryBroker


@task(searchable=("user_id", "order.id"))
def bill(**params: object) -> None:
    """A task whose jobs are found by two of their params."""


@task
def plain(**params: object) -> None:
    """A task without search keys."""


@pytest.fixture
def in_memory() -> Client:
    return Client(load_config(), MemoryBroker())


def test_a_job_has_the_search_keys_of_its_task(in_memory: Client) -> None:
    params: dict[str, object] = {"user_id": 42, "order": {"id": "a-1"}, "other": 1}
    job = in_memory.queue_job(bill, params)
    assert in_memory.fetch(job).search_keys == {"user_id": 42, "order.id": "a-1"}
    [other] = in_memory.queue_jobs(bill, [{"user_id": None, "order": [1]}])
    assert in_memory.fetch(other).search_keys == {}
    assert in_memory.fetch(in_memory.queue_job(plain, params)).search_keys == {}


def test_search_keys_that_are_too_large_are_refused_when_the_job_is_queued(in_memory: Client) -> None:
    in_memory.queue_job(bill, {"user_id": "x" * 60_000})
    with pytest.raises(ValueTooLarge, match="search_keys takes"):
        in_memory.queue_job(bill, {"user_id": "x" * 40_000, "order": {"id": "y" * 40_000}})


def test_tasks_in_the_configuration_name_search_keys_of_code_that_is_elsewhere() -> None:
    made = load_config({"tasks": {"away.Task": {"searchable": ["user_id"]}}})
    client = Client(made, MemoryBroker())
    assert client.fetch(client.queue_job("away.Task", {"user_id": "u"})).search_keys == {"user_id": "u"}


@pytest.mark.parametrize(
    ("params", "name", "found"),
    [
        ({"a.b": 1, "a": {"b": 2}}, "a.b", 1),
        ({"a": {"b.c": 3}}, "a.b.c", 3),
        ({"a.b": {"c": 4}}, "a.b.c", 4),
        ({"a": {"b": {"c": False}}}, "a.b.c", False),
        ({"a": 1}, "a.b", None),
        ({"a": {}}, "a", None),
        ({}, "a", None),
    ],
)
def test_a_name_with_dots_leads_into_dicts(params: JsonObject, name: str, found: object) -> None:
    assert keys_in(params, [name]) == ({} if found is None else {name: found})


@pytest.mark.parametrize(
    "searchable",
    ["user_id", 5, ("a",) * 2 + ("",), tuple("abcdefghi"), ("a\n",), (5,), ("x" * 300,)],
)
def test_names_that_cannot_be_search_keys_are_refused(searchable: object) -> None:
    made = load_config({"tasks": {"away.Task": {"searchable": searchable}}})
    with pytest.raises(ConfigError, match="searchable"):
        Client(made, MemoryBroker()).queue_job("away.Task")
