"""The options of an enqueue: known to mypy, checked at run time, and resolved alike by every call.

mypy checks this file too. It reports an unused `type: ignore` where it no longer finds the wrong option.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, get_type_hints

import pytest

from mrq_core.client import ambient as ambient_module
from mrq_core.client.ambient import queue_job, queue_jobs
from mrq_core.client.client import Client
from mrq_core.config.settings import Config
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord
from mrq_core.errors import InvalidValue
from mrq_core.ids import new_id
from mrq_core.tasks import enqueue_options
from mrq_core.tasks.enqueue_options import EnqueueOptions, SingleEnqueueOptions
from mrq_core.testing import MemoryBroker
from tests.client import tasks

AT = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    made = Client(Config(), broker=MemoryBroker())
    monkeypatch.setattr(ambient_module, "_process_client", made)
    yield made
    made.close()


def facts_of(record: JobRecord) -> tuple[object, ...]:
    return record.path, record.params, record.queue, record.priority, record.due_at


def test_every_call_takes_the_same_options(client: Client) -> None:
    params: dict[str, object] = {"to": "x"}
    ids = [
        client.queue_job(tasks.mail, params, queue="q", priority=-1, at=AT),
        client.queue_job(tasks.mail, params, "q", priority=-1, at=AT),
        queue_job(tasks.mail, params, queue="q", priority=-1, at=AT),
        queue_job(tasks.mail, params, "q", priority=-1, at=AT),
        *client.queue_jobs(tasks.mail, [params], queue="q", priority=-1, at=AT),
        *queue_jobs(tasks.mail, [params], queue="q", batch_size=1, priority=-1, at=AT),
        *queue_jobs(tasks.mail, [params], "q", 1, priority=-1, at=AT),
    ]
    records = [client.fetch(job_id) for job_id in ids]
    assert [facts_of(record) for record in records] == [
        ("tests.client.tasks.mail", params, "q", -1, AT)
    ] * len(ids)


@pytest.mark.parametrize("queue", [queue_job, queue_jobs])
def test_none_means_the_default_of_the_task(client: Client, queue: Callable[..., Any]) -> None:
    params = {"to": "x"}
    answer = queue(
        tasks.mail, params if queue is queue_job else [params], queue=None, priority=None, delay=None, at=None
    )
    record = client.fetch(answer if isinstance(answer, str) else answer[0])
    assert (record.queue, record.priority) == ("mail", 2)


def test_an_unknown_option_is_refused_with_the_nearest_name(client: Client) -> None:
    with pytest.raises(
        TypeError, match=r"queue_job\(\) has no option 'prioritty'; did you mean 'priority'\?"
    ):
        queue_job("a.B", {}, prioritty=3)  # type: ignore[call-arg]
    with pytest.raises(
        TypeError, match=r"queue_jobs\(\) has no option 'batchsize'; did you mean 'batch_size'"
    ):
        queue_jobs("a.B", [{}], batchsize=3)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="has no option 'zone': expected at, delay, idempotency_key, job_id"):
        client.queue_job("a.B", {}, zone="UTC")  # type: ignore[call-arg]
    assert client.broker.find(JobFilter()).records == ()


def test_an_option_of_one_job_is_refused_for_many(client: Client) -> None:
    with pytest.raises(TypeError, match=r"'job_id': it is an option of queue_job\(\)"):
        client.queue_jobs("a.B", [{}], job_id=new_id())  # type: ignore[call-arg]
    assert client.broker.find(JobFilter()).records == ()


def test_a_queue_that_is_given_twice_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="multiple values for argument 'queue'"):
        queue_job("a.B", {}, "one", queue="two")  # type: ignore[misc]


def test_an_option_of_another_type_is_refused(client: Client) -> None:
    with pytest.raises(InvalidValue, match="priority is 'high': expected -4 to 4"):
        queue_job("a.B", priority="high")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="delay is '5'"):
        queue_jobs("a.B", [{}], delay="5")  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="job_id is 17: expected 24 hex digits"):
        client.queue_job("a.B", job_id=17)  # type: ignore[arg-type]
    with pytest.raises(InvalidValue, match="at is 'tomorrow': expected a datetime"):
        client.queue_jobs("a.B", [{}], at="tomorrow")  # type: ignore[arg-type]
    assert client.broker.find(JobFilter()).records == ()


@pytest.mark.parametrize("options", [EnqueueOptions, SingleEnqueueOptions])
def test_every_option_is_documented_and_may_be_none(options: type) -> None:
    own = options.__annotations__.keys() - (
        EnqueueOptions.__annotations__.keys() if options is SingleEnqueueOptions else set()
    )
    hints = get_type_hints(options)
    for name in own:
        assert f"- `{name}`: " in (options.__doc__ or ""), name
        assert type(None) in hints[name].__args__, name


@pytest.mark.parametrize("call", ["queue_job", "queue_jobs"])
def test_hints_name_the_arguments_of_the_call(call: str) -> None:
    for function in (getattr(Client, call), getattr(ambient_module, call)):
        names = [n for n in inspect.signature(function).parameters if n not in ("self", "options")]
        assert tuple(names) == enqueue_options._ARGUMENTS_OF_CALL[call]
