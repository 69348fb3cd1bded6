"""The limits of a task are published before its first job is queued, on each broker."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from mrq_core import Limit, queue_job, queue_jobs, task
from mrq_core.client.ambient import configure
from mrq_core.client.client import Client
from mrq_core.client.schedules import add_schedule
from mrq_core.contract.services import SharedState
from mrq_core.errors import BrokerError, BrokerUnavailable, CallRefused, InvalidParams
from mrq_core.operations.limits import list_limits, publish_limits, remove_limits, set_limit


@task(limits={"api": Limit(concurrency=2), "customer:{customer}": Limit(rate=10, per=60)})
def limited(customer: str = "") -> None: ...


@task
def unlimited() -> None: ...


PATH = f"{__name__}.limited"
RULES = [("api", Limit(concurrency=2), "task"), ("customer", Limit(rate=10, per=60), "task")]


@pytest.fixture(autouse=True)
def _is_prepared(each_client: Client) -> None:
    each_client.broker.prepare()


def rules_of(client: Client) -> list[tuple[str, Limit, str]]:
    return [(rule.name, rule.limit, rule.source) for rule in list_limits(client.broker)]


class Calls:
    """Records the calls of shared state for limits."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, client: Client, *, error: BrokerError | None = None
    ) -> None:
        self.made: list[str] = []
        kind: type[SharedState] = type(client.broker.state)
        for name in ("get", "list", "put", "compare_and_set"):
            monkeypatch.setattr(kind, name, self._recorded(name, getattr(kind, name), error))

    def _recorded(self, name: str, method: Any, error: BrokerError | None) -> Any:
        def recorded(state: SharedState, namespace: str, *args: Any, **more: Any) -> Any:
            if namespace == "limits":
                self.made.append(name)
                if error is not None:
                    raise error
            return method(state, namespace, *args, **more)

        return recorded


@pytest.mark.parametrize("way", ["function", "path", "many", "schedule"])
def test_the_first_job_of_a_task_publishes_its_limits(each_client: Client, way: str) -> None:
    if way == "many":
        queue_jobs(limited, [{"customer": "a"}, {"customer": "b"}])
    elif way == "schedule":
        add_schedule(path=PATH, interval=60, name="s").run()
    else:
        queue_job(limited if way == "function" else PATH, {"customer": "a"})
    assert rules_of(each_client) == RULES


def test_limits_in_tasks_are_published_with_the_first_job(each_client: Client) -> None:
    limits = {"mail": {"rate": 1, "per": 600}}
    settings = {"broker": each_client.config.broker, "store": each_client.config.store}
    client = configure(**settings, tasks={"elsewhere.mail": {"limits": limits, "queue": "q"}})
    try:
        client.queue_job("elsewhere.mail")
        assert rules_of(client) == [("mail", Limit(rate=1, per=600), "task")]
    finally:
        client.close()


def test_limits_that_are_stored_stay(each_client: Client) -> None:
    set_limit(each_client.broker, "api", concurrency=7)
    publish_limits(each_client.broker, {"customer": Limit(rate=3)})
    queue_job(limited)
    assert rules_of(each_client) == [
        ("api", Limit(concurrency=7), "person"),
        ("customer", Limit(rate=3), "task"),
    ]


def test_later_jobs_make_no_further_call(each_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch, each_client)
    queue_job(unlimited)
    assert calls.made == []
    queue_job(limited)
    first = len(calls.made)
    assert first > 0
    remove_limits(each_client.broker, ["api"])
    queue_job(limited)
    queue_jobs(limited, [{}, {}])
    assert len(calls.made) == first


def test_a_refused_job_publishes_nothing(each_client: Client) -> None:
    with pytest.raises(InvalidParams):
        queue_job(limited, {"custmer": "a"})
    assert rules_of(each_client) == []


def test_a_broker_that_refuses_limits_takes_the_job(
    each_client: Client, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    calls = Calls(monkeypatch, each_client, error=CallRefused("no right to write"))
    with caplog.at_level(logging.WARNING):
        ids = [queue_job(limited), queue_job(limited)]
    assert [each_client.fetch(job_id).limit_keys for job_id in ids] == [("api", "customer:null")] * 2
    assert [record.getMessage() for record in caplog.records] == [
        f"limits.not_published task={PATH} error=no right to write"
    ]
    assert calls.made == ["get"]


def test_a_broker_that_is_away_is_asked_again_before_the_next_job(
    each_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        Calls(patch, each_client, error=BrokerUnavailable("it is away"))
        with pytest.raises(BrokerUnavailable, match="it is away"):
            queue_job(limited)
    queue_job(limited)
    assert rules_of(each_client) == RULES
