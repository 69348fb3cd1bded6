"""Values whose own code raises get one clear error, or work: they are neither hashed nor compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from mrq_core.client.ambient import get_job_result, queue_job, queue_jobs
from mrq_core.client.client import Client
from mrq_core.client.handles import Job, Queue, pause_task, resume_task
from mrq_core.client.schedules import Schedule, add_schedule
from mrq_core.config.settings import Config
from mrq_core.config.sources import load_config
from mrq_core.contract.queries import JobFilter
from mrq_core.errors import ConfigError, InvalidValue
from mrq_core.ids import new_id
from mrq_core.tasks.options import options_from
from mrq_core.tasks.task import path_of, task
from tests.client import hostile

SETTINGS = (
    *("broker", "queues", "log_level", "greenlets", "max_latency", "quiet", "tasks", "scheduler_tasks"),
    *("solo_processes", "report_file", "plugins"),
)


@pytest.mark.parametrize("name", hostile.TASKS)
def test_a_task_works_whose_hash_or_comparison_raises(each_client: Client, name: str) -> None:
    odd = hostile.TASKS[name]
    ids = [queue_job(odd), *queue_jobs(odd, [{}, {}]), queue_job(odd)]
    records = each_client.broker.get(ids)
    assert [(r.path, r.queue) for r in records if r is not None] == [(path_of(odd), "odd")] * 4
    pause_task(odd)
    resume_task(odd)


@pytest.mark.parametrize("name", ["FailsToHash", "Nameless", "function"])
def test_a_path_leads_to_such_a_task(each_client: Client, name: str) -> None:
    assert Job(queue_job(f"tests.client.hostile.{name}")).fetch().queue == "odd"


def test_two_tasks_whose_hashes_are_equal_keep_their_own_options(each_client: Client) -> None:
    class Same(type):
        def __eq__(cls, other: object) -> bool:
            return True

        def __hash__(cls) -> int:
            return hash("tests.client.tasks.Crawl")

    queue_job("tests.client.tasks.Crawl")
    with pytest.raises(InvalidValue, match="task is"):
        queue_job(Same("Odd", (), {}))  # type: ignore[arg-type]


CALLS: dict[str, Callable[[Any], object]] = {
    "task": queue_job,
    "task of many": lambda odd: queue_jobs(odd, [{}]),
    "queue": lambda odd: queue_job("a.B", {}, odd),
    "params": lambda odd: queue_job("a.B", odd),
    "a param": lambda odd: queue_job("a.B", {"x": odd}),
    "params_list": lambda odd: queue_jobs("a.B", odd),
    "an item": lambda odd: queue_jobs("a.B", [odd]),
    "batch_size": lambda odd: queue_jobs("a.B", [{}], batch_size=odd),
    **{
        name: (lambda odd, name=name: queue_job("a.B", **{name: odd}))  # type: ignore[misc]
        for name in ("priority", "delay", "at", "idempotency_key", "job_id")
    },
    "Job": Job,
    "get_job_result": get_job_result,
    "Queue": Queue,
    "client": lambda odd: Job(new_id(), client=odd),
    "wait": lambda odd: Job(new_id()).wait(odd),
    "pause_task": pause_task,
    "Schedule": Schedule,
    **{
        f"{name} of a schedule": (
            lambda odd, name=name: add_schedule(**{"path": "a.B", "name": "n", "interval": 5, name: odd})  # type: ignore[misc]
        )
        for name in ("path", "name", "interval", "params", "queue", "timezone", "overlap")
    },
    **{name: (lambda odd, name=name: load_config({name: odd})) for name in SETTINGS},  # type: ignore[misc]
    "options of a task": lambda odd: load_config({"tasks": {"a.B": odd}}),
    "a plugin": lambda odd: load_config({"plugins": [odd]}),
    "the config file": lambda odd: load_config(file=odd),
    **{
        name: (lambda odd, name=name: options_from({name: odd}, where="@task"))  # type: ignore[misc]
        for name in ("queue", "timeout", "memory", "every", "schedule", "limits", "searchable")
    },
    "Client": Client,
}


@pytest.mark.parametrize("name", CALLS)
def test_other_values_are_refused_clearly(each_client: Client, name: str) -> None:
    for odd in hostile.VALUES:
        with pytest.raises((InvalidValue, ConfigError)) as caught:
            CALLS[name](odd)
        text = str(caught.value)
        assert text.isprintable()
        assert len(text) < 700
    assert each_client.broker.find(JobFilter()).records == ()


def test_no_such_value_becomes_a_task() -> None:
    for odd in hostile.VALUES:
        with pytest.raises(TypeError, match=r"@task was given .*: expected a function that was made by def"):
            task(odd)


def test_texts_are_read_whatever_their_methods_do(each_client: Client) -> None:
    text = hostile.Text
    ids = [
        queue_job(text("tests.client.tasks.Crawl")),
        queue_job("a.B", {"x": text("y")}, text("crawl"), idempotency_key=text("k"), job_id=text(new_id())),
    ]
    assert Queue(text("crawl")).size() == 2
    assert [Job(text(one)).fetch().queue for one in ids] == ["crawl", "crawl"]
    options = options_from({"queue": text("q"), "searchable": (text("user"),)}, where="@task")
    assert [type(one) for one in (options.queue, *(options.searchable or ()))] == [str, str]
    assert load_config({"queues": [text("a"), text("b")]}).queues == ("a", "b")


def test_the_values_of_a_configuration_are_shown_whatever_their_code_does() -> None:
    values = {f"VALUE_{n}": odd for n, odd in enumerate([*hostile.VALUES, hostile.Text("x")])}
    redacted = Config(user=values).redacted()
    assert values.keys() <= redacted.keys()
    assert redacted["VALUE_2"] == "<a OfUnhashable that cannot be read>"


def test_an_odd_function_is_no_equal_of_a_job() -> None:
    assert Job(new_id()) != hostile.Liar()
