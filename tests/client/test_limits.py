"""The limit keys that a job gets from the option `limits` of its task."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from mrq_core import Limit, queue_jobs, task
from mrq_core.client.client import Client
from mrq_core.contract.codec import JsonObject
from mrq_core.contract.messages import ClaimRequest, Wanted
from mrq_core.errors import ConfigError
from mrq_core.operations.explaining.explaining import explain_job
from mrq_core.operations.limits import limit_uses, list_limits
from mrq_core.operations.views import job_details
from mrq_core.tasks.limits import limit_keys_in, rules_in

LIMIT = Limit(concurrency=1)


@pytest.mark.parametrize(
    ("key", "params", "expected"),
    [
        ("api", {}, "api"),
        ("api:{user}", {"user": "anna"}, "api:anna"),
        ("api:{user}", {"user": 7}, "api:7"),
        ("api:{user}", {"user": None}, "api:null"),
        ("api:{user}", {}, "api:null"),
        ("api:{user}", {"user": [1]}, "api:null"),
        ("api:{user}", {"user": True}, "api:true"),
        ("api:{user.id}-{place}", {"user": {"id": 7}, "place": "größe {x}"}, "api:7-größe {x}"),
    ],
)
def test_a_limit_key_has_the_values_of_params(key: str, params: JsonObject, expected: str) -> None:
    assert limit_keys_in(params, [key]) == (expected,)


@pytest.mark.parametrize("value", ["", "a\nb", "x" * 101, "\0"])
def test_a_value_that_no_key_can_have_counts_by_its_digest(value: str) -> None:
    [key] = limit_keys_in({"user": value}, ["api:{user}"])
    [other] = limit_keys_in({"user": value + "2"}, ["api:{user}"])
    assert key.isprintable()
    assert len(key) < 120
    assert key != other
    assert limit_keys_in({"user": value}, ["api:{user}"]) == (key,)


@pytest.mark.parametrize(
    ("name", "params", "is_shown"),
    [
        ("token", {"token": "GEHEIM1"}, False),
        ("auth.apiKey", {"auth": {"apiKey": "GEHEIM1"}}, False),
        ("secrets.shop", {"secrets": {"shop": "GEHEIM1"}}, False),
        ("max_tokens", {"max_tokens": "GEHEIM1"}, True),
    ],
)
def test_a_value_whose_name_looks_secret_counts_by_its_digest(
    name: str, params: JsonObject, is_shown: bool
) -> None:
    [key] = limit_keys_in(params, [f"api:x-{{{name}}}"])
    assert key.startswith("api:x-")
    assert ("GEHEIM1" in key) is is_shown
    assert limit_keys_in({}, [f"api:x-{{{name}}}"]) == ("api:x-null",)


@task(limits={"shop:{token}": LIMIT})
def call_shop(token: str) -> None: ...


def test_a_secret_that_limits_a_job_is_shown_nowhere(each_client: Client) -> None:
    broker = each_client.broker
    broker.prepare()
    first, second, other = queue_jobs(call_shop, [{"token": f"GEHEIM{number}"} for number in (1, 1, 2)])
    wanted = (Wanted(name="default"),)
    taken = broker.claim(
        ClaimRequest(worker="w", wanted=wanted, limit=9, lease=60.0, limits=broker.rules().limits)
    )
    assert {record.id for record in taken.records} == {first, other}
    records = [record for record in broker.get([first, second, other]) if record is not None]
    uses, _ = limit_uses(broker, {rule.name: rule for rule in list_limits(broker)})
    assert sorted(one.use.running for one in uses) == [1, 1]
    shown = [job_details(record, now=broker.now()) for record in records]
    assert "GEHEIM" not in f"{shown} {uses} {explain_job(broker, second)}"


def test_keys_with_values_belong_to_one_rule() -> None:
    assert rules_in({"api:{user}": LIMIT, "plain": LIMIT}) == {"api": LIMIT, "plain": LIMIT}


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        ({"api": Limit()}, "no concurrency and no rate"),
        ({"task": LIMIT}, "and not 'task'"),
        ({"task:{user}": LIMIT}, "and not 'task'"),
        ({"schedules": LIMIT}, "and not 'task' or 'schedules'"),
        ({"schedules:{user}": LIMIT}, "and not 'task' or 'schedules'"),
        ({"": LIMIT}, "expected 1 to 100 printable characters"),
        ({"a\n": LIMIT}, "expected 1 to 100 printable characters"),
        ({"api": Limit(concurrency=-1)}, "expected 0 to"),
        ({"api": Limit(rate=-1.0)}, "expected a number above 0"),
        ({"api": Limit(rate=1.0, per=0.0)}, "counts its rate per 0.0 s"),
        ({"api": Limit(rate=1e-300)}, "starts a job each 1e+300 s: expected at most 100,000,000 s"),
        ({"api": Limit(rate=5e-324, per=1e7)}, "starts a job each inf s: expected at most 100,000,000 s"),
        ({"api": Limit(rate=0.09, per=1e7)}, "a concurrency of 0 lets none start"),
        ({"api": Limit(concurrency=1, per=5)}, "has per 5 s and no rate"),
        ({"api:{user": LIMIT}, "has a brace too many"),
        ({"api:{{user}}": LIMIT}, "has a brace too many"),
        ({"api": 5}, "limits is"),
        (["api"], "limits is"),
    ],
)
def test_limits_that_make_no_sense_are_refused(limits: Mapping[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        task(limits=limits)
    assert text in str(caught.value)


def test_limits_may_be_plain_values_as_in_tasks() -> None:
    @task(limits={"api": {"rate": 10, "per": 60}})
    def limited() -> None: ...

    assert limited.task_class.limits == {"api": Limit(rate=10.0, per=60.0)}


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (
            {"limits": {"api:{usr}": LIMIT}},
            "limits names the param 'usr', and {0} has no argument 'usr'; did",
        ),
        ({"limits": {"api:{user!r}": LIMIT}}, "has no argument 'user!r'; did you mean 'user'?"),
        ({"limits": {"api:{user}:{0}": LIMIT}}, "has no argument '0': it takes user"),
        (
            {"searchable": ("user", "ordr.id")},
            "the param 'ordr.id', and {0} has no argument 'ordr': it",
        ),
    ],
)
def test_a_param_that_the_function_does_not_take_is_refused(options: dict[str, Any], text: str) -> None:
    def limited(user: str) -> None: ...

    def any_params(**params: str) -> None: ...

    with pytest.raises(ConfigError) as caught:
        task(**options)(limited)
    assert text.replace("{0}", limited.__qualname__) in str(caught.value)
    task(**options)(any_params)


def test_a_param_within_an_argument_may_be_named() -> None:
    @task(limits={"api:{user.id}": LIMIT}, searchable=("user.name",))
    def limited(user: dict[str, str]) -> None: ...

    assert limited.task_class.searchable == ("user.name",)
