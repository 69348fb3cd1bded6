"""Forms made from the published arguments of a task, and the params that they give."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Any, Literal

import pytest

from mrq_core.config.settings import Config
from mrq_core.errors import InvalidValue
from mrq_core.operations.task_forms import FieldKind, check_params, fields_of, params_from_texts
from mrq_core.tasks.describing import TaskDescription, describe
from mrq_core.tasks.loading import resolve_options
from mrq_core.tasks.task import Task, task


class Color(Enum):
    RED = "red"
    BLUE = "blue"


@task
def charge(
    user_id: int,
    amount: float | None = None,
    note: str = "none",
    is_test: bool = True,
    mode: Literal["fast", "slow", 3] = "slow",
    tags: list[str] = [],  # noqa: B006
    at: datetime | None = None,
    either: int | str = 1,
    color: Color = Color.RED,
    what: Any = None,
) -> None:
    pass


@task
def open_ended(user_id: int, **more: Any) -> None:
    pass


class Whole(Task):
    def run(self, params: dict[str, Any]) -> None:
        pass


def described(one: Any) -> TaskDescription:
    task_class = one.task_class if not isinstance(one, type) else one
    return describe(resolve_options("a.b", task_class, Config()), evaluates=True)


def test_each_argument_has_a_field() -> None:
    fields = {field.name: field for field in fields_of(described(charge))}
    assert {name: field.kind for name, field in fields.items()} == {
        "user_id": FieldKind.NUMBER,
        "amount": FieldKind.NUMBER,
        "note": FieldKind.TEXT,
        "is_test": FieldKind.SWITCH,
        "mode": FieldKind.CHOICE,
        "tags": FieldKind.JSON,
        "at": FieldKind.TEXT,
        "either": FieldKind.ANY,
        "color": FieldKind.CHOICE,
        "what": FieldKind.ANY,
    }
    assert fields["mode"].choices == ("3", '"fast"', '"slow"')
    assert fields["color"].choices == ('"blue"', '"red"')
    assert (fields["user_id"].required, fields["user_id"].default) == (True, None)
    assert (fields["note"].default, fields["color"].default) == ('"none"', "Color.RED")
    assert fields_of(described(Whole)) == ()


def test_texts_become_params() -> None:
    texts = {
        "user_id": "9223372036854775807",
        "amount": "null",
        "note": "17",
        "is_test": "false",
        "mode": '"fast"',
        "tags": '["a", "b"]',
        "at": "",
        "either": "x y",
        "color": '"red"',
        "what": '{"a": [1]}',
    }
    params = params_from_texts(described(charge), texts)
    assert params == {
        "user_id": 2**63 - 1,
        "amount": None,
        "note": "17",
        "is_test": False,
        "mode": "fast",
        "tags": ["a", "b"],
        "either": "x y",
        "color": "red",
        "what": {"a": [1]},
    }
    check_params(described(charge), params)
    assert params_from_texts(None, {"x": "1", "y": "<b>"}) == {"x": 1, "y": "<b>"}


@pytest.mark.parametrize(
    ("texts", "name", "text"),
    [
        ({"user_id": "seven"}, "user_id", "expected a number"),
        ({"is_test": "yes"}, "is_test", "expected true or false"),
        ({"tags": "a, b"}, "tags", "expected JSON"),
        ({"tags": "[" * 5000}, "tags", "is nested more than 64 levels deep"),
        ({"tags": '[{"a": 1, "a": 2}]'}, "tags", "argument.tags has the key 'a' twice"),
        ({"what": '{"a": 1, "a": 2}'}, "what", "argument.what has the key 'a' twice"),
        ({"what": '"\\ud800"'}, "what", "has a lone surrogate"),
    ],
)
def test_a_text_that_is_no_value_is_refused(texts: dict[str, str], name: str, text: str) -> None:
    with pytest.raises(InvalidValue, match=text) as caught:
        params_from_texts(described(charge), texts)
    assert caught.value.path == f"argument.{name}"


@pytest.mark.parametrize(
    ("params", "name", "text"),
    [
        ({}, "user_id", "is missing: expected int"),
        ({"user_id": "7"}, "user_id", "expected int"),
        ({"user_id": True}, "user_id", "expected int"),
        ({"user_id": 7.5}, "user_id", "expected int"),
        ({"user_id": 7, "usr": 1}, "usr", "no argument 'usr'"),
        ({"user_id": 7, "amount": "1"}, "amount", r"expected float \| None"),
        ({"user_id": 7, "note": 1}, "note", "expected str"),
        ({"user_id": 7, "is_test": 1}, "is_test", "expected bool"),
        ({"user_id": 7, "mode": "medium"}, "mode", "expected"),
        ({"user_id": 7, "mode": 3.0}, "mode", "expected"),
        ({"user_id": 7, "tags": {}}, "tags", "expected list"),
        ({"user_id": 7, "either": None}, "either", "expected"),
        ({"user_id": 7, "color": "green"}, "color", "expected Color"),
    ],
)
def test_params_that_do_not_fit_are_refused(params: dict[str, Any], name: str, text: str) -> None:
    with pytest.raises(InvalidValue, match=text) as caught:
        check_params(described(charge), params)
    assert caught.value.path == f"params.{name}"


def test_a_secret_that_does_not_fit_is_not_shown() -> None:
    @task
    def login(token: int, user: dict[str, int]) -> None: ...

    with pytest.raises(InvalidValue, match=r"^token is '\*\*\*': expected int"):
        check_params(described(login), {"token": "GEHEIM", "user": {}})
    with pytest.raises(InvalidValue, match=r"^user is \[\{'pwd': '\*\*\*'\}\]: expected"):
        check_params(described(login), {"token": 1, "user": [{"pwd": "GEHEIM"}]})


def test_what_workers_do_not_tell_is_left_to_the_worker() -> None:
    check_params(None, {"x": 1})
    check_params(described(Whole), {"x": 1})
    check_params(described(open_ended), {"user_id": 1, "x": 1})
    check_params(described(charge), {"user_id": 1, "at": "not a time", "what": object})  # type: ignore[dict-item]
