"""From params to the typed arguments of a function."""

from __future__ import annotations

import functools
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from mrq_core.errors import ConfigError, InvalidParams
from mrq_core.tasks.task import task
from tests.client import annotated


def test_params_become_what_the_annotations_say() -> None:
    arguments = annotated.rich.arguments_from(
        {"when": "2026-01-02T03:04:05Z", "to": {"street": "Main"}, "maybe": 3, "extra": [1]}
    )
    assert arguments == {
        "when": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "to": annotated.Address(street="Main"),
        "kind": "a",
        "maybe": 3,
        "tags": [],
        "extra": [1],
    }


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"to": {"street": "x"}}, "missing required field `when`"),
        ({"when": "yesterday", "to": {"street": "x"}}, r"\$\.when"),
        ({"when": "2026-01-02T03:04:05Z", "to": {}}, r"missing required field `street` - at `\$\.to`"),
        ({"when": "2026-01-02T03:04:05Z", "to": {"street": "x"}, "kind": "c"}, r"\$\.kind"),
    ],
)
def test_params_that_do_not_fit_say_where(params: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidParams, match=words):
        annotated.rich.arguments_from(params)  # type: ignore[arg-type]


def test_text_is_taken_for_a_number_where_a_number_is_expected() -> None:
    @task
    def add(a: int, b: float = 0.5) -> float:
        return a + b

    assert add.arguments_from({"a": "3"}) == {"a": 3, "b": 0.5}
    assert add(1, b=2.0) == 3.0


def test_an_annotation_that_exists_only_for_the_type_checker_is_named() -> None:
    with pytest.raises(InvalidParams, match="'Decimal' is not defined"):
        annotated.unresolvable.arguments_from({"amount": 1})


def test_the_annotation_of_the_result_need_not_resolve() -> None:
    assert annotated.returns_unresolvable.arguments_from({"amount": 1}) == {"amount": 1}


def test_a_wrapped_function_keeps_its_arguments() -> None:
    def twice(function: Callable[..., int]) -> Callable[..., int]:
        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> int:
            return function(*args, **kwargs) * 2

        return wrapper

    @task
    @twice
    def number(n: int) -> int:
        return n

    assert number.arguments_from({"n": 2}) == {"n": 2}
    assert number(n=2) == 4


def test_positional_arguments_and_async_functions_are_refused() -> None:
    @task
    def positional(a: int, /) -> None:
        return None

    with pytest.raises(InvalidParams, match="by position"):
        positional.arguments_from({"a": 1})
    with pytest.raises(TypeError, match="async"):

        @task
        async def waits() -> None:
            return None


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tiemout": 3}, "did you mean 'timeout'"),
        ({"timeout": "soon"}, "timeout"),
        ({"timeout": -1}, "not negative"),
        ({"priority": 9}, "-4 to 4"),
        ({"retry_on": "ValueError"}, "exception classes"),
        ({"nothing_like_it": 1}, "expected one of queue"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        task(**options)
