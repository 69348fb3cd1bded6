"""`Job.edit`: values are checked as `queue_job` checks them, and refusals say why."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any

import pytest
from msgspec import structs

from mrq_core.client.client import Client
from mrq_core.client.handles import Job, wait_for_status
from mrq_core.contract.codec import JsonValue
from mrq_core.contract.messages import Cancel, ChangeResult, ClaimRequest, Outcome, Settlement, Wanted
from mrq_core.contract.queries import JobFilter
from mrq_core.contract.record import JobRecord, Status
from mrq_core.errors import ChangeRefused, InvalidValue, JobNotFound
from mrq_core.plugins.hookspecs import hookimpl
from mrq_core.plugins.manager import Plugins
from tests.client import tasks


def claim(client: Client, queue: str = "default") -> JobRecord:
    request = ClaimRequest(worker="w1", wanted=(Wanted(name=queue),), limit=1, lease=60.0)
    [record] = client.broker.claim(request).records
    return record


def test_a_waiting_job_is_edited(each_client: Client) -> None:
    job = Job(each_client.queue_job("some.Task", {"a": 1}, delay=100.0))
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(hours=1)
    assert job.edit(params={"b": ["é"]}, priority=3, at=at) is ChangeResult.DONE
    record = job.fetch()
    assert (record.params, record.priority, record.due_at) == ({"b": ["é"]}, 3, at)
    assert job.edit(delay=0.0) is ChangeResult.DONE
    assert claim(each_client).params == {"b": ["é"]}


def test_edited_params_are_found_by_the_search_keys_of_their_task(each_client: Client) -> None:
    job_id = each_client.queue_job(tasks.search, {"user": 1, "page": 1})
    assert Job(job_id).edit(params={"user": 2}) is ChangeResult.DONE
    found = [
        [record.id for record in each_client.broker.find(JobFilter(search_keys={"user": user})).records]
        for user in (1, 2)
    ]
    assert found == [[], [job_id]]


def codec() -> ModuleType:
    """A config file with a codec that stores texts backwards."""

    @hookimpl
    def mrq_encode(value: JsonValue) -> JsonValue:
        return {"reversed": str(value)[::-1]}

    @hookimpl
    def mrq_decode(value: JsonValue) -> JsonValue:
        assert isinstance(value, dict)
        return {"text": str(value["reversed"])[::-1]}

    module = ModuleType("config")
    for function in (mrq_encode, mrq_decode):
        setattr(module, function.__name__, function)
    return module


def test_edited_params_are_encoded(each_client: Client) -> None:
    config = replace(each_client.config, module=codec())
    client = Client(config, each_client.broker, Plugins(config))
    job = Job(client.queue_job("some.Task", {"a": 1}), client=client)
    assert job.edit(params={"a": 22}) is ChangeResult.DONE
    [stored] = each_client.broker.get([job.id])
    assert stored is not None
    assert stored.params == {"reversed": "}22 :'a'{"}
    assert job.fetch().params == {"text": "{'a': 22}"}


def test_only_reads_of_params_and_result_need_a_plugin_that_can_decode_them(each_client: Client) -> None:
    config = replace(each_client.config, module=codec())
    client = Client(config, each_client.broker, Plugins(config))
    job = Job(each_client.queue_job("some.Task", {"a": 1}), client=client)
    for read in (job.fetch, lambda: job.params):
        with pytest.raises(KeyError) as caught:
            read()
        assert caught.value.__notes__ == [
            "raised by mrq_decode of the plugin config file",
            f"the params or the result of job {job.id} cannot be decoded",
        ]
    assert job.edit(priority=1) is ChangeResult.DONE
    assert job.cancel() is ChangeResult.DONE
    assert wait_for_status(job, 0) is Status.CANCEL
    assert client.get_job_result(job.id) == {"status": "cancel", "result": None}
    with pytest.raises(ChangeRefused, match="its status is cancel"):
        job.edit(priority=2)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({}, "params"),
        ({"params": {"a": object()}}, "params.a"),
        ({"params": {"a": "x" * 2_000_000}}, "params"),
        ({"params": [1]}, "params"),
        ({"priority": 5}, "priority"),
        ({"priority": True}, "priority"),
        ({"delay": -1.0}, "delay"),
        ({"delay": 1.0, "at": datetime.now(UTC)}, "at"),
        ({"at": datetime.now()}, "at"),  # noqa: DTZ005
        ({"priority": 1, "seen": "x"}, "seen"),
    ],
    ids=["nothing", "object", "large", "list", "5", "bool", "negative", "both", "naive", "seen"],
)
def test_values_that_a_new_job_cannot_have_are_refused(
    each_client: Client, changes: dict[str, Any], path: str
) -> None:
    job = Job(each_client.queue_job("some.Task", {"a": 1}))
    with pytest.raises(InvalidValue) as caught:
        job.edit(**changes)
    assert caught.value.path == path
    assert job.fetch().edits == 0


def test_a_refusal_says_why(each_client: Client) -> None:
    job = Job(each_client.queue_job("some.Task", {"a": 1}))
    seen = job.fetch()
    job.edit(priority=1)
    with pytest.raises(ChangeRefused, match="it was edited since its record was read"):
        job.edit(priority=2, seen=seen)
    running = claim(each_client)
    with pytest.raises(ChangeRefused, match="only a waiting job can be, and its status is started"):
        job.edit(priority=2)
    retry = Outcome(status=Status.RETRY, delay=60.0)
    each_client.broker.settle([Settlement(id=job.id, token=running.token or "", outcome=retry)])
    with pytest.raises(ChangeRefused, match="it has run since its record was read"):
        job.edit(priority=2, seen=seen)
    each_client.broker.cancel([job.id], Cancel())
    with pytest.raises(ChangeRefused, match=f"its status is cancel; `mrq jobs requeue {job.id}`"):
        job.edit(priority=2)
    assert job.fetch().priority == 1
    with pytest.raises(JobNotFound):
        Job("0" * 24).edit(priority=1)
    with pytest.raises(JobNotFound):
        Job("0" * 24).edit(priority=1, seen=structs.replace(seen, id="0" * 24))
    with pytest.raises(InvalidValue, match=f"seen is the record of job {job.id}"):
        Job("0" * 24).edit(priority=1, seen=seen)
