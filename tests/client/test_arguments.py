"""From params to the typed arguments of a function."""

from __future__ import annotations

import enum
import functools
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from mrq_core.errors import ConfigError, InvalidParams, InvalidValue
from mrq_core.running.helpers import run_task
from mrq_core.tasks.task import Task, task
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


NAMES = (
    "__q", "_", "self", "cls", "path", "params", "timeout", "queue", "task", "call", "delay", "at", "job_id",
    "priority", "function", "wrapped", "args", "kwargs", "client", "name", "struct", "converted", "default",
    "options", "a0", "a1", "__init__", "__class__", "__dict__", "__struct_fields__", "__match_args__",
    "__reduce__", "é", "\u017f",
)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_an_argument_may_have_any_name(name: str) -> None:
    scope: dict[str, Any] = {}
    exec(f"def takes(first: int, {name}: int, more=3): return [first, {name}, more]", scope)
    exec("def collects(**more): return more", scope)
    takes, collects = task(scope["takes"]), task(scope["collects"])
    params: dict[str, Any] = {"first": 1, name: "2"}
    stored = unicodedata.normalize("NFKC", name)
    assert takes.arguments_from({"first": 1, stored: "2"}) == {"first": 1, stored: 2, "more": 3}
    assert takes.task_class().run({"first": 1, stored: "2"}) == [1, 2, 3]
    assert collects.task_class().run(params) == collects(**params) == params
    with pytest.raises(InvalidParams, match=f"missing required field `{stored}`"):
        takes.arguments_from({"first": 1})
    with pytest.raises(InvalidParams, match=rf"\$\.{stored}"):
        takes.arguments_from({"first": 1, stored: "x"})


@pytest.mark.parametrize("annotation", ["'int |'", "'no such'", "'1/0'", "'__import__(\"none\")'"])
def test_an_annotation_that_is_no_type_is_named(annotation: str) -> None:
    scope: dict[str, Any] = {"__name__": __name__}
    exec(f"def odd(a: {annotation}): pass", scope)
    with pytest.raises(InvalidParams, match=r"an annotation of tests\.client\.test_arguments\.odd cannot be"):
        task(scope["odd"]).arguments_from({"a": 1})


def yields() -> Iterator[int]:
    yield 1


async def yields_later() -> AsyncIterator[int]:
    yield 1


class Some:
    def method(self) -> None:
        return None

    @classmethod
    def of_class(cls) -> None:
        return None


class Unshowable:
    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def test_self_may_be_the_name_of_an_argument_that_no_method_has_so() -> None:
    @task
    def keyword(*, self: int = 0) -> int:
        return self

    @task
    def rest(**self: int) -> dict[str, int]:
        return self

    assert (keyword(self=1), rest(a=1)) == (1, {"a": 1})


def takes_itself(self: int) -> int:
    return self


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (
            takes_itself,
            "takes_itself is a method, or its first argument is named as that of one, self: a task",
        ),
        (5, "@task was given 5: expected a function"),
        ("tasks.mail", "@task was given 'tasks.mail': expected a function"),
        (lambda: None, "lambda.*expected a function that was made by def"),
        (functools.partial(print, 1), "functools.partial.*expected a function"),
        (Some, "a class becomes a task as a subclass of mrq_core.Task"),
        (Task, "a class becomes a task as a subclass"),
        (Some.method, "Some.method is a method"),
        (Some().method, "bound method.*expected a function"),
        (Some.of_class, "bound method.*expected a function"),
        (staticmethod(yields), "staticmethod.*expected a function"),
        (print, "built-in function print.*expected a function"),
        (yields, "yields is a generator function, whose code would never run"),
        (yields_later, "yields_later is an async function"),
        (task(test_an_argument_may_have_any_name), "expected a function that was made by def, and only once"),
        (Unshowable(), "@task was given <Unshowable instance"),
    ],
)
def test_only_a_function_becomes_a_task(odd: Any, words: str) -> None:
    for decorate in (task, task(queue="x")):
        with pytest.raises(TypeError, match=words):
            decorate(odd)


class Level(enum.IntEnum):
    HIGH = 3


class Line(enum.StrEnum):
    MAIL = "mail"


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("timeout", "5", "timeout is '5': expected a number"),
        ("timeout", True, "timeout is True: expected a number"),
        ("timeout", float("nan"), "timeout is nan: expected a number that is not negative"),
        ("timeout", Unshowable(), "timeout is <Unshowable instance.*: expected a number"),
        ("retry_delay", 10**400, "retry_delay is an integer of .* bits: expected a number"),
        ("max_retries", 1.5, "max_retries is 1.5: expected a whole number"),
        ("priority", True, "priority is True: expected a whole number"),
        ("queue", 5, "queue is 5: expected text"),
        ("queue", "a\0b", "queue is 'a.*b': expected text that UTF-8 can hold"),
        ("queue", "", "queue is '': expected a name"),
        ("at_most_once", 1, "at_most_once is 1: expected True or False"),
        ("isolate", "yes", "isolate is 'yes': expected True or False"),
        ("memory", "much", "memory is 'much': expected a number of bytes, or text such as"),
        ("memory", True, "memory is True: expected a number of bytes"),
        ("memory", 2**70, "memory is 1180591620717411303424: expected a number of bytes"),
        (
            "retry_on",
            Unshowable(),
            "retry_on is <Unshowable instance.*: expected a tuple of exception classes",
        ),
        ("\udcff" * 1000, 1, r"'(\\udcff)+\\\.\.\.\S* is not an option of a task"),
    ],
)
def test_an_odd_option_is_shown_with_what_is_expected(option: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError, match="^@task: " + words) as caught:
        task(**{option: value})
    assert len(str(caught.value)) < 700


def test_members_of_enums_are_options() -> None:
    @task(queue=Line.MAIL, priority=Level.HIGH)
    def mailed() -> None:
        return None

    assert (mailed.task_class.queue, mailed.task_class.priority) == ("mail", 3)
    assert (type(mailed.task_class.queue), type(mailed.task_class.priority)) == (str, int)


def test_a_key_that_utf8_cannot_hold_does_not_fit() -> None:
    @task
    def takes_all(**more: int) -> None: ...

    with pytest.raises(InvalidValue, match="has a lone surrogate"):
        takes_all.arguments_from({"\ud800": 1})


class Fraction(float):
    """As numpy's numbers are."""


def test_run_task_takes_the_keys_and_values_that_a_job_takes() -> None:
    kept = object()
    params = {Line.MAIL: Fraction(0.5), "number": Level.HIGH, "more": kept}
    assert run_task(measured, params) == (0.5, 3, kept)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", [1, None, b"mail", (1, 2)])
@pytest.mark.parametrize("params", [{}, {"mail": 0.5, "number": 3}])
def test_run_task_names_a_key_that_is_no_text(params: dict[Any, Any], key: object) -> None:
    with pytest.raises(InvalidValue, match=r"params has the key .*: expected string keys"):
        run_task(measured, params | {key: 1})


@task
def measured(mail: float, number: int, **more: Any) -> tuple[float, int, Any]:
    return mail, number, more.get("more")
